"""Images as patches in a linear stem and a residual k-means codebook: classical VQ, no neural net.

What it does not do: learn anything beyond a patch; patches are coded one by one, so edges between them show at low
rates. What it costs: see the checkpoint's card. Codes follow the picture: grid position (y, x) covers the pixels
from (8 y, 8 x) on for patches of 8, rows from the top.
"""

from __future__ import annotations

from multitok.protocol import Modality
from multitok.tokenizers._pixels import PixelPatch


class ImagePatch(PixelPatch):
    """uint8 [H, W, 3] <-> codes [K, h, w], h = ceil(H / patch height), w = ceil(W / patch width).

    The arguments are those of `PatchRvq`.
    """

    kind = "image-patch"
    modality = Modality.IMAGE
    grid_axes = ("h", "w")
