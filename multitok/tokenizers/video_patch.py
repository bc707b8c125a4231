"""Video as tubelets (patches over time, height and width): classical VQ, no neural net.

A tubelet of 4 x 8 x 8 covers four frames; a clip whose length 4 does not divide repeats its last frame inside, and
decode crops it. Tubelets are coded one by one, so a stream may be cut at any multiple of 4 frames.
"""

from __future__ import annotations

from multitok.protocol import Modality
from multitok.tokenizers._pixels import PixelPatch


class VideoPatch(PixelPatch):
    """uint8 [T, H, W, 3] <-> codes [K, t, h, w], each grid size the raw one over the patch, rounded up.

    The arguments are those of `PatchRvq`.
    """

    kind = "video-patch"
    modality = Modality.VIDEO
    grid_axes = ("t", "h", "w")
