"""Emu3's vision tokenizer: `multitok.load(folder, kind="emu3")` for video, `kind="emu3-image"` for pictures.

Four frames of 8 x 8 pixels become one of 32,768 codes. A video whose length 4 does not divide repeats its last frame,
and decode crops it; a picture is one frame four times over, of which decode keeps the first, as Emu3 does.

Three layouts of one network are read: transformers' (`encoder.down_block`), alone or inside the whole model, and the
first release's (BAAI/Emu3-VisionTokenizer, `encoder.down`). In Emu3's own token stream every row of codes is followed
by `<|extra_200|>`, which is no code; a flatten pattern puts row ends where a model wants them.

Codes look at their own frames and, in time, at earlier ones alone: a video cut after a multiple of four frames has the
same codes as the whole up to the cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.protocol import Json, Modality
from multitok.tokenizers._anchor_network import AnchorNetwork, Shapes, steps_of_float32
from multitok.tokenizers._published import read_weights

if TYPE_CHECKING:
    import torch


class Emu3(AnchorNetwork):
    """uint8 [T, H, W, 3] <-> codes [1, t, h, w], each grid size the raw one over the stride (4, 8, 8), rounded up.

    The arguments are those of `AnchorNetwork`; the configuration may hold "heads", of every attention.
    """

    kind = "emu3"
    modality = Modality.VIDEO
    grid_axes: ClassVar[tuple[str, ...]] = ("t", "h", "w")

    @classmethod
    def read(cls, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors, cut out of a whole model if need be."""
        from multitok.nets.anchors.emu3 import renamed

        return renamed(read_weights(folder, prefixes=("model.vqmodel.", "vqmodel.", "")))

    @classmethod
    def read_options(cls, folder: Path) -> dict[str, Json]:
        """The number of attention heads, 1 where no config.json gives it."""
        path = folder / "config.json"
        if not path.is_file():
            return {"heads": 1}
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            sizes = config.get("vq_config", {} if "text_config" in config else config)
            heads = sizes.get("num_attention_heads", 1)
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} is no configuration of Emu3 ({error}): copy it again") from error
        return {"heads": heads}

    @classmethod
    def make_module(cls, shapes: Shapes, options: Mapping[str, Any]) -> Any:
        """The network of these shapes."""
        from multitok.nets.anchors.emu3 import Emu3 as Network
        from multitok.nets.anchors.emu3 import Emu3Config

        heads = options.get("heads", 1)
        config = Emu3Config.of(shapes, heads=heads)
        width = config.channels * config.multipliers[-1]
        if type(heads) is not int or heads < 1 or width % heads:
            raise CheckpointError(f"{heads!r} attention heads: give a whole number that divides the {width} channels")
        return Network(config)

    @classmethod
    def codebook_size(cls, shapes: Shapes) -> int:
        """Rows of the codebook."""
        return shapes["quantize.embedding.weight"][0]

    @classmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Frames, rows and columns per code."""
        stride: tuple[int, ...] = module.config.stride
        return stride

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """(v / 255 - 0.5) / 0.5."""
        return steps_of_float32(0.5)


class Emu3Image(Emu3):
    """uint8 [H, W, 3] <-> codes [1, h, w]; the arguments are those of `Emu3`."""

    kind = "emu3-image"
    modality = Modality.IMAGE
    grid_axes: ClassVar[tuple[str, ...]] = ("h", "w")

    @classmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Rows and columns per code."""
        return super().stride_of(module)[1:]

    def run_encoder(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [1, 3, H, W] to codes [1, h, w]."""
        frames = pixels[:, :, None].expand(-1, -1, self._module.config.stride[0], -1, -1)
        return super().run_encoder(frames)[:, 0]

    def run_decoder(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [1, h, w] to pixels [1, 3, H, W]."""
        return super().run_decoder(codes[:, None])[:, :, 0]
