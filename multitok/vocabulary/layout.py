"""Laying out IDs, checking a finished layout, and writing it as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitok.errors import MultitokError, VocabularyError
from multitok.protocol import Json, Tokenizer
from multitok.vocabulary.blocks import Block, TokenizerEntry

FORMAT_VERSION = 1
MAX_VOCAB_SIZE = 2**31 - 1


@dataclass
class Layout:
    """Tokenizer entries, special tokens and blocks, and how many IDs they take."""

    entries: dict[str, TokenizerEntry] = field(default_factory=dict)
    specials: dict[str, int] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    vocab_size: int = 0

    def append(
        self,
        tokenizers: Sequence[Tokenizer[Any] | TokenizerEntry | str],
        special_tokens: Sequence[str],
        special_position: str,
        reserved: int,
        pad_to_multiple: int,
        input_only: Collection[str],
    ) -> None:
        """Give new IDs, from `vocab_size` on, to special tokens and tokenizers; see `Vocabulary.build`.

        Raises:
            VocabularyError: Doubled names, an unknown position or input-only name, numbers that cannot be.
        """
        if isinstance(tokenizers, str) or isinstance(special_tokens, str) or isinstance(input_only, str):
            raise VocabularyError("tokenizers, special_tokens and input_only are lists; put the one name into a list")
        if special_position not in ("first", "last"):
            raise VocabularyError(f"special_position={special_position!r}: give 'first' or 'last'")
        if reserved < 0 or pad_to_multiple < 1:
            raise VocabularyError(
                f"reserved={reserved}, pad_to_multiple={pad_to_multiple}: give at least 0 slots and a multiple of 1"
            )
        entries = [TokenizerEntry.of(tokenizer) for tokenizer in tokenizers]
        stray = set(input_only) - {entry.name for entry in entries}
        if stray:
            raise VocabularyError(f"input_only names {', '.join(sorted(stray))}: not among the tokenizers added here")
        if special_position == "first":
            self._add_specials(special_tokens, reserved)
        for entry in entries:
            self._add_entry(entry, entry.name in input_only)
        if special_position == "last":
            self._add_specials(special_tokens, reserved)
        self.vocab_size += -self.vocab_size % pad_to_multiple

    def _add_specials(self, tokens: Sequence[str], reserved: int) -> None:
        for token in tokens:
            if token in self.specials:
                raise VocabularyError(f"special token {token!r} is given twice; every token needs its own name")
            self.specials[token] = self.vocab_size
            self.vocab_size += 1
        self.vocab_size += reserved

    def _add_entry(self, entry: TokenizerEntry, input_only: bool) -> None:
        if entry.name in self.entries:
            raise VocabularyError(
                f"two tokenizers named {entry.name!r}: give one another name by multitok.load(..., name=...), on the "
                "command line by NAME=CHECKPOINT"
            )
        self.entries[entry.name] = entry
        for codebook, size in enumerate(entry.spec.codebook_sizes):
            self.blocks.append(Block(entry.name, codebook, size, start=self.vocab_size, input_only=input_only))
            self.vocab_size += size


def check_layout(
    entries: Mapping[str, TokenizerEntry], specials: Mapping[str, int], blocks: Sequence[Block], vocab_size: int
) -> None:
    """Raise unless every codebook of every tokenizer has exactly one block of its size, and the numbers can be.

    Raises:
        VocabularyError: What does not fit.
    """
    if not 1 <= vocab_size <= MAX_VOCAB_SIZE:
        raise VocabularyError(f"vocab_size={vocab_size}: give 1 to {MAX_VOCAB_SIZE}, IDs are int32")
    for token, i in specials.items():
        if not token or i < 0:
            raise VocabularyError(f"special token {token!r} with ID {i}: give a name and an ID >= 0")
    found: dict[tuple[str, int], Block] = {}
    for block in blocks:
        if (block.name, block.codebook) in found:
            raise VocabularyError(f"two blocks for codebook {block.codebook} of {block.name!r}: give one")
        found[block.name, block.codebook] = block
    for name, entry in entries.items():
        if entry.name != name:
            raise VocabularyError(f"the entry {name!r} holds a tokenizer named {entry.name!r}: use one name")
        for codebook, size in enumerate(entry.spec.codebook_sizes):
            owner = found.pop((name, codebook), None)
            if owner is None or owner.size != size:
                has = "no block" if owner is None else f"a block of {owner.size}"
                raise VocabularyError(f"codebook {codebook} of {name!r} has {size} codes but {has}: give it {size} IDs")
    if found:
        stray = ", ".join(sorted({name for name, _ in found}))
        raise VocabularyError(f"blocks of codebooks that no tokenizer has: {stray}; add the tokenizer's entry")


def layout_json(
    entries: Mapping[str, TokenizerEntry], specials: Mapping[str, int], blocks: Sequence[Block], vocab_size: int
) -> dict[str, Json]:
    """A layout as JSON values, without its fingerprint."""
    return {
        "format_version": FORMAT_VERSION,
        "vocab_size": vocab_size,
        "special_tokens": dict(specials),
        "tokenizers": [entry.to_json() for entry in entries.values()],
        "blocks": [block.to_json() for block in blocks],
    }


def parse_layout(data: Any) -> Layout:
    """The layout that `layout_json` wrote.

    Raises:
        VocabularyError: Another format version, or a field is missing or cannot be.
    """
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise VocabularyError(
            f"a vocabulary of format_version {version!r}, this multitok reads {FORMAT_VERSION}: upgrade multitok, "
            "or save the vocabulary again with the version that wrote it"
        )
    try:
        entries = [TokenizerEntry.from_json(entry) for entry in data["tokenizers"]]
        layout = Layout(
            {entry.name: entry for entry in entries},
            {str(token): int(i) for token, i in data["special_tokens"].items()},
            [Block.from_json(block) for block in data["blocks"]],
            int(data["vocab_size"]),
        )
    except VocabularyError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, MultitokError) as error:
        raise VocabularyError(f"not a vocabulary: {type(error).__name__} {error}") from error
    if len(layout.entries) != len(entries):
        raise VocabularyError("two tokenizers of one name: every tokenizer needs its own")
    return layout


def write_json(data: Mapping[str, Json], path: Path) -> None:
    """Write JSON so that the file appears whole or not at all."""
    handle, staging = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(staging).chmod(0o644)  # mkstemp makes it private; a vocabulary is to be shared
        Path(staging).replace(path)
    except BaseException:
        Path(staging).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        VocabularyError: The file cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VocabularyError(
            f"{path} cannot be read ({error.strerror}): give the file that Vocabulary.save wrote, "
            "or a shipped vocabulary: base"
        ) from error
    except ValueError as error:
        raise VocabularyError(f"{path} is not JSON: {error}") from error
