"""Decoding with the first codebooks only: what residual tokenizers can do, and how it is asked of them.

Codebook k of a residual tokenizer refines what codebooks 0 to k - 1 gave, so the first few alone decode to a coarser
item. Others (grouped codebooks, the digits of one code) need all of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from multitok.errors import SpecError
from multitok.protocol import Codes, Tokenizer
from multitok.tokenizers._patch_rvq import PatchRvq

Decoder = Callable[[Codes], Any]


@runtime_checkable
class LevelDroppable(Protocol):
    """What a tokenizer offers whose first codebooks can be decoded alone."""

    @property
    def level_droppable(self) -> bool:
        """Whether any number of first codebooks decodes; False where this checkpoint needs all of them."""

    def decode(self, codes: Codes, /, *, num_codebooks: int | None = None) -> Any:
        """The raw item of all codebooks' codes, of which only the first `num_codebooks` are looked at."""


def decode_prefix(tokenizer: Tokenizer[Any], codes: Codes, num_codebooks: int) -> Any:
    """Decode the first codebooks of an item.

    Args:
        tokenizer: One whose levels can be dropped, unless all codebooks are asked for.
        codes: All K codebooks.
        num_codebooks: How many of them to look at, 1 to K.

    Returns:
        The raw item.

    Raises:
        SpecError: The tokenizer cannot decode that many.
    """
    decoders = level_decoders(tokenizer)
    if num_codebooks not in decoders:
        allowed = ", ".join(map(str, decoders))
        raise SpecError(f"num_codebooks={num_codebooks}: {tokenizer.spec.kind!r} decodes {allowed}")
    return decoders[num_codebooks](codes)


def level_decoders(tokenizer: Tokenizer[Any]) -> dict[int, Decoder]:
    """Number of first codebooks -> what decodes them, ascending; only all K where levels cannot be dropped."""
    total = tokenizer.spec.num_codebooks
    decoders: dict[int, Decoder] = {}
    if isinstance(tokenizer, LevelDroppable):
        if tokenizer.level_droppable:
            decoders = {k: partial(tokenizer.decode, num_codebooks=k) for k in range(1, total)}
    elif isinstance(tokenizer, PatchRvq):
        decoders = {k: partial(_decode_cut, _first_codebooks(tokenizer, k), k) for k in range(1, total)}
    return {**decoders, total: tokenizer.decode}


def _first_codebooks(tokenizer: PatchRvq, count: int) -> PatchRvq:
    """The same tokenizer with only its first codebooks."""
    sizes = tokenizer.spec.codebook_sizes[:count]
    tensors = tokenizer.get_tensors()
    tensors["codebooks"] = tensors["codebooks"][: sum(sizes)]
    return type(tokenizer).from_state({**tokenizer.get_config(), "codebook_sizes": list(sizes)}, tensors)


def _decode_cut(tokenizer: PatchRvq, count: int, codes: Codes) -> Any:
    return tokenizer.decode(Codes(codes.values[:count], codes.extent))
