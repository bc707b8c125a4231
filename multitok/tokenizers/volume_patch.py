"""Volumes (CT, MRI, microscopy) as voxel blocks: classical VQ, no neural net.

Intensities mean something only inside a window (low, high), as in a radiologist's viewer: it is cut into 4,096 equal
levels, and what lies outside is clipped to its ends. Choose the window with the data: (0, 1) after dividing an MRI by
its 99.5th percentile, (-1000, 1000) for a CT in Hounsfield units. A decoded voxel never leaves the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.protocol import Json, Modality
from multitok.tokenizers._patch_rvq import PatchRvq
from multitok.tokenizers._voxels import check_voxels

# Levels in the window; their steps are 60 dB below what four codebooks leave over.
NUM_LEVELS = 4096


class VolumePatch(PatchRvq):
    """float32 [Z, Y, X] <-> codes [K, z, y, x], each grid size the raw one over the patch, rounded up.

    Args:
        basis: [patch_z * patch_y * patch_x, D] int16; see `PatchRvq`.
        codebooks: [sum(codebook_sizes), D] int32.
        codebook_sizes: Size of each of the K codebooks.
        patch: (z, y, x) of a voxel block.
        window: (low, high) intensities, low < high; values outside are clipped.
        name: Name inside a vocabulary; None takes "volume".
    """

    kind = "volume-patch"
    modality = Modality.VOLUME
    grid_axes = ("z", "y", "x")
    channels = 1
    raw_dtype = np.float32
    max_level = NUM_LEVELS // 2

    def __init__(
        self,
        *,
        basis: NDArray[np.int16],
        codebooks: NDArray[np.int32],
        codebook_sizes: Sequence[int],
        patch: Sequence[int],
        window: Sequence[float] = (0.0, 1.0),
        name: str | None = None,
    ) -> None:
        super().__init__(basis=basis, codebooks=codebooks, codebook_sizes=codebook_sizes, patch=patch, name=name)
        if len(window) != 2 or not all(map(math.isfinite, window)) or not window[0] < window[1]:
            raise SpecError(f"window={list(window)}: give (low, high) with low < high, both finite")
        self._low, self._high = float(window[0]), float(window[1])

    @property
    def window(self) -> tuple[float, float]:
        """(low, high) intensities that the levels cover."""
        return self._low, self._high

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {**super().get_config(), "window": [self._low, self._high]}

    def check_raw(self, raw: NDArray[Any]) -> None:
        """Raise unless `raw` is finite float32 [Z, Y, X]."""
        check_voxels(raw, self._low)

    def to_levels(self, patches: NDArray[Any]) -> NDArray[Any]:
        """Intensities as levels -2048 to 2047, clipped to the window."""
        share = (patches.astype(np.float64) - self._low) / (self._high - self._low)
        return np.rint(np.clip(share, 0, 1) * (NUM_LEVELS - 1)) - self.max_level

    def from_levels(self, levels: NDArray[np.float64]) -> NDArray[Any]:
        """Intensities inside the window."""
        share = np.clip((levels + self.max_level) / (NUM_LEVELS - 1), 0, 1)
        return (self._low + share * (self._high - self._low)).astype(np.float32)
