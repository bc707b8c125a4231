"""Cut a raw array into patches and put it together again: one code path for any number of axes.

    raw [5, 6] in patches of [2, 3]; "." repeats the edge:     grid [3, 2]

        a a a | b b b
        a a a | b b b                  patches [6, 6], row-major over the grid:
        ------+------                  a, b, c, d, e, f; inside a patch row-major
        c c c | d d d                  over the patch's axes, then the channels
        c c c | d d d
        ------+------
        e e e | f f f
        . . . | . . .

An image is cut along (h, w), a video along (t, h, w), a volume along (z, y, x). Sizes that the patch does not
divide are padded by repeating the last row, column or frame; putting together crops exactly that.
Each direction costs one copy of the array.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError

Scalar = TypeVar("Scalar", bound=np.generic)


def patch_grid(extent: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """Number of patches along each axis, the padded last ones included.

    Args:
        extent: Size of the array along each axis.
        patch: Size of a patch along each axis.

    Returns:
        The grid: each extent over its patch size, rounded up.

    Raises:
        ShapeError: `extent` and `patch` differ in length.
    """
    if len(extent) != len(patch):
        raise ShapeError(f"extent {extent} and patch {patch}: give one patch size for each axis")
    return tuple(-(-n // step) for n, step in zip(extent, patch, strict=True))


def to_patches(raw: NDArray[Scalar], patch: tuple[int, ...]) -> NDArray[Scalar]:
    """Cut an array into patches.

    Args:
        raw: [*extent, C], each axis at least 1 long.
        patch: Size of a patch along each axis but the last.

    Returns:
        [prod(grid), prod(patch) * C], a new array of the same dtype.

    Raises:
        ShapeError: `raw` does not have one axis more than `patch`.
        InputError: An axis of `raw` is empty, so there is no edge to repeat.
    """
    *extent, channels = raw.shape
    grid = patch_grid(tuple(extent), patch)
    if raw.size == 0:
        raise InputError(f"an array of shape {list(raw.shape)} has nothing to cut into patches")
    missing = [(0, steps * step - n) for steps, step, n in zip(grid, patch, extent, strict=True)]
    padded = np.pad(raw, [*missing, (0, 0)], mode="edge") if any(after for _, after in missing) else raw
    split = padded.reshape(*(n for pair in zip(grid, patch, strict=True) for n in pair), channels)
    axes = len(patch)
    ordered = split.transpose(*range(0, 2 * axes, 2), *range(1, 2 * axes, 2), 2 * axes)
    patches: NDArray[Scalar] = ordered.reshape(math.prod(grid), math.prod(patch) * channels)
    # Where the grid has one patch across, reshape returns a view; callers get an array of their own.
    return patches.copy() if np.shares_memory(patches, raw) else patches


def from_patches(patches: NDArray[Scalar], patch: tuple[int, ...], extent: tuple[int, ...]) -> NDArray[Scalar]:
    """Put patches together again and crop the padding: the inverse of `to_patches`.

    Args:
        patches: [prod(grid), prod(patch) * C].
        patch: Size of a patch along each axis.
        extent: Size of the array along each axis; the grid follows from it.

    Returns:
        [*extent, C], C order.

    Raises:
        ShapeError: The number of patches or their length does not fit `extent` and `patch`.
    """
    grid, length = patch_grid(extent, patch), math.prod(patch)
    if patches.ndim != 2 or len(patches) != math.prod(grid) or patches.shape[1] % length or patches.shape[1] == 0:
        raise ShapeError(
            f"patches of shape {list(patches.shape)} for extent {extent} in patches of {patch}: "
            f"give [{math.prod(grid)}, {length} * channels]"
        )
    axes, channels = len(patch), patches.shape[1] // length
    split = patches.reshape(*grid, *patch, channels)
    interleaved = split.transpose(*(axis for i in range(axes) for axis in (i, axes + i)), 2 * axes)
    padded = interleaved.reshape(*(steps * step for steps, step in zip(grid, patch, strict=True)), channels)
    return np.ascontiguousarray(padded[tuple(slice(n) for n in extent)])
