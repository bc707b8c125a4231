"""The image tokenizer of Chameleon: `multitok.load(folder, kind="chameleon")`.

Read are the original `vqgan.ckpt` (293 keys), and transformers' ChameleonVQVAE, alone or inside the whole model. The
latter is the encoder alone: it gives the same codes, and `decode` refuses.

Chameleon itself sees pictures of 512 x 512, 1,024 codes; any size is encoded here. In its text vocabulary code n is
the token "IMGIMG", the digits of n as letters A to J, then "Z".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.protocol import Codes
from multitok.tokenizers._vqgan import VqganFamily

if TYPE_CHECKING:
    import torch


class Chameleon(VqganFamily):
    """uint8 [H, W, 3] <-> codes [1, h, w]: the nearest row of a codebook."""

    kind = "chameleon"
    prefixes = ("model.vqmodel.", "vqmodel.", "")

    @classmethod
    def quantizer(cls, weights: Mapping[str, torch.Tensor]) -> str:
        """Always the nearest."""
        return "l2"

    @classmethod
    def has_decoder(cls, weights: Mapping[str, torch.Tensor]) -> bool:
        """Not in transformers."""
        return any(key.startswith("decoder.") for key in weights)

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """v / 255 * 2 - 1, in float64 until the end."""
        return (np.arange(256) / 255 * 2 - 1).astype(np.float32)

    def decode(self, codes: Codes, /) -> NDArray[np.uint8]:
        """The picture that `codes` stand for.

        Args:
            codes: [1, h, w] over the grid that belongs to their extent.

        Raises:
            CheckpointError: The checkpoint has no decoder.
        """
        self.spec.check(codes)
        if self.module.decoder is None:
            raise CheckpointError(
                "this checkpoint is the encoder alone, as transformers keeps it: to decode, load the folder with the "
                'original vqgan.ckpt by kind="chameleon"'
            )
        return super().decode(codes)
