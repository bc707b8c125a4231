"""The image tokenizers of LlamaGen, VQ-8 and VQ-16, and Janus': `multitok.load(folder, kind="llamagen")`.

Three layouts of one network are read: LlamaGen's own (`encoder.conv_blocks`), the same inside a checkpoint of Janus
(`gen_vision_model.`), and transformers' JanusVQVAE (`encoder.down`, alone or inside the whole model).

Latents and rows of the codebook are compared at length 1. transformers' JanusVQVAE compares them as they are, though
it decodes rows of length 1; its codes are these where the rows have length 1.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.tokenizers._anchor_network import Shapes, steps_of_float32
from multitok.tokenizers._published import check_keys
from multitok.tokenizers._vqgan import VqganFamily, conv_shape

if TYPE_CHECKING:
    import torch

# Ours, theirs; inside a level and in the middle.
RENAMED = ((".block.", ".res."), ("mid.block_1.", "mid.0."), ("mid.attn_1.", "mid.1."), ("mid.block_2.", "mid.2."))


class LlamaGen(VqganFamily):
    """uint8 [H, W, 3] <-> codes [1, h, w]: the row of the codebook with the smallest angle."""

    kind = "llamagen"
    prefixes = ("gen_vision_model.", "model.vqmodel.", "vqmodel.", "")
    nested = ("ema", "model", "state_dict")  # the moving average is what the project evaluates
    ignored = ("loss.", "quantize.codebook_used")

    @classmethod
    def read(cls, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors of a published checkpoint, strictly compared by its own names, then renamed."""
        import torch

        weights = super().read(folder)
        shapes = {key: tuple(value.shape) for key, value in weights.items()}
        their_key = _janus_key if any(key.startswith("encoder.down.") for key in shapes) else _llamagen_key
        try:
            # The encoder's names do not depend on the number of levels.
            levels = len(conv_shape(shapes, partial(their_key, levels=1)).level_channels)
            with torch.device("meta"):
                module = cls.make_network(shapes, partial(their_key, levels=levels))
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from None
        theirs = {key: their_key(key, levels=levels) for key in module.state_dict()}
        check_keys(str(folder), weights, {theirs[key]: value.shape for key, value in module.state_dict().items()})
        return {key: weights[name] for key, name in theirs.items()}

    @classmethod
    def quantizer(cls, shapes: Shapes) -> str:
        """Always the angle."""
        return "cosine"

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """(v / 255 - 0.5) / 0.5, each step in float32."""
        return steps_of_float32(0.5)


def _janus_key(key: str, *, levels: int) -> str:
    # transformers numbers the decoder's levels as they run, the lowest resolution first.
    return re.sub(r"^decoder\.up\.(\d+)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", key)


def _llamagen_key(key: str, *, levels: int) -> str:
    key = re.sub(r"^decoder\.up\.", "decoder.conv_blocks.", _janus_key(key, levels=levels))
    key = re.sub(r"^encoder\.down\.", "encoder.conv_blocks.", key)
    for ours, theirs in RENAMED:
        key = key.replace(ours, theirs)
    return key
