"""The image tokenizer of Chameleon: `multitok.load(folder, kind="chameleon")`.

Read are the original `vqgan.ckpt` (293 keys), and transformers' ChameleonVQVAE, alone or inside the whole model. The
latter is the encoder alone: it gives the same codes, and `decode` refuses.

Chameleon itself sees pictures of 512 x 512, 1,024 codes; any size is encoded here. In its text vocabulary code n is
the token "IMGIMG", the digits of n as letters A to J, then "Z".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.tokenizers._anchor_network import Shapes
from multitok.tokenizers._vqgan import VqganFamily

if TYPE_CHECKING:
    import torch


class Chameleon(VqganFamily):
    """uint8 [H, W, 3] <-> codes [1, h, w]: the nearest row of a codebook."""

    kind = "chameleon"
    prefixes = ("model.vqmodel.", "vqmodel.", "")

    @classmethod
    def quantizer(cls, shapes: Shapes) -> str:
        """Always the nearest."""
        return "l2"

    @classmethod
    def has_decoder(cls, shapes: Shapes) -> bool:
        """Not in transformers."""
        return any(key.startswith("decoder.") for key in shapes)

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """v / 255 * 2 - 1, in float64 until the end."""
        return (np.arange(256) / 255 * 2 - 1).astype(np.float32)

    def run_decoder(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [1, h, w] to pixels [1, 3, H, W], where there is a decoder."""
        if self.module.decoder is None:
            raise CheckpointError(
                "this checkpoint is the encoder alone, as transformers keeps it: to decode, load the folder with the "
                'original vqgan.ckpt by kind="chameleon"'
            )
        return super().run_decoder(codes)
