"""The image tokenizers of Open-MAGVIT2: `multitok.load(folder, kind="open-magvit2")`.

Codes are signs: bit i of a code, the lowest first, is 1 where dimension i is above 0. With 18 dimensions there are
262,144 codes. The two halves that the project's transformer predicts are `code & 511` and `code >> 9` for 9 + 9 bits;
other splits likewise.

The weights used are the moving averages (`model_ema.`), where the checkpoint has them: so does the project evaluate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.protocol import Modality
from multitok.tokenizers._anchor_network import AnchorNetwork, Shapes
from multitok.tokenizers._published import read_weights
from multitok.tokenizers._vqgan import conv_shape, no_options, signed_pixels

if TYPE_CHECKING:
    import torch

AVERAGES = "model_ema."
MAX_BITS = 30


class OpenMagvit2(AnchorNetwork):
    """uint8 [H, W, 3] <-> codes [1, h, w], the signs of the latents.

    The decoder takes the deviation of the code vectors over the picture. Over a single position it is not defined: the
    published code makes NaN of it, this decodes with 0.
    """

    kind = "open-magvit2"

    modality = Modality.IMAGE
    grid_axes = ("h", "w")

    @classmethod
    def read(cls, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors of a published checkpoint, moving averages in the place of what they average."""
        weights = {key: value for key, value in read_weights(folder).items() if not key.startswith("loss.")}
        return _with_averages(str(folder), weights)

    @classmethod
    def make_module(cls, shapes: Shapes, options: Mapping[str, Any]) -> Any:
        """The network whose tensors have these shapes."""
        from multitok.nets.anchors.open_magvit2 import OpenMagvit2Module

        no_options(cls.kind, options)
        shape = conv_shape(shapes)
        if shape.latent_channels > MAX_BITS:
            raise CheckpointError(
                f"key 'encoder.conv_out.weight' makes codes of {shape.latent_channels} bits: {MAX_BITS} are the most; "
                "the checkpoint is of another kind"
            )
        return OpenMagvit2Module(shape)

    @classmethod
    def codebook_size(cls, shapes: Shapes) -> int:
        """2 to the number of dimensions."""
        return 1 << shapes["encoder.conv_out.weight"][0]

    @classmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Half the size at every level but the last."""
        step: int = 2 ** (len(module.encoder.down) - 1)
        return step, step

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """v / 127.5 - 1."""
        return signed_pixels()


def _with_averages(where: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights replaced by their moving averages, whose names are the weights' without dots."""
    own = {key: value for key, value in weights.items() if not key.startswith(AVERAGES)}
    averages = {key.removeprefix(AVERAGES): value for key, value in weights.items() if key not in own}
    averages = {key: value for key, value in averages.items() if not key.startswith("loss")}
    if not averages:
        return own
    for counter in ("decay", "num_updates"):
        averages.pop(counter, None)
    found = {key: averages.pop(key.replace(".", ""), None) for key in own}
    lacking = next((key for key, value in found.items() if value is None), None)
    if lacking is not None:
        raise CheckpointError(
            f"{where}: key {AVERAGES + lacking.replace('.', '')!r} is missing, while other averages are there: "
            "the checkpoint is incomplete"
        )
    if averages:
        raise CheckpointError(f"{where}: key {AVERAGES + next(iter(averages))!r} is unexpected: it averages nothing")
    return {key: value for key, value in found.items() if value is not None}
