"""What VQGAN, LlamaGen and Chameleon share: one network, whose checkpoints differ in names, lookup and pixel values.

`conv_shape` and `signed_pixels` serve Open-MAGVIT2 too, whose encoder is named alike.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.protocol import Modality
from multitok.tokenizers._anchor_network import AnchorNetwork, Shapes
from multitok.tokenizers._published import read_weights

if TYPE_CHECKING:
    import torch

    from multitok.nets.anchors.vqgan import ConvShape


class VqganFamily(AnchorNetwork):
    """An image tokenizer with VQGAN's network; the arguments are those of `AnchorNetwork`, without a `config`."""

    modality = Modality.IMAGE
    grid_axes = ("h", "w")
    # As for `read_weights`, and the beginnings of keys that no tokenizer needs.
    prefixes: ClassVar[tuple[str, ...]] = ("",)
    nested: ClassVar[tuple[str, ...]] = ("state_dict", "model")
    ignored: ClassVar[tuple[str, ...]] = ("loss.",)

    @classmethod
    def read(cls, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors of a published checkpoint, but for those that no tokenizer needs."""
        found = read_weights(folder, prefixes=cls.prefixes, nested=cls.nested)
        return {key: value for key, value in found.items() if not key.startswith(cls.ignored)}

    @classmethod
    def make_module(cls, shapes: Shapes, options: Mapping[str, Any]) -> Any:
        """The network whose tensors have these shapes."""
        no_options(cls.kind, options)
        return cls.make_network(shapes)

    @classmethod
    def make_network(cls, shapes: Shapes, their_key: Callable[[str], str] = str) -> Any:
        """The network whose tensors have these shapes.

        Args:
            shapes: By the checkpoint's names.
            their_key: The checkpoint's name of a parameter, by the network's.

        Raises:
            CheckpointError: A tensor that fixes a size is missing, or its size cannot be; the message names it.
        """
        from multitok.nets.anchors.lookup import GumbelLookup, VectorLookup
        from multitok.nets.anchors.vqgan import VqganModule

        quantizer = cls.quantizer(shapes)
        table = "quantize.embed.weight" if quantizer == "gumbel" else "quantize.embedding.weight"
        size, dim = tensor_shape(shapes, table, rank=2)
        lookup = GumbelLookup(size, dim, dim) if quantizer == "gumbel" else VectorLookup(size, dim, quantizer)
        return VqganModule(conv_shape(shapes, their_key), lookup, dim, dim, cls.has_decoder(shapes))

    @classmethod
    def codebook_size(cls, shapes: Shapes) -> int:
        """Number of codes."""
        table = "quantize.embed.weight" if cls.quantizer(shapes) == "gumbel" else "quantize.embedding.weight"
        return shapes[table][0]

    @classmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Half the size at every level but the last."""
        step: int = 2 ** (len(module.encoder.down) - 1)
        return step, step

    @classmethod
    @abstractmethod
    def quantizer(cls, shapes: Shapes) -> str:
        """How codes are found: "l2", "cosine" or "gumbel"."""

    @classmethod
    def has_decoder(cls, shapes: Shapes) -> bool:
        """Whether a decoder has to be there."""
        return True


def conv_shape(shapes: Shapes, their_key: Callable[[str], str] = str) -> ConvShape:
    """The sizes of a network, from its encoder's tensors.

    Args:
        shapes: By the checkpoint's names.
        their_key: The checkpoint's name of a parameter, by the network's.

    Raises:
        CheckpointError: A tensor that fixes a size is missing, or its size cannot be; the message names it.
    """
    from multitok.nets.anchors.blocks import NORM_GROUPS
    from multitok.nets.anchors.vqgan import ConvShape

    def has(key: str) -> bool:
        return their_key(key) in shapes

    def channels(key: str) -> int:
        count = tensor_shape(shapes, their_key(key), rank=4)[0]
        if count % NORM_GROUPS:
            raise CheckpointError(
                f"key {their_key(key)!r} has {count} channels, not a multiple of {NORM_GROUPS}: "
                "the checkpoint is of another kind"
            )
        return count

    first = channels("encoder.conv_in.weight")
    levels = [channels("encoder.down.0.block.0.conv1.weight")]
    while has(f"encoder.down.{len(levels)}.block.0.conv1.weight"):
        levels.append(channels(f"encoder.down.{len(levels)}.block.0.conv1.weight"))
    blocks = 1
    while has(f"encoder.down.0.block.{blocks}.conv1.weight"):
        blocks += 1
    return ConvShape(
        channels=first,
        level_channels=tuple(levels),
        num_res_blocks=blocks,
        attention_levels=tuple(i for i in range(len(levels)) if has(f"encoder.down.{i}.attn.0.q.weight")),
        latent_channels=tensor_shape(shapes, their_key("encoder.conv_out.weight"), rank=4)[0],
    )


def tensor_shape(shapes: Shapes, key: str, *, rank: int) -> tuple[int, ...]:
    """The shape of one tensor.

    Args:
        shapes: By the checkpoint's names.
        key: The tensor.
        rank: How many axes it has to have.

    Raises:
        CheckpointError: It is missing, of another rank or empty.
    """
    if key not in shapes:
        raise CheckpointError(f"key {key!r} is missing: the checkpoint is incomplete or of another kind")
    shape = shapes[key]
    if len(shape) != rank or 0 in shape:
        raise CheckpointError(
            f"key {key!r} has shape {list(shape)}, expected are {rank} axes: the checkpoint is of another kind"
        )
    return shape


def no_options(kind: str, options: Mapping[str, Any]) -> None:
    """Raise where a configuration has more than a name.

    Args:
        kind: For the message.
        options: The configuration without the name.

    Raises:
        CheckpointError: There is something.
    """
    if options:
        raise CheckpointError(f"kind {kind!r} has no setting {next(iter(options))!r}: its config is a name alone")


def signed_pixels() -> NDArray[np.float32]:
    """Values 0 to 255 as v / 127.5 - 1, in float64 until the end, as taming-transformers has it."""
    return (np.arange(256) / 127.5 - 1).astype(np.float32)
