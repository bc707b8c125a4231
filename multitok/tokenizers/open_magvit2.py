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
from multitok.tokenizers._anchor_image import AnchorImage, conv_shape, infer_shape, signed_pixels
from multitok.tokenizers._published import read_weights

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

AVERAGES = "model_ema."
MAX_BITS = 30


class OpenMagvit2(AnchorImage):
    """uint8 [H, W, 3] <-> codes [1, h, w], the signs of the latents.

    The decoder takes the deviation of the code vectors over the picture. Over a single position it is not defined: the
    published code makes NaN of it, this decodes with 0.
    """

    kind = "open-magvit2"

    @classmethod
    def from_directory(cls, folder: Path, /, *, name: str | None) -> Self:
        """Build the tokenizer from the files of a published checkpoint.

        Args:
            folder: Holds the weights.
            name: Name inside a vocabulary; None takes "image".

        Raises:
            CheckpointError: There is none, it cannot be read, or its keys are not exactly those of the network.
        """
        where = str(folder)
        weights = {key: value for key, value in read_weights(folder).items() if not key.startswith("loss.")}
        weights = _with_averages(where, weights)
        return cls(name or "image", infer_shape(where, weights, _as_it_is), weights, where=where)

    @classmethod
    def make_module(cls, config: Mapping[str, Any]) -> Any:
        """The network of these sizes."""
        from multitok.nets.anchors.open_magvit2 import OpenMagvit2Module

        shape = conv_shape(config)
        if shape.attention_levels or shape.latent_channels > MAX_BITS:
            raise CheckpointError(
                f"attention at levels {shape.attention_levels}, {shape.latent_channels} bits: Open-MAGVIT2 has no "
                f"attention and at most {MAX_BITS} bits; the checkpoint is of another kind"
            )
        return OpenMagvit2Module(shape)

    @classmethod
    def codebook_size(cls, config: Mapping[str, Any]) -> int:
        """2 to the number of dimensions."""
        return int(2 ** config["latent_channels"])

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """v / 127.5 - 1."""
        return signed_pixels()


def _as_it_is(key: str, levels: int) -> str:
    return key


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
