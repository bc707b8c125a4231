"""Images by a small neural codec in integer arithmetic: see `_nd_vq` for what it promises, docs/image-video-volume.md
for how it works.

Codes follow the picture: grid position (y, x) stands for the pixels from (8 y, 8 x) on for patches of 8, rows from the
top. They also depend on what lies around, as far as the nets reach.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.nets.integer import IntegerAutoencoder
from multitok.protocol import Modality
from multitok.tokenizers._nd_levels import PixelLevels
from multitok.tokenizers._nd_vq import NdVq
from multitok.tokenizers._pixels import check_pixels


class ImageVq(NdVq):
    """uint8 [H, W, 3] <-> codes [K, h, w], h = ceil(H / patch height), w = ceil(W / patch width).

    Args:
        net: The autoencoder: three channels, patches of one frame, no neighbours in time.
        num_codebooks: How many codebooks to use, the first ones; None for all.
        name: Name inside a vocabulary; None takes "image".
    """

    kind = "image-vq"
    modality = Modality.IMAGE
    grid_axes = ("h", "w")
    channels = 3
    allowed_taps = ((0,),)

    def __init__(self, net: IntegerAutoencoder, *, num_codebooks: int | None = None, name: str | None = None) -> None:
        super().__init__(net, PixelLevels(), num_codebooks, name)
        if net.config.patch[0] != 1:
            raise SpecError(f"patch={net.config.patch}: an image has one frame, give (1, height, width)")

    def check_raw(self, raw: NDArray[Any]) -> None:
        """Raise unless `raw` is uint8 [H, W, 3]."""
        check_pixels(raw, self.grid_axes)

    def to_frames(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One frame."""
        return raw[None]

    def raw_shape(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """(H, W, 3)."""
        return (*extent, self.channels)
