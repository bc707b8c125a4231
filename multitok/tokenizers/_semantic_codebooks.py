"""Clusters of features: what is done to features before the nearest cluster is looked for, and the clusters.

Shape letters: F frames, D values of a feature, P components, V units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError

# Normalised features are rounded to steps of 1 / 256 before a projection; few lie beyond 10.
NORMAL_GRID, LARGEST_NORMAL = 256, 64


@dataclass(frozen=True)
class Codebooks:
    """Clusters of one front end's features, in several sizes.

    Features are normalised, (features - mean) / std, and then perhaps projected onto P components. The projection is a
    product of integers in float64, which is exact: so it does not depend on how many frames there are.

    Args:
        values: [sum of the sizes, D or P], one codebook after another; float16, float32, or int8 with `scale`.
        sizes: V of each, rising.
        mean: [D] of the features.
        std: [D] of the features, above 0.
        scale: [D or P] float32, what a step of int8 values is worth; None for floating point.
        projection: [D, P] int16; None for none.
        projection_scale: [P] float32, what a step of the projection is worth.

    Raises:
        SpecError: The arrays do not fit each other, or sizes repeat.
    """

    values: NDArray[Any]
    sizes: tuple[int, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    scale: NDArray[np.float32] | None = None
    projection: NDArray[np.int16] | None = None
    projection_scale: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if self.projection is None:
            dim = len(self.mean)
        else:
            dim = 0 if self.projection_scale is None else len(self.projection_scale)
            if self.projection.dtype != np.int16 or self.projection.shape != (len(self.mean), dim):
                raise SpecError(
                    f"projection {self.projection.dtype} {list(self.projection.shape)}: give int16 "
                    f"[{len(self.mean)}, {dim}], as its scale has it"
                )
        wanted = (sum(self.sizes), dim)
        if self.values.shape != wanted or self.std.shape != self.mean.shape or not (self.std > 0).all():
            raise SpecError(
                f"codebooks {list(self.values.shape)} of sizes {self.sizes}, mean {list(self.mean.shape)}, "
                f"std {list(self.std.shape)}: give {list(wanted)}, [D] and [D] above 0"
            )
        if (self.values.dtype == np.int8) != (self.scale is not None):
            raise SpecError(f"codebooks of {self.values.dtype}: int8, and only int8, has a scale")
        if list(self.sizes) != sorted(set(self.sizes)):
            raise SpecError(f"codebook sizes {self.sizes}: give each once, rising")

    def normalised(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [F, D] as the clusters have them: mean 0, standard deviation 1, projected."""
        normal: NDArray[np.float32] = (features - self.mean) / self.std
        if self.projection is None or self.projection_scale is None:
            return normal
        steps = np.rint(np.clip(normal, -LARGEST_NORMAL, LARGEST_NORMAL) * NORMAL_GRID).astype(np.float64)
        products = steps @ self.projection.astype(np.float64)
        return np.asarray(products * (self.projection_scale / np.float64(NORMAL_GRID)), np.float32)

    def of_size(self, size: int) -> NDArray[np.float32]:
        """The codebook [V, D] of one size.

        Raises:
            SpecError: There is none.
        """
        if size not in self.sizes:
            raise SpecError(f"codebook_size={size}: this checkpoint has {', '.join(map(str, self.sizes))}")
        first = sum(self.sizes[: self.sizes.index(size)])
        values = self.values[first : first + size].astype(np.float32)
        return values if self.scale is None else values * self.scale

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint holds of it."""
        held = {
            "codebooks": self.values, "mean": self.mean, "std": self.std, "codebook_scale": self.scale,
            "projection": self.projection, "projection_scale": self.projection_scale,
        }  # fmt: skip
        return {key: value for key, value in held.items() if value is not None}
