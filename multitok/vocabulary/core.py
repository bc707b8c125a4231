"""`Vocabulary`: one ID space for several tokenizers, how it is laid out, extended, identified and stored."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multitok import checkpoint
from multitok.errors import CheckpointError, FingerprintError, VocabularyError
from multitok.protocol import Json, Modality, Tokenizer
from multitok.vocabulary.blocks import TokenizerEntry
from multitok.vocabulary.ids import IdSpace
from multitok.vocabulary.layout import Layout, layout_json, parse_layout, read_json, write_json

# pad, begin and end of a document, filler of delayed codebooks; a pair per modality; ends of a row and of a frame;
# the separator and the digits that write a grid's size.
DEFAULT_SPECIAL_TOKENS: tuple[str, ...] = (
    *("<|pad|>", "<|bos|>", "<|eos|>", "<|empty|>"),
    *(f"<|{slash}{modality}|>" for modality in Modality for slash in ("", "/")),
    *("<|row|>", "<|frame|>", "<|x|>"),
    *(f"<|{digit}|>" for digit in range(10)),
)


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary(IdSpace):
    """One ID space: special tokens, and one block of IDs per (tokenizer, codebook).

    `Vocabulary.build` lays one out. The constructor takes a finished layout, such as a published model's, and
    checks it.
    """

    @classmethod
    def build(
        cls,
        tokenizers: Sequence[Tokenizer[Any] | TokenizerEntry | str],
        *,
        special_tokens: Sequence[str] = DEFAULT_SPECIAL_TOKENS,
        special_position: str = "first",
        reserved: int = 0,
        pad_to_multiple: int = 1,
        input_only: Collection[str] = (),
    ) -> Vocabulary:
        """Lay out a vocabulary.

            first:  | specials | reserved | text | image 0 | image 1 | ... | padding |
            last:   | text | image 0 | image 1 | ... | specials | reserved | padding |

        Args:
            tokenizers: Tokenizers, entries, or what `multitok.load` takes; names must differ.
            special_tokens: Distinct names of the non-data tokens.
            special_position: "first" or "last".
            reserved: Slots kept free after the special tokens, for `name_reserved`.
            pad_to_multiple: Round `vocab_size` up to a multiple, as embedding kernels like.
            input_only: Names of tokenizers whose IDs a model may read but is never to predict.
        Returns:
            The vocabulary.
        Raises:
            VocabularyError: Doubled names, an unknown position or input-only name, numbers that cannot be.
        """
        layout = Layout()
        layout.append(tokenizers, special_tokens, special_position, reserved, pad_to_multiple, input_only)
        return cls(layout.entries, layout.specials, tuple(layout.blocks), layout.vocab_size)

    def extend(
        self,
        tokenizers: Sequence[Tokenizer[Any] | TokenizerEntry | str] = (),
        *,
        special_tokens: Sequence[str] = (),
        special_position: str = "first",
        reserved: int = 0,
        pad_to_multiple: int = 1,
        input_only: Collection[str] = (),
    ) -> Vocabulary:
        """A larger vocabulary in which every ID of this one keeps its meaning.

        The new part starts at `vocab_size`, after the padding, and is laid out like a vocabulary of its own:
        reserved slots and padding in between stay as they are, so rows of a trained embedding stay in place.

        Args:
            tokenizers: As in `build`.
            special_tokens: As in `build`; names that are not in use yet.
            special_position: Before ("first") or after ("last") the new blocks.
            reserved: As in `build`.
            pad_to_multiple: As in `build`.
            input_only: As in `build`; names among `tokenizers`.
        Returns:
            The larger vocabulary.
        Raises:
            VocabularyError: A name is in use, or as in `build`.
        """
        layout = Layout(dict(self.entries), dict(self.specials), list(self.blocks), self.vocab_size)
        layout.append(tokenizers, special_tokens, special_position, reserved, pad_to_multiple, input_only)
        return Vocabulary(layout.entries, layout.specials, tuple(layout.blocks), layout.vocab_size)

    def name_reserved(self, special_tokens: Sequence[str]) -> Vocabulary:
        """A vocabulary of the same size in which the lowest reserved IDs are these special tokens.

        Args:
            special_tokens: Names that are not in use yet.
        Returns:
            The vocabulary; no other ID changes its meaning.
        Raises:
            VocabularyError: A name is in use, or more names than reserved IDs.
        """
        free = np.concatenate([np.arange(a, b) for a, b in self.reserved] or [np.zeros(0, np.int64)])
        if len(special_tokens) > len(free):
            raise VocabularyError(
                f"{len(special_tokens)} tokens for {len(free)} reserved IDs: use extend, which adds IDs at the end"
            )
        specials = dict(self.specials)
        for token, i in zip(special_tokens, free.tolist(), strict=False):
            if token in specials:
                raise VocabularyError(f"special token {token!r} is in use already, with ID {specials[token]}")
            specials[token] = i
        return Vocabulary(self.entries, specials, self.blocks, self.vocab_size)

    # ---- identity and files

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of the layout; tokenizers' sources are left out."""
        data = layout_json(self.entries, self.specials, self.blocks, self.vocab_size)
        tokenizers = [{**entry.to_json(), "source": None} for entry in self.entries.values()]
        return checkpoint.sha256_json({**data, "tokenizers": tokenizers})

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, Vocabulary) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<Vocabulary of {self.vocab_size} IDs: {', '.join(self.entries)}; {self.fingerprint[:12]}>"

    def require_same(self, fingerprint: str, *, where: str) -> None:
        """Raise unless `fingerprint` is this vocabulary's.

        Args:
            fingerprint: The other side's fingerprint.
            where: What the other side is, "the manifest in runs/a".
        Raises:
            FingerprintError: They differ; names both.
        """
        if fingerprint != self.fingerprint:
            raise FingerprintError(
                f"{where} was made with the vocabulary {fingerprint[:12]}..., this one is {self.fingerprint[:12]}... "
                f"({self.vocab_size} IDs): the same ID means different things in the two; use the other's vocabulary, "
                "or encode again with this one"
            )

    def to_json(self) -> dict[str, Json]:
        """The vocabulary as JSON values; `from_json` inverts it."""
        return {
            **layout_json(self.entries, self.specials, self.blocks, self.vocab_size),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Rebuild a vocabulary from what `to_json` returned.

        Raises:
            VocabularyError: Another format version, or a field is missing or cannot be.
            FingerprintError: The layout is not the one that was written.
        """
        layout = parse_layout(data)
        vocabulary = cls(layout.entries, layout.specials, tuple(layout.blocks), layout.vocab_size)
        stored = data.get("fingerprint")
        if stored != vocabulary.fingerprint:
            raise FingerprintError(
                f"the vocabulary says its fingerprint is {stored!r}, its content has {vocabulary.fingerprint!r}: "
                "it was altered after it was written; use an unaltered copy, or build it again"
            )
        return vocabulary

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the vocabulary to a JSON file, whole or not at all; returns the path."""
        write_json(self.to_json(), Path(path))
        return Path(path)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Vocabulary:
        """Read what `save` wrote, or a vocabulary that comes with the package.

        Args:
            name_or_path: A shipped vocabulary's name, "base", or a JSON file's path; write "./base" for a file of
                such a name.
        Raises:
            VocabularyError: As in `from_json`, or the file cannot be read; names the file.
        """
        path = checkpoint.shipped_vocabularies().get(os.fspath(name_or_path), Path(name_or_path))
        try:
            return cls.from_json(read_json(path))
        except VocabularyError as error:
            text = str(error)
            raise type(error)(text if text.startswith(str(path)) else f"{path}: {text}") from error

    def load_tokenizers(
        self, names: Iterable[str] | None = None, *, sources: Mapping[str, str] | None = None
    ) -> dict[str, Tokenizer[Any]]:
        """Load the tokenizers this vocabulary was built with.

        Args:
            names: Which ones; None for all.
            sources: Where some of them lie now, by name, as `multitok.load` takes it; the others are loaded from
                where they came.
        Returns:
            Tokenizer by name, in the order of `names`.
        Raises:
            VocabularyError: No tokenizer of that name, no source for it, or one name in place of a list.
            CheckpointError: Its checkpoint is gone or damaged.
            FingerprintError: What was loaded is another tokenizer; names both.
        """
        if isinstance(names, str):
            raise VocabularyError(f"names={names!r}: give a list of names, [{names!r}]")
        loaded: dict[str, Tokenizer[Any]] = {}
        for name in self.entries if names is None else names:
            entry = self.entry(name)
            source = (sources or {}).get(name, entry.source)
            if source is None:
                raise VocabularyError(
                    f"the vocabulary does not say where tokenizer {name!r} lies: give sources={{{name!r}: ...}}, or "
                    "build the vocabulary from names and paths of checkpoints"
                )
            try:
                loaded[name] = checkpoint.load(source, name=name)
            except CheckpointError as error:
                raise CheckpointError(
                    f"tokenizer {name!r} is not where the vocabulary says, or is damaged: {error}. Put it back, give "
                    f"sources={{{name!r}: ...}}, or build the vocabulary again from where it lies now: its IDs stay"
                ) from error
            self.check_tokenizer(loaded[name], where=source)
        return loaded

    def check_tokenizer(self, tokenizer: Tokenizer[Any], *, where: str = "the given tokenizer") -> None:
        """Raise unless `tokenizer` is the one that this vocabulary records under its name.

        Args:
            tokenizer: Any tokenizer.
            where: What it is, for the message.
        Raises:
            VocabularyError: No tokenizer of that name.
            FingerprintError: It is another one; names both.
        """
        entry = self.entry(tokenizer.spec.name)
        found = checkpoint.fingerprint(tokenizer)
        if found != entry.fingerprint or tokenizer.spec != entry.spec:
            raise FingerprintError(
                f"{where} is a tokenizer {tokenizer.spec.kind!r} with fingerprint {found[:12]}..., the vocabulary's "
                f"{entry.name!r} is {entry.spec.kind!r} with {entry.fingerprint[:12]}...: their codes mean different "
                "things; load the one it was built with, or build a vocabulary with this one"
            )
