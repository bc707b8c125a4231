"""Where a volume's voxels lie: the affine that travels with it, and the turn to a common orientation.

World coordinates are millimetres, x to the patient's Right, y to the front (Anterior), z up (Superior): "RAS". The
affine takes a voxel (x, y, z) of an array [Z, Y, X] there:

    world = affine[:3, :3] @ (x, y, z) + affine[:3, 3]         array[z, y, x] is that voxel

"RAS" as an orientation means: x grows to the right, y to the front, z upwards, as nearly as turning by right angles and
mirroring can make it. Nothing is resampled: an oblique scan stays oblique, and its affine says how.

Shape letters: Z slices, Y rows, X columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from multitok.protocol import Json

Affine: TypeAlias = "tuple[tuple[float, ...], ...]"

IDENTITY: Affine = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))
_FARTHEST_MM = 1e9
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_Values = TypeVar("_Values", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class VolumeInfo:
    """What a volume's file says besides its values.

    Args:
        affine: 4 rows of 4: voxel (x, y, z) of the array as returned -> millimetres, RAS.
        axes: Where x, y and z grow to in the array as returned, such as "RAS"; "" where the file does not say.
        stored_axes: The same of the array as the file holds it.
        window: (low, high): a stored value v became (v - low) / (high - low), cut to [0, 1]. None: values as stored.
        notes: What was out of the ordinary, in words.
    """

    affine: Affine = IDENTITY
    axes: str = ""
    stored_axes: str = ""
    window: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from a voxel to the next along Z, Y and X."""
        x, y, z = (float(length) for length in np.linalg.norm(np.array(self.affine)[:3, :3], axis=0))
        return z, y, x

    @property
    def origin(self) -> tuple[float, float, float]:
        """World x, y, z of the centre of voxel [0, 0, 0], in millimetres."""
        return self.affine[0][3], self.affine[1][3], self.affine[2][3]

    def to_json(self) -> dict[str, Json]:
        """The record as JSON values; `from_json` inverts it."""
        return {
            "affine": [list(row) for row in self.affine],
            "axes": self.axes,
            "stored_axes": self.stored_axes,
            "window": None if self.window is None else list(self.window),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VolumeInfo:
        """Rebuild a record from what `to_json` returned."""
        return cls(
            affine=tuple(tuple(float(value) for value in row) for row in data["affine"]),
            axes=data["axes"],
            stored_axes=data["stored_axes"],
            window=None if data["window"] is None else (data["window"][0], data["window"][1]),
            notes=tuple(data["notes"]),
        )


def as_affine(matrix: NDArray[np.float64]) -> Affine:
    """A 4 x 4 array as the plain tuple that `VolumeInfo` holds."""
    # Adding 0.0 turns -0.0 into 0.0.
    return tuple(tuple(float(value) + 0.0 for value in row) for row in matrix)


def is_affine(matrix: NDArray[np.float64]) -> bool:
    """Whether a 4 x 4 array places voxels: within a thousand kilometres, and no axis without a length of its own."""
    if not (np.isfinite(matrix).all() and np.abs(matrix).max() < _FARTHEST_MM):
        return False
    return bool(abs(np.linalg.det(matrix[:3, :3])) > 1e-12)


def axes_of(affine: Affine) -> str:
    """Where x, y and z of an array grow to, as nearly as three letters say it: "RAS", "LPS"."""
    order, signs = _nearest(np.array(affine)[:3, :3])
    return "".join(_LETTERS[world][sign > 0] for world, sign in zip(order, signs, strict=True))


def to_ras(values: NDArray[_Values], info: VolumeInfo) -> tuple[NDArray[_Values], VolumeInfo]:
    """Turn and mirror a volume so that x, y and z grow to the right, the front and upwards, as nearly as they can.

    Args:
        values: [Z, Y, X].
        info: Of these values; without `stored_axes` nothing is known, and nothing is turned.

    Returns:
        A view of the values, and their new affine and axes.
    """
    if not info.stored_axes:
        return values, info
    affine = np.array(info.affine)
    order, signs = _nearest(affine[:3, :3])
    # In the order x, y, z, as the affine counts; the array counts z, y, x.
    turned = values.transpose(2, 1, 0)
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine[:, 3] += affine[:, axis] * (turned.shape[axis] - 1)
            affine[:, axis] *= -1
            turned = np.flip(turned, axis)
    source_of = [order.index(world) for world in range(3)]
    affine[:, :3] = affine[:, source_of]
    turned = turned.transpose(source_of)
    placed = as_affine(affine)
    return turned.transpose(2, 1, 0), replace(info, affine=placed, axes=axes_of(placed))


def _nearest(matrix: NDArray[np.float64]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each array axis x, y, z the world axis it runs along most, each taken once, and whether up or down it."""
    directions = matrix / np.linalg.norm(matrix, axis=0)
    # The rotation nearest to a sheared or skewed frame, so that no axis is judged by the shear alone.
    left, _, right = np.linalg.svd(directions)
    rotation = left @ right
    # Rounded, so that axes at exactly 45 degrees do not depend on the last bit; the first order wins.
    order = max(
        itertools.permutations(range(3)),
        key=lambda worlds: round(sum(abs(rotation[world, axis]) for axis, world in enumerate(worlds)), 9),
    )
    return order, tuple(1 if rotation[world, axis] >= 0 else -1 for axis, world in enumerate(order))
