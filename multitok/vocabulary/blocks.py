"""The parts of a vocabulary: tokenizer entries, blocks of IDs, and runs of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok import checkpoint
from multitok.errors import VocabularyError
from multitok.protocol import Json, Tokenizer, TokenizerSpec


@dataclass(frozen=True, slots=True)
class TokenizerEntry:
    """A tokenizer as a vocabulary records it: what its codes look like, and which exact tokenizer it is.

    Args:
        spec: What the codes look like; `spec.name` is the name inside the vocabulary.
        fingerprint: `multitok.fingerprint` of the tokenizer.
        source: What `multitok.load` takes to load it; None where only the user can supply it. Where a
            tokenizer lies is no part of what it is, so the source is left out of every fingerprint.
    """

    spec: TokenizerSpec
    fingerprint: str
    source: str | None = None

    @property
    def name(self) -> str:
        """The tokenizer's name inside the vocabulary."""
        return self.spec.name

    @classmethod
    def of(cls, tokenizer: Tokenizer[Any] | TokenizerEntry | str, *, name: str | None = None) -> TokenizerEntry:
        """The entry of a tokenizer, or of what `multitok.load` would load.

        Args:
            tokenizer: A tokenizer, an entry (returned as it is), or a checkpoint's name, a folder or a kind.
            name: Name inside the vocabulary, for a checkpoint given by name or path; None keeps its own.
        Returns:
            The entry; its source is set for what was loaded here.
        Raises:
            CheckpointError: Nothing can be loaded by that name.
            VocabularyError: `name` is given for something that is loaded already.
        """
        if isinstance(tokenizer, str):
            loaded = checkpoint.load(tokenizer, name=name)
            is_folder = tokenizer not in checkpoint.shipped_checkpoints() and Path(tokenizer).is_dir()
            # A relative folder would mean another one as soon as the vocabulary is used elsewhere.
            source = str(Path(tokenizer).resolve()) if is_folder else tokenizer
            return cls(loaded.spec, checkpoint.fingerprint(loaded), source)
        if name is not None:
            raise VocabularyError(f"name={name!r}: rename a loaded tokenizer by multitok.load(..., name={name!r})")
        if isinstance(tokenizer, TokenizerEntry):
            return tokenizer
        return cls(tokenizer.spec, checkpoint.fingerprint(tokenizer))

    def to_json(self) -> dict[str, Json]:
        """The entry as JSON values; `from_json` inverts it."""
        return {"spec": self.spec.to_json(), "fingerprint": self.fingerprint, "source": self.source}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TokenizerEntry:
        """Rebuild an entry from what `to_json` returned."""
        return cls(TokenizerSpec.from_json(data["spec"]), str(data["fingerprint"]), data.get("source"))


@dataclass(frozen=True)
class Block:
    """The IDs of one codebook: a range, or a lookup table where a published layout scatters them.

    Args:
        name: The tokenizer's name.
        codebook: Which of its codebooks.
        size: Number of codes.
        start: ID of code 0, where code c has the ID `start + c` (the `id_offset`); None with a lookup.
        lookup: ID of each code; None with a start.
        input_only: A model may read these IDs but is never to predict them.

    Raises:
        VocabularyError: Neither or both of `start` and `lookup`, or values that cannot be.
    """

    name: str
    codebook: int
    size: int
    start: int | None = None
    lookup: tuple[int, ...] | None = None
    input_only: bool = False

    def __post_init__(self) -> None:
        where = f"block of codebook {self.codebook} of {self.name!r}"
        if (self.start is None) == (self.lookup is None):
            raise VocabularyError(f"{where}: give either the first ID (start) or the ID of each code (lookup)")
        if self.size < 1 or self.codebook < 0:
            raise VocabularyError(f"{where} has {self.size} codes: give at least one, and a codebook from 0")
        if self.start is not None and self.start < 0:
            raise VocabularyError(f"{where} starts at {self.start}: IDs start at 0")
        if self.lookup is not None:
            object.__setattr__(self, "lookup", tuple(int(i) for i in self.lookup))
            if len(self.lookup) != self.size or min(self.lookup) < 0:
                raise VocabularyError(f"{where}: lookup has {len(self.lookup)} IDs; give {self.size}, each >= 0")
            if len(set(self.lookup)) != self.size:
                raise VocabularyError(f"{where}: lookup gives one ID to two codes; every code needs its own ID")

    @cached_property
    def table(self) -> NDArray[np.int32] | None:
        """[size] the ID of each code, for a lookup block; None for a range."""
        if self.lookup is None:
            return None
        table = np.asarray(self.lookup, np.int32)
        table.flags.writeable = False
        return table

    @property
    def intervals(self) -> list[tuple[int, int]]:
        """The IDs as ascending [start, stop) ranges."""
        if self.table is None:
            assert self.start is not None
            return [(self.start, self.start + self.size)]
        ids = np.sort(self.table)
        cuts = np.flatnonzero(np.diff(ids) != 1) + 1
        return [(int(run[0]), int(run[-1]) + 1) for run in np.split(ids, cuts)]

    def to_json(self) -> dict[str, Json]:
        """The block as JSON values; `from_json` inverts it."""
        place: dict[str, Json] = {"start": self.start} if self.lookup is None else {"lookup": list(self.lookup)}
        return {
            "name": self.name,
            "codebook": self.codebook,
            "size": self.size,
            **place,
            "input_only": self.input_only,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Block:
        """Rebuild a block from what `to_json` returned."""
        lookup = data.get("lookup")
        return cls(
            name=data["name"],
            codebook=data["codebook"],
            size=data["size"],
            start=data.get("start"),
            lookup=None if lookup is None else tuple(lookup),
            input_only=data["input_only"],
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of an ID stream with one owner.

    Args:
        kind: "codes", "special" (always one token long) or "reserved".
        name: The tokenizer's name, the special token, or "" for reserved IDs.
        codebook: The codebook, where runs are cut per codebook; None elsewhere.
        start: Index of the first ID in the stream.
        length: Number of IDs.
    """

    kind: str
    name: str
    codebook: int | None
    start: int
    length: int

    @property
    def stop(self) -> int:
        """Index after the last ID."""
        return self.start + self.length
