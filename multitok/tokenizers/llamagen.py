"""The image tokenizers of LlamaGen, VQ-8 and VQ-16, and Janus': `multitok.load(folder, kind="llamagen")`.

Three layouts of one network are read: LlamaGen's own (`encoder.conv_blocks`), the same inside a checkpoint of Janus
(`gen_vision_model.`), and transformers' JanusVQVAE (`encoder.down`, alone or inside the whole model).

Latents and rows of the codebook are compared at length 1. transformers' JanusVQVAE compares them as they are, though
it decodes rows of length 1; its codes are these where the rows have length 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multitok.tokenizers._vqgan import VqganFamily

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
    def layout(cls, weights: Mapping[str, torch.Tensor]) -> Callable[[str, int], str]:
        """LlamaGen's names, or those of transformers."""
        return _janus_key if any(key.startswith("encoder.down.") for key in weights) else _llamagen_key

    @classmethod
    def quantizer(cls, weights: Mapping[str, torch.Tensor]) -> str:
        """Always the angle."""
        return "cosine"

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """(v / 255 - 0.5) / 0.5, each step in float32."""
        half = np.float32(0.5)
        pixels: NDArray[np.float32] = (np.arange(256, dtype=np.float32) / np.float32(255) - half) / half
        return pixels


def _janus_key(key: str, levels: int) -> str:
    # transformers numbers the decoder's levels as they run, the lowest resolution first.
    return re.sub(r"^decoder\.up\.(\d+)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", key)


def _llamagen_key(key: str, levels: int) -> str:
    key = re.sub(r"^decoder\.up\.", "decoder.conv_blocks.", _janus_key(key, levels))
    key = re.sub(r"^encoder\.down\.", "encoder.conv_blocks.", key)
    for ours, theirs in RENAMED:
        key = key.replace(ours, theirs)
    return key
