"""VQGAN of taming-transformers, f8 and f16, its Gumbel variant too: `multitok.load(folder, kind="vqgan")`.

Read are the checkpoints of the project, with or without the weights of its loss. Reconstruction is what the authors
publish (16,384 codes, f16: rFID 4.98 on ImageNet at 256 x 256); what the network cannot promise, and others here can,
is said in `multitok.tokenizers._anchor_network`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.tokenizers._anchor_network import Shapes
from multitok.tokenizers._vqgan import VqganFamily, signed_pixels


class Vqgan(VqganFamily):
    """uint8 [H, W, 3] <-> codes [1, h, w]: the nearest row of a codebook, or the largest logit.

    Gumbel noise, used in training, is left out: it would make codes random.
    """

    kind = "vqgan"

    @classmethod
    def quantizer(cls, shapes: Shapes) -> str:
        """The Gumbel variant has its own names."""
        return "gumbel" if "quantize.proj.weight" in shapes or "quantize.embed.weight" in shapes else "l2"

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """v / 127.5 - 1."""
        return signed_pixels()
