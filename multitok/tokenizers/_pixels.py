"""What image and video share: 8-bit RGB pixels as levels, and the errors for arrays that are something else."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError
from multitok.tokenizers._patch_rvq import PatchRvq

# Levels are pixel values minus this: -128 to 127.
MIDDLE = 128


class PixelPatch(PatchRvq):
    """A patch tokenizer of uint8 [*axes, 3]; the level of a pixel value is the value minus 128."""

    channels = 3
    raw_dtype = np.uint8
    max_level = MIDDLE

    def check_raw(self, raw: NDArray[Any]) -> None:
        """Raise unless `raw` is uint8 [*axes, 3]."""
        check_pixels(raw, self.grid_axes)

    def to_levels(self, patches: NDArray[Any]) -> NDArray[Any]:
        """Pixel values as levels -128 to 127."""
        levels = patches.astype(np.float32)
        levels -= MIDDLE
        return levels

    def from_levels(self, levels: NDArray[np.float64]) -> NDArray[Any]:
        """The nearest pixel values, clipped to 0 to 255; overwrites `levels`."""
        levels += MIDDLE
        np.rint(levels, out=levels)
        return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


def check_pixels(raw: NDArray[Any], axes: tuple[str, ...]) -> None:
    """Raise unless `raw` is uint8 [*axes, 3], with a hint for the usual mistakes.

    Args:
        raw: What a caller gave.
        axes: Names of all axes but the last.

    Raises:
        ShapeError: Another type, dtype, rank or number of channels.
    """
    wanted = f"uint8 [{', '.join(axis.upper() for axis in axes)}, 3] (RGB)"
    if not isinstance(raw, np.ndarray):
        raise ShapeError(f"given {type(raw).__name__}: give a NumPy array {wanted}, np.asarray(picture) for a picture")
    if raw.dtype == np.uint8 and raw.ndim == len(axes) + 1 and raw.shape[-1] == 3:
        return
    hint = ""
    if raw.dtype.kind == "f":
        hint = "; for floats in [0, 1] write (x * 255).round().astype(np.uint8)"
    elif raw.dtype == np.uint16:
        hint = "; for 16-bit pixels write (x >> 8).astype(np.uint8)"
    elif raw.ndim == len(axes):
        hint = "; for gray pixels repeat the channel: np.repeat(x[..., None], 3, axis=-1)"
    elif raw.ndim == len(axes) + 1 and raw.shape[-1] == 1:
        hint = "; for gray pixels repeat the channel: np.repeat(x, 3, axis=-1)"
    elif raw.ndim == len(axes) + 1 and raw.shape[-1] == 4:
        hint = "; for RGBA drop or blend the alpha channel first: x[..., :3]"
    elif raw.ndim == len(axes) + 1 and raw.shape[-3] == 3:
        hint = "; for channels-first arrays move the channels last: np.moveaxis(x, -3, -1)"
    elif raw.ndim == len(axes) + 2:
        hint = "; for a batch use encode_batch"
    raise ShapeError(f"given {raw.dtype} of shape {list(raw.shape)}: give {wanted}{hint}")
