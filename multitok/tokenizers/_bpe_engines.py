"""Engines that run a byte-level rank BPE: which to take, and how to set each up so that all give the same ids.

A rank BPE cuts text into pieces by a regex. A piece that is a token is that token; in any other, the adjacent pair
whose joined bytes have the lowest rank is merged, leftmost first, until no pair joins to a token. A token's rank is
its id.

`tiktoken` runs exactly that. `tokenizers` merges listed pairs instead, so it is given, for each token, the one pair
that the ranks ever merge into it: the last step of merging that token's own bytes. (Merges inside a stretch of bytes
come in the same order whatever surrounds it, so no other pair of that token can ever meet.)

"auto" is tiktoken: measured on 7 MB in nine languages and code, it is 4 to 5 times as fast as tokenizers 0.23 on the
same core. tokenizers 1.0rc3 is faster still, but knows only some patterns and fails on the others, so it is taken when
asked for. tiktoken's one limit is a run of about a million spaces under a pattern with look-ahead; such a text goes to
tokenizers.

Engines hold no lock and start no thread of their own: they may be shared by threads and used after a fork.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, SpecError

Engine: TypeAlias = Literal["auto", "tiktoken", "tokenizers"]
Ids: TypeAlias = NDArray[np.uint32]


class BpeEngine(Protocol):
    """Text to ids."""

    def encode(self, text: str) -> Ids:
        """Ids of one text."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text."""


def make_engine(engine: Engine, tokens: Sequence[bytes], pattern: str) -> BpeEngine:
    """The engine for a vocabulary.

    Args:
        engine: "auto" is tiktoken, with tokenizers for a text that exhausts it.
        tokens: Bytes of each id; empty for an id that is no token.
        pattern: Regex of the pieces.
    Raises:
        SpecError: An engine of that name does not exist, or the pattern is no regex.
    """
    if engine == "auto":
        return _AutoEngine(tokens, pattern)
    if engine == "tiktoken":
        return _TiktokenEngine(tokens, pattern)
    if engine == "tokenizers":
        return _TokenizersEngine(tokens, pattern)
    raise SpecError(f'engine={engine!r}: give "auto", "tiktoken" or "tokenizers"')


def last_merge(token: bytes, rank: Callable[[bytes, bytes], int | None]) -> list[bytes]:
    """What merging a token's bytes leaves when it stops, or its last two parts where it gets as far as that.

    Args:
        token: One byte or more.
        rank: Rank of merging two adjacent parts; None where they do not merge.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        ranks = [rank(left, right) for left, right in pairwise(parts)]
        found = [value for value in ranks if value is not None]
        if not found:
            break
        at = ranks.index(min(found))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def tokenizer_json(tokens: Sequence[bytes], pattern: str) -> str:
    """The vocabulary as the text of a `tokenizer.json`."""
    ids = {token: code for code, token in enumerate(tokens) if token}
    merges = []
    for token in ids:
        parts = last_merge(token, lambda left, right: ids.get(left + right))
        if len(parts) == 2:
            merges.append([_spell(part) for part in parts])
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
        "vocab": {_spell(token): code for token, code in ids.items()}, "merges": merges,
    }  # fmt: skip
    whole: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None, "decoder": level, "model": model,
    }  # fmt: skip
    return json.dumps(whole, ensure_ascii=False)


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level `tokenizer.json` (GPT-2's table).

    Source:
        Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", released encoder.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


_LETTERS = byte_letters()


def _spell(token: bytes) -> str:
    return "".join([_LETTERS[byte] for byte in token])


class _TiktokenEngine:
    def __init__(self, tokens: Sequence[bytes], pattern: str) -> None:
        import tiktoken

        ranks = {token: code for code, token in enumerate(tokens) if token}
        try:
            self._encoding = tiktoken.Encoding("multitok", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        except ValueError as error:
            raise SpecError(f"pattern {pattern[:60]!r} is no regex that tiktoken reads: {error}") from error

    def encode(self, text: str) -> Ids:
        try:
            return self._encoding.encode_to_numpy(text)
        except ValueError as error:
            raise InputError(
                f"a text of {len(text)} characters exhausts the regex engine of tiktoken with this pattern ({error}); "
                'use engine="auto" or engine="tokenizers", or cut long runs of spaces'
            ) from error

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [self.encode(text) for text in texts]


class _TokenizersEngine:
    def __init__(self, tokens: Sequence[bytes], pattern: str) -> None:
        from tokenizers import Tokenizer

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.json"
            path.write_text(tokenizer_json(tokens, pattern), encoding="utf-8")
            try:
                tokenizer: Any = Tokenizer.from_file(str(path))
                # 0.x has a batch call without offsets, and ids as lists; 1.x has one batch call, and ids as arrays.
                self._encode_batch = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
                self._ids = "ids_array" if hasattr(tokenizer.encode("a"), "ids_array") else "ids"
            except Exception as error:  # the library raises bare Exception
                raise SpecError(
                    f"tokenizers {version('tokenizers')} does not read the pattern {pattern[:60]!r} ({error}); "
                    'use engine="tiktoken"'
                ) from error

    def encode(self, text: str) -> Ids:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        found = self._encode_batch(list(texts), add_special_tokens=False) if texts else []
        return [np.asarray(getattr(item, self._ids), np.uint32) for item in found]


class _AutoEngine:
    """tiktoken; and tokenizers for the texts that exhaust it, as long runs of spaces do under look-ahead."""

    def __init__(self, tokens: Sequence[bytes], pattern: str) -> None:
        self._tokens, self._pattern = tokens, pattern
        self._first = _TiktokenEngine(tokens, pattern)
        self._second: BpeEngine | None = None

    def encode(self, text: str) -> Ids:
        try:
            return self._first.encode(text)
        except InputError:
            self._second = self._second or _TokenizersEngine(self._tokens, self._pattern)
            return self._second.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [self.encode(text) for text in texts]
