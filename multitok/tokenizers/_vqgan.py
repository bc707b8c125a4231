"""What VQGAN, LlamaGen and Chameleon share: one network, whose checkpoints differ in names, lookup and pixel values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from multitok.errors import CheckpointError
from multitok.protocol import Json
from multitok.tokenizers._anchor_image import AnchorImage, conv_shape, infer_shape, out_channels
from multitok.tokenizers._published import read_weights

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

QUANTIZERS = ("l2", "cosine", "gumbel")


class VqganFamily(AnchorImage):
    """An image tokenizer with VQGAN's network; the arguments are those of `AnchorImage`."""

    # As for `read_weights`, and the beginnings of keys that no tokenizer needs.
    prefixes: ClassVar[tuple[str, ...]] = ("",)
    nested: ClassVar[tuple[str, ...]] = ("state_dict", "model")
    ignored: ClassVar[tuple[str, ...]] = ("loss.",)

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
        found = read_weights(folder, prefixes=cls.prefixes, nested=cls.nested)
        weights = {key: value for key, value in found.items() if not key.startswith(cls.ignored)}
        their_key = cls.layout(weights)
        shape = infer_shape(where, weights, their_key)
        levels = len(shape["level_channels"])  # type: ignore[arg-type]
        quantizer = cls.quantizer(weights)
        table = "quantize.embed.weight" if quantizer == "gumbel" else "quantize.embedding.weight"
        config: dict[str, Json] = {
            **shape,
            "quantizer": quantizer,
            "codebook_size": out_channels(where, weights, table, rank=2),
            "codebook_dim": int(weights[table].shape[1]),
            "has_decoder": cls.has_decoder(weights),
        }
        return cls(name or "image", config, weights, where=where, their_key=lambda key: their_key(key, levels))

    @classmethod
    def make_module(cls, config: Mapping[str, Any]) -> Any:
        """The network of these sizes."""
        from multitok.nets.anchors.lookup import GumbelLookup, VectorLookup
        from multitok.nets.anchors.vqgan import VqganModule

        size, dim, quantizer = config["codebook_size"], config["codebook_dim"], config["quantizer"]
        if quantizer not in QUANTIZERS:
            raise CheckpointError(f"quantizer {quantizer!r}: known are {', '.join(QUANTIZERS)}")
        if min(size, dim) < 1:
            raise CheckpointError(f"a codebook of {size} codes of {dim} dimensions: give at least 1 of both")
        lookup = GumbelLookup(size, dim, dim) if quantizer == "gumbel" else VectorLookup(size, dim, quantizer)
        return VqganModule(conv_shape(config), lookup, dim, dim, config["has_decoder"])

    @classmethod
    def codebook_size(cls, config: Mapping[str, Any]) -> int:
        """Number of codes."""
        return int(config["codebook_size"])

    @classmethod
    def layout(cls, weights: Mapping[str, torch.Tensor]) -> Callable[[str, int], str]:
        """The checkpoint's name of a parameter, by the network's and the number of levels."""
        return _as_it_is

    @classmethod
    @abstractmethod
    def quantizer(cls, weights: Mapping[str, torch.Tensor]) -> str:
        """Which of `QUANTIZERS` the checkpoint has."""

    @classmethod
    def has_decoder(cls, weights: Mapping[str, torch.Tensor]) -> bool:
        """Whether a decoder has to be there."""
        return True


def _as_it_is(key: str, levels: int) -> str:
    return key
