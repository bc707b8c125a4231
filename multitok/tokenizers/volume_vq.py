"""Volumes by a small neural codec in integer arithmetic: see `_nd_vq`, docs/image-video-volume.md.

Intensities mean something only inside a window (low, high): it is cut into 256 equal levels, and what lies outside is
clipped to its ends. Choose the window with the data: (0, 1) after dividing an MRI by its 99.5th percentile,
(-1000, 1000) for a CT in Hounsfield units, (0, 1) for occupancy. A decoded voxel never leaves the window.

A spectrogram or a series [N, C] is a volume of one slice, `x[None]`, for an autoencoder with patches (1, ph, pw).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.nets.integer import IntegerAutoencoder
from multitok.protocol import Json, Modality
from multitok.tokenizers._nd_levels import WindowLevels
from multitok.tokenizers._nd_vq import NdVq
from multitok.tokenizers._voxels import check_voxels


class VolumeVq(NdVq):
    """float32 [Z, Y, X] <-> codes [K, z, y, x], each grid size the raw one over the patch, rounded up.

    Args:
        net: The autoencoder: one channel.
        window: (low, high) intensities, low < high; values outside are clipped.
        num_codebooks: How many codebooks to use, the first ones; None for all.
        name: Name inside a vocabulary; None takes "volume".
    """

    kind = "volume-vq"
    modality = Modality.VOLUME
    grid_axes = ("z", "y", "x")
    channels = 1
    allowed_taps = ((0,), (-1, 0), (-1, 0, 1))

    def __init__(
        self,
        net: IntegerAutoencoder,
        *,
        window: Sequence[float] = (0.0, 1.0),
        num_codebooks: int | None = None,
        name: str | None = None,
    ) -> None:
        levels = WindowLevels(window)
        super().__init__(net, levels, num_codebooks, name)
        self._window = levels.window

    @property
    def window(self) -> tuple[float, float]:
        """(low, high) intensities that the levels cover."""
        return self._window

    def check_raw(self, raw: NDArray[Any]) -> None:
        """Raise unless `raw` is finite float32 [Z, Y, X]."""
        check_voxels(raw, self._window[0])

    def to_frames(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Slices as frames of one channel."""
        return raw[..., None]

    def raw_shape(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """(Z, Y, X)."""
        return extent

    def _options(self) -> dict[str, Json]:
        return {**super()._options(), "window": list(self._window)}
