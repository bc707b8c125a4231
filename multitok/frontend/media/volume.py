"""What every reader of volumes does: any real array with three axes becomes finite float32 [Z, Y, X]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError


def as_volume(name: str, values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Any real array with three axes as a float32 volume.

    Args:
        name: The file's name.
        values: [Z, Y, X].

    Returns:
        [Z, Y, X] float32, contiguous.

    Raises:
        InputError: A voxel is NaN, infinite, or too large for float32; or there is none.
    """
    if values.size == 0:
        raise InputError(f"{name}: a volume of shape {list(values.shape)} has no voxels")
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.array(values, dtype=np.float32, order="C")
    if not np.isfinite(volume).all():
        finite = np.isfinite(volume)
        first = np.unravel_index(int(finite.argmin()), volume.shape)
        raise InputError(
            f"{name}: voxel {[int(i) for i in first]} is {values[first]}, not a finite float32; "
            f"{finite.size - int(finite.sum()):,} of {finite.size:,} are not: replace them, by 0 in the background"
        )
    return volume
