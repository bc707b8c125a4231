"""Tokenizer entries without tokenizers, and one tiny real tokenizer, for tests of vocabularies and documents."""

from __future__ import annotations

from typing import Any

import numpy as np

from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec
from multitok.vocabulary import TokenizerEntry

AXES = {
    Modality.IMAGE: ("h", "w"),
    Modality.VIDEO: ("t", "h", "w"),
    Modality.VOLUME: ("z", "y", "x"),
    Modality.SERIES: ("t", "c"),
}


def entry(
    name: str, sizes: tuple[int, ...], modality: Modality = Modality.TEXT, *, stride: int = 1, source: str | None = None
) -> TokenizerEntry:
    """An entry as a vocabulary records it; the fingerprint depends on the name alone."""
    axes = AXES.get(modality, ("t",))
    spec = TokenizerSpec(
        kind=f"toy-{modality}",
        name=name,
        modality=modality,
        codebook_sizes=sizes,
        grid_axes=axes,
        stride=(stride,) * len(axes),
    )
    return TokenizerEntry(spec, name.encode().hex().ljust(64, "0"), source)


class Letters(TokenizerBase[str]):
    """A lossless tokenizer: the letters a to z, shifted round by `shift`."""

    def __init__(self, *, shift: int = 0, name: str = "letters") -> None:
        self._shift = shift
        self._name = name

    @property
    def spec(self) -> TokenizerSpec:
        """26 codes over ("t",)."""
        return TokenizerSpec(
            kind="letters",
            name=self._name,
            modality=Modality.TEXT,
            codebook_sizes=(26,),
            grid_axes=("t",),
            stride=(1,),
            lossless=True,
        )

    def encode(self, raw: str, /) -> Codes:
        """One code per letter."""
        letters = np.frombuffer(raw.encode("ascii"), np.uint8).astype(np.int32) - ord("a")
        return Codes(((letters + self._shift) % 26)[None], (len(raw),))

    def decode(self, codes: Codes, /) -> str:
        """The letters."""
        self.spec.check(codes)
        return bytes(((codes.values[0] - self._shift) % 26 + ord("a")).astype(np.uint8)).decode("ascii")

    def get_config(self) -> dict[str, Json]:
        """`shift` and `name`."""
        return {"shift": self._shift, "name": self._name}

    @classmethod
    def registered(cls) -> Any:
        """The target under which tests register this kind."""
        return f"{cls.__module__}:{cls.__name__}"
