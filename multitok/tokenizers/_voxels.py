"""The errors for arrays that are no volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError

# Voxels looked at together; bounds the memory.
BLOCK_VOXELS = 2**24


def check_voxels(raw: NDArray[Any], low: float) -> None:
    """Raise unless `raw` is finite float32 [Z, Y, X], with a hint for the usual mistakes.

    Args:
        raw: What a caller gave.
        low: The lowest intensity of the window, to be recommended for missing values.

    Raises:
        ShapeError: Another type, dtype or rank.
        InputError: A voxel is NaN or infinite; the message names the first.
    """
    wanted = "float32 [Z, Y, X]"
    if not isinstance(raw, np.ndarray):
        raise ShapeError(f"given {type(raw).__name__}: give a NumPy array {wanted}")
    if raw.dtype != np.float32 or raw.ndim != 3:
        hint = ""
        if raw.ndim == 4:
            hint = "; a volume has one channel: give each channel as a volume of its own"
        elif raw.dtype != np.float32:
            hint = "; write x.astype(np.float32)"
        raise ShapeError(f"given {raw.dtype} of shape {list(raw.shape)}: give {wanted}{hint}")
    if raw.size == 0:
        return
    slices = max(1, BLOCK_VOXELS // (raw.shape[1] * raw.shape[2]))
    for start in range(0, len(raw), slices):
        block = raw[start : start + slices]
        finite = np.isfinite(block)
        if not finite.all():
            first = np.argwhere(~finite)[0]
            value = block[tuple(first)]
            voxel = (start + int(first[0]), *first[1:].tolist())
            raise InputError(
                f"voxel {voxel} (z, y, x) is {value}: give finite intensities; "
                f"for missing ones choose a value, np.nan_to_num(x, nan={low:g})"
            )
