"""How good an autoencoder is on items that it was not trained on, and pictures of it. This module imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from multitok.nets.autoencoder import VqAutoencoder
from multitok.nets.autoencoder_config import Sizes
from multitok.nets.integer import IntegerAutoencoder
from multitok.train.crop_pool import HeldOut

# While it trains, the middle of each item is measured up to this size; and so many items stand in a picture.
MIDDLE = (32, 256, 256)
SHOWN = 4


class Measured(NamedTuple):
    """Quality on held-out items.

    Args:
        psnr: dB by number of codebooks, from 1; means over the items, of values rounded as they are decoded.
        pictures: [rows, columns, 3] uint8: frames of some items above what all codebooks make of them.
    """

    psnr: list[float]
    pictures: NDArray[np.uint8]


def measure_floats(model: VqAutoencoder, items: Sequence[HeldOut], *, autocast: bool) -> Measured:
    """Measure a model in training.

    Args:
        model: On any device.
        items: At least one; each goes through the nets at once.
        autocast: Run its nets in bfloat16.

    Returns:
        Its quality.
    """
    config, device = model.config, model.basis.device
    rows, shown = [], []
    for item in items:
        levels = item.levels
        with torch.no_grad():
            batch = torch.from_numpy(levels.astype(np.float32))[None].to(device)
            z = model.latents(batch, autocast)
            decoded = [
                model.reconstruct(model.quantize(z, n, autocast).quantized, autocast)[0].cpu().numpy()
                for n in range(1, config.num_codebooks + 1)
            ]
        rows.append([_psnr(levels, each) for each in decoded])
        shown.append((levels, _rounded(decoded[-1])))
    return Measured(_means(rows), _sheet(shown[:SHOWN]))


def measure_integers(autoencoder: IntegerAutoencoder, items: Sequence[HeldOut]) -> Measured:
    """Measure what tokenizers will run.

    Args:
        autoencoder: Frozen.
        items: At least one.

    Returns:
        Its quality.
    """
    rows, shown = [], []
    for item in items:
        levels = item.levels.astype(np.int16)
        codes = autoencoder.encode_levels(levels)
        decoded = [autoencoder.decode_levels(codes[..., :n]) for n in range(1, codes.shape[-1] + 1)]
        rows.append([_psnr(item.levels, each) for each in decoded])
        shown.append((item.levels, _rounded(decoded[-1])))
    return Measured(_means(rows), _sheet(shown[:SHOWN]))


def middle(levels: NDArray[np.int8], most: Sizes, patch: Sizes) -> NDArray[np.int8]:
    """The middle of levels [T, H, W, C], at most this large, in whole patches.

    Args:
        levels: Whole patches along each axis.
        most: Largest (T, H, W).
        patch: (pt, ph, pw).

    Returns:
        A part of it, at least one patch.
    """
    cut = []
    for size, limit, step in zip(levels.shape, most, patch, strict=False):
        side = max(min(size, limit) // step, 1) * step
        cut.append(slice((size - side) // 2, (size - side) // 2 + side))
    return np.ascontiguousarray(levels[tuple(cut)])


def _rounded(levels: NDArray[np.floating]) -> NDArray[np.int8]:
    rounded: NDArray[np.int8] = np.clip(np.rint(levels), -128, 127).astype(np.int8)
    return rounded


def _psnr(levels: NDArray[np.int8], decoded: NDArray[np.floating]) -> float:
    # In int64: a difference of 8-bit values that stays in 8 bits wraps around.
    error = levels.astype(np.int64) - _rounded(decoded)
    return -10 * math.log10(max(float(np.square(error).mean()), 1e-6) / 255**2)


def _means(rows: list[list[float]]) -> list[float]:
    return [round(math.fsum(column) / len(column), 4) for column in zip(*rows, strict=True)]


def _sheet(pairs: Sequence[tuple[NDArray[np.int8], NDArray[np.int8]]]) -> NDArray[np.uint8]:
    """One frame of each item, cut to 256 x 256, the original above the decoded one."""
    side = MIDDLE[1]
    sheet = np.full((2 * side, len(pairs) * side, 3), 255, np.uint8)
    for column, pair in enumerate(pairs):
        for row, levels in enumerate(pair):
            frame = levels[len(levels) // 2][:side, :side].view(np.uint8) ^ 128
            h, w = frame.shape[:2]
            sheet[row * side : row * side + h, column * side : column * side + w] = frame
    return sheet
