"""Contact sheets: what became of an item, to be looked at.

    original   1 codebook   2 codebooks  ...  K codebooks
    scale      error map    error map    ...  error map

A picture is shown pixel for pixel: its middle, where it is larger than a cell, and enlarged by a whole number where
it is much smaller. A clip is shown by its middle frame, a volume by its middle slice. An error map shows the mean
absolute error of a pixel's channels, black for none and white from an eighth of the range on (32 of 255).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

CELL = 320
# Errors from here on are white: this share of the range.
FULL_ERROR_SHARE = 32 / 255
_MARGIN, _LABEL_HEIGHT, _FONT_SIZE = 8, 20, 13
# Black, violet, red, orange, yellow, white: brightness grows all the way, so that it reads in grey too.
_RAMP = np.array([[0, 0, 0], [70, 10, 110], [190, 40, 70], [240, 125, 20], [250, 210, 80], [255, 255, 255]])


def write_sheet(
    path: Path,
    raw: NDArray[Any],
    decoded: Mapping[int, NDArray[Any]],
    *,
    low: float = 0.0,
    peak: float = 255.0,
) -> None:
    """Write the contact sheet of one item as a PNG file.

    Args:
        path: The file.
        raw: The item.
        decoded: What came back, by number of codebooks.
        low: Least value of the range that is shown.
        peak: Width of that range.
    """
    from PIL import Image, ImageDraw, ImageFont

    original = _shown(raw, low, peak)
    levels = {k: _shown(back, low, peak) for k, back in decoded.items()}
    factor = max(1, CELL // max(original.shape[:2]))
    height, width = (n * factor for n in original.shape[:2])
    columns = 1 + len(levels)
    size = (_MARGIN + columns * (max(width, _LABEL_HEIGHT * 7) + _MARGIN), 2 * (height + _LABEL_HEIGHT + _MARGIN))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)

    def place(column: int, row: int, label: str, cell: Image.Image) -> None:
        x = _MARGIN + column * (max(width, _LABEL_HEIGHT * 7) + _MARGIN)
        y = row * (height + _LABEL_HEIGHT + _MARGIN)
        draw.text((x, y + 2), label, fill="black", font=font)
        sheet.paste(cell, (x, y + _LABEL_HEIGHT))

    full = peak * FULL_ERROR_SHARE
    place(0, 0, "original", _cell(original, factor))
    place(0, 1, "mean absolute error", Image.fromarray(_scale(height)))
    beside = 2 * _MARGIN + _LABEL_HEIGHT, height + 2 * _LABEL_HEIGHT + _MARGIN
    draw.text(beside, f"{full:.3g} or more", fill="black", font=font)
    draw.text((beside[0], beside[1] + height - _LABEL_HEIGHT), "0", fill="black", font=font)
    for column, (k, pixels) in enumerate(levels.items(), 1):
        place(column, 0, f"{k} codebook{'s' * (k > 1)}", _cell(pixels, factor))
        place(column, 1, "error", _cell(_error_map(original, pixels), factor))
    sheet.save(path)


def _shown(raw: NDArray[Any], low: float, peak: float) -> NDArray[np.uint8]:
    """The part of an item that a cell shows, uint8 [h, w, 3]."""
    if raw.dtype == np.uint8:
        plane = raw[len(raw) // 2] if raw.ndim == 4 else raw
        return np.ascontiguousarray(_middle(plane))
    grey = np.rint(np.clip((_middle(raw[len(raw) // 2]).astype(np.float64) - low) / peak, 0, 1) * 255)
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _middle(plane: NDArray[Any]) -> NDArray[Any]:
    top, left = (max(0, (n - CELL) // 2) for n in plane.shape[:2])
    return plane[top : top + CELL, left : left + CELL]


def _error_map(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    error = np.abs(original.astype(np.int16) - decoded.astype(np.int16)).mean(axis=2)
    return _coloured(error / (255 * FULL_ERROR_SHARE))


def _coloured(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Shares of the full error, 0 to 1, as colours."""
    at = np.clip(share, 0, 1) * (len(_RAMP) - 1)
    channels = [np.interp(at, np.arange(len(_RAMP)), _RAMP[:, c]) for c in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def _scale(height: int) -> NDArray[np.uint8]:
    """The colours from the full error at the top down to none."""
    return _coloured(np.repeat(np.linspace(1, 0, max(height, 2))[:height, None], _LABEL_HEIGHT, axis=1))


def _cell(pixels: NDArray[np.uint8], factor: int) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1))
