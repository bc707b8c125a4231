"""TiTok: `multitok.load(folder, kind="titok")`; 32 to 256 codes for a picture of 256 x 256.

The codes of a picture stand in a row and belong to no place in it. Their grid is (1, N), and larger pictures are cut
into squares of 256, each coded by itself: square (y, x) has the codes [y, x N : (x + 1) N]. So any size can be coded,
and a square's codes do not depend on what lies outside it; edges between squares may show. Sizes that 256 does not
divide repeat their edge, and decode crops it. TiTok itself scales every picture to 256 x 256: do so first to get its
codes for it.

Both generations with codes are read: L-32, B-64, S-128, whose decoder ends in MaskGIT's VQGAN, and BL-64, BL-128,
SL-256. Files: safetensors or torch, and a config.json if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.protocol import Json, Modality
from multitok.tokenizers._anchor_network import AnchorNetwork, Shapes, steps_of_float32
from multitok.tokenizers._published import read_weights

if TYPE_CHECKING:
    import torch


class Titok(AnchorNetwork):
    """uint8 [H, W, 3] <-> codes [1, ceil(H / 256), N ceil(W / 256)].

    The arguments are those of `AnchorNetwork`; the configuration may hold "cosine": whether latents are compared with
    codes by the angle between them, None for what the generation did.
    """

    kind = "titok"
    modality = Modality.IMAGE
    grid_axes = ("h", "w")

    @classmethod
    def read(cls, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors."""
        return read_weights(folder)

    @classmethod
    def read_options(cls, folder: Path) -> dict[str, Json]:
        """`use_l2_norm` of a config.json."""
        path = folder / "config.json"
        if not path.is_file():
            return {"cosine": None}
        try:
            cosine = json.loads(path.read_text(encoding="utf-8"))["model"]["vq_model"].get("use_l2_norm")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is no configuration of TiTok ({error!r}): copy it again") from error
        if cosine not in (None, True, False):
            raise CheckpointError(f"{path} says use_l2_norm {cosine!r}: true or false can be")
        return {"cosine": cosine}

    @classmethod
    def make_module(cls, shapes: Shapes, options: Mapping[str, Any]) -> Any:
        """The network of these shapes."""
        from multitok.nets.anchors.titok import HEAD_WIDTH, TitokConfig
        from multitok.nets.anchors.titok import Titok as Network

        if "quantize.embedding.weight" not in shapes and "latent_tokens" in shapes:
            raise CheckpointError("there is no codebook: a continuous TiTok (VAE) has no codes; take one with VQ")
        if "decoder.ffn.2.weight" in shapes and "pixel_decoder.conv_in.weight" not in shapes:
            raise CheckpointError(
                "there is no 'pixel_decoder': after its first stage of training TiTok makes codes of another "
                "tokenizer, not pixels; take the checkpoint of the second stage"
            )
        config = TitokConfig.of(shapes, cosine=options.get("cosine"))
        for width in (config.encoder_width, config.decoder_width):
            if width % HEAD_WIDTH:
                raise CheckpointError(f"transformers of width {width}: heads are {HEAD_WIDTH} wide, and must divide it")
        if config.side % config.latents:
            raise CheckpointError(f"{config.latents} latents for {config.side} pixels: they must divide the side")
        return Network(config)

    @classmethod
    def codebook_size(cls, shapes: Shapes) -> int:
        """Rows of the codebook."""
        return shapes["quantize.embedding.weight"][0]

    @classmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Nominal: a square's rows and a row's share of its columns."""
        return module.config.side, module.config.side // module.config.latents

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """v / 255."""
        return steps_of_float32(0)

    @staticmethod
    def to_bytes(pixels: torch.Tensor) -> torch.Tensor:
        """0 to 1 as whole numbers 0 to 255."""
        return pixels.float().mul(255).round().clamp(0, 255)

    def grid(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """Squares down, and N codes for each square across."""
        side, latents = self._module.config.side, self._module.config.latents
        return -(-extent[0] // side), -(-extent[1] // side) * latents

    def run_encoder(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [1, 3, H, W] to codes, square by square."""
        import torch

        side = self._module.config.side
        down, across = (range(0, n, side) for n in pixels.shape[2:])
        encode = super().run_encoder
        squares = ([pixels[:, :, y : y + side, x : x + side] for x in across] for y in down)
        return torch.cat([torch.cat([encode(square) for square in row], 2) for row in squares], 1)

    def run_decoder(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes to pixels [1, 3, H, W], square by square."""
        import torch

        latents = self._module.config.latents
        decode = super().run_decoder
        squares = (
            [codes[:, y : y + 1, x : x + latents] for x in range(0, codes.shape[2], latents)]
            for y in range(codes.shape[1])
        )
        return torch.cat([torch.cat([decode(square) for square in row], 3) for row in squares], 2)
