"""Text as byte-level BPE tokens of a rank vocabulary: a token is a byte string, its id is its merge rank.

    "naïve 東京"  ->  [[na, ï, ve, " ", 東, 京]] as ids, extent (14,) in UTF-8 bytes

Every text encodes, and decodes to itself: each of the 256 bytes is a token, and nothing is normalised. Special tokens
do not exist here: a literal "<|endoftext|>" in a text is thirteen characters of plain text, whatever vocabulary it is
encoded with. Structure belongs to `multitok.vocabulary`, whose special tokens no text can spell.

What engine runs it (see `multitok.tokenizers._bpe_engines`) changes the speed, never an id.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CodeRangeError, InputError, SpecError
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec
from multitok.tokenizers import _bpe_files
from multitok.tokenizers._bpe_engines import BpeEngine, Engine, make_engine, tokenizer_json
from multitok.tokenizers._utf8 import DecodingErrors, TextStream, text_to_utf8, utf8_to_text


class TextBpe(TokenizerBase[str]):
    """Text <-> ids of a byte-level rank BPE; lossless.

    It pickles as its vocabulary, is safe to share between threads, and goes on working in a forked process.

    Args:
        token_bytes: uint8 [total]; the tokens' bytes, one after another in the order of their ids.
        token_offsets: int64 [V + 1]; token i is token_bytes[token_offsets[i]:token_offsets[i + 1]]. An empty token
            is an id that encoding never gives, and that decodes to nothing.
        pattern: Regex that cuts text into the pieces that tokens never cross. It has to match all of any text.
        name: Name inside a vocabulary.
        engine: "auto", "tiktoken" or "tokenizers"; changes the speed, never an id.
    Raises:
        SpecError: The arrays do not fit together, a token is there twice, or one of the 256 bytes is no token.
    """

    def __init__(
        self,
        *,
        token_bytes: NDArray[np.uint8],
        token_offsets: NDArray[np.int64],
        pattern: str,
        name: str = "text",
        engine: Engine = "auto",
    ) -> None:
        self._tokens = _cut(np.asarray(token_bytes), np.asarray(token_offsets))
        self._lengths = np.diff(token_offsets)
        self._token_bytes, self._token_offsets = token_bytes, token_offsets
        self._pattern = pattern
        self._choice: Engine = engine
        # Made when first needed, in each process. Two threads may both make one: the same one, so none is wrong,
        # and there is no lock that a fork could leave held.
        self._engine: BpeEngine | None = None
        self._spec = TokenizerSpec(
            kind="text-bpe",
            name=name,
            modality=Modality.TEXT,
            codebook_sizes=(len(self._tokens),),
            grid_axes=("t",),
            stride=(0,),
            lossless=True,
        )

    @classmethod
    def from_tokens(
        cls, tokens: Sequence[bytes], *, pattern: str, name: str = "text", engine: Engine = "auto"
    ) -> TextBpe:
        """A tokenizer of these tokens in the order of their ids; b"" for an id that is no token.

        Raises:
            SpecError: A token is there twice, or one of the 256 bytes is no token.
        """
        offsets = np.array([0, *accumulate(map(len, tokens))], np.int64)
        joined = np.frombuffer(b"".join(tokens), np.uint8)
        return cls(token_bytes=joined, token_offsets=offsets, pattern=pattern, name=name, engine=engine)

    @classmethod
    def from_tiktoken(
        cls, path: str | os.PathLike[str], *, pattern: str, name: str = "text", engine: Engine = "auto"
    ) -> TextBpe:
        """Read a `.tiktoken` file of ranks; its ids stay what they are.

        Args:
            path: The file.
            pattern: The regex that belongs to the vocabulary; the file does not hold it.
            name: Name inside a vocabulary.
            engine: As for the class.
        Raises:
            MediaError: The file is no list of ranks.
            SpecError: The ranks are no usable vocabulary.
        """
        return cls.from_tokens(_bpe_files.read_tiktoken(Path(path)), pattern=pattern, name=name, engine=engine)

    @classmethod
    def from_tokenizer_json(
        cls, path: str | os.PathLike[str], *, name: str = "text", engine: Engine = "auto"
    ) -> TextBpe:
        """Read a byte-level BPE `tokenizer.json`; its ids for plain text stay exactly what they are.

        Special tokens become ids that no text encodes to; nothing is put before or after a text.

        Args:
            path: The file.
            name: Name inside a vocabulary.
            engine: As for the class.
        Raises:
            MediaError: The file is no `tokenizer.json`.
            SpecError: It does what a rank BPE cannot do exactly (a normalizer, another pre-tokenizer or model,
                merges in another order than the ids); the message says what.
        """
        tokens, pattern = _bpe_files.read_tokenizer_json(Path(path))
        return cls.from_tokens(tokens, pattern=pattern, name=name, engine=engine)

    def to_tiktoken(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as a `.tiktoken` file of ranks; the pattern is not in it."""
        Path(path).write_bytes(_bpe_files.tiktoken_ranks(self._tokens))

    def to_tokenizer_json(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary and the pattern as a `tokenizer.json`, which gives the same ids."""
        Path(path).write_text(tokenizer_json(self._tokens, self._pattern), encoding="utf-8")

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like; the stride is 0 because the text decides how many bytes a token takes."""
        return self._spec

    @property
    def tokens(self) -> tuple[bytes, ...]:
        """The bytes of each id; empty where an id is no token."""
        return self._tokens

    @property
    def pattern(self) -> str:
        """Regex of the pieces that tokens never cross."""
        return self._pattern

    def encode(self, raw: str, /) -> Codes:
        """Codes [1, n] of a text; the extent counts its UTF-8 bytes.

        Raises:
            InputError: No str, a lone surrogate in it, or text that the pattern does not match.
        """
        size = len(text_to_utf8(raw))
        return self._as_codes(self._ready().encode(raw), size)

    def encode_batch(self, raws: Sequence[str], /) -> list[Codes]:
        """Equals `[encode(raw) for raw in raws]`, bit for bit."""
        sizes = [len(text_to_utf8(raw)) for raw in raws]
        return [self._as_codes(ids, size) for ids, size in zip(self._ready().encode_batch(raws), sizes, strict=True)]

    def encode_batch_flat(self, texts: Sequence[str | bytes]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of many texts in one array, for bulk work: text i has ids[offsets[i]:offsets[i + 1]].

        Args:
            texts: Each a str, or bytes of UTF-8.
        Returns:
            ids uint32 [total] and offsets int64 [len(texts) + 1].
        Raises:
            InputError: As for `encode`, or bytes that are not UTF-8.
        """
        decoded = [utf8_to_text(text) if isinstance(text, bytes) else text for text in texts]
        sizes = [len(text_to_utf8(text)) for text in decoded]
        parts = self._ready().encode_batch(decoded)
        for ids, size in zip(parts, sizes, strict=True):
            self._check_covered(ids, size)
        offsets = np.array([0, *accumulate(part.size for part in parts)], np.int64)
        return np.concatenate([np.empty(0, np.uint32), *parts]), offsets

    def count(self, text: str) -> int:
        """`encode(text).num_tokens`, without making codes.

        Raises:
            InputError: As for `encode`.
        """
        size = len(text_to_utf8(text))
        ids = self._ready().encode(text)
        self._check_covered(ids, size)
        return int(ids.size)

    def spans(self, text: str, unit: Literal["bytes", "characters"] = "characters") -> NDArray[np.int64]:
        """Where each token of a text stands in it.

        Args:
            text: What `encode` takes.
            unit: Count UTF-8 bytes, or characters (`text[start:end]`). A token that holds part of a character's
                bytes is given that whole character, so that neighbours may overlap.
        Returns:
            int64 [n, 2]; start and end of each token.
        """
        ids = self.encode(text).values[0]
        ends = np.cumsum(self._lengths[ids])
        starts = ends - self._lengths[ids]
        if unit == "bytes":
            return np.stack([starts, ends], axis=1)
        if unit != "characters":
            raise InputError(f'unit={unit!r}: give "bytes" or "characters"')
        data = np.frombuffer(text_to_utf8(text), np.uint8)
        # Characters that have begun at or before each byte; continuation bytes are 0b10xxxxxx.
        begun = np.cumsum((data & 0xC0) != 0x80, dtype=np.int64)
        return np.stack([begun[starts] - 1, begun[ends - 1]], axis=1)

    def decode(self, codes: Codes, /, *, errors: DecodingErrors = "strict") -> str:
        """The text of any codes, all of them: text has no padding to crop, so the extent plays no part.

        Args:
            codes: [1, n].
            errors: What to do with bytes that are not UTF-8, as a model may produce: "strict" refuses, "replace"
                puts U+FFFD in their place.
        Raises:
            InputError: The bytes are not UTF-8 and `errors` is "strict"; names the first bad byte's offset.
        """
        return utf8_to_text(self.decode_bytes(codes), errors)

    def decode_bytes(self, codes: Codes, /) -> bytes:
        """The bytes of any codes, UTF-8 or not."""
        self._spec.check(codes)
        return b"".join(map(self._tokens.__getitem__, codes.values[0].tolist()))

    def stream_decoder(self, *, errors: DecodingErrors = "strict") -> TextStream:
        """A decoder for codes that arrive piece by piece, which never gives out half a character."""
        return TextStream(self._bytes_of, errors)

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {"name": self._spec.name, "pattern": self._pattern}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """`token_bytes` and `token_offsets`."""
        return {"token_bytes": self._token_bytes, "token_offsets": self._token_offsets}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {**self.get_config(), **self.get_tensors(), "engine": self._choice})

    def _ready(self) -> BpeEngine:
        if self._engine is None:
            self._engine = make_engine(self._choice, self._tokens, self._pattern)
        return self._engine

    def _as_codes(self, ids: NDArray[np.uint32], size: int) -> Codes:
        self._check_covered(ids, size)
        return Codes(ids.astype(np.int32)[None], (size,))

    def _check_covered(self, ids: NDArray[np.uint32], size: int) -> None:
        # Engines drop or cut differently what the pattern leaves out; the bytes that came out tell.
        if int(self._lengths[ids].sum()) != size:
            raise InputError(
                f"the pattern {self._pattern[:60]!r} does not match all of this text, so that parts of it would be "
                r"lost: let the pattern end in |[\s\S]"
            )

    def _bytes_of(self, codes: NDArray[np.int64]) -> bytes:
        if codes.size and (codes.min() < 0 or codes.max() >= len(self._tokens)):
            raise CodeRangeError(
                f"codes from {codes.min()} to {codes.max()}: {self._spec.name!r} has 0 to {len(self._tokens) - 1}"
            )
        return b"".join(map(self._tokens.__getitem__, codes.tolist()))


def _rebuild(cls: type[TextBpe], arguments: dict[str, Any]) -> TextBpe:
    return cls(**arguments)


def _cut(token_bytes: NDArray[Any], token_offsets: NDArray[Any]) -> tuple[bytes, ...]:
    """The tokens, checked."""
    if token_bytes.ndim != 1 or token_bytes.dtype != np.uint8:
        raise SpecError(f"token_bytes of shape {list(token_bytes.shape)} and {token_bytes.dtype}: give uint8 [total]")
    if token_offsets.ndim != 1 or token_offsets.dtype != np.int64 or token_offsets.size < 2:
        raise SpecError(
            f"token_offsets of shape {list(token_offsets.shape)}, {token_offsets.dtype}: give int64 [V + 1]"
        )
    if token_offsets[0] != 0 or token_offsets[-1] != token_bytes.size or (np.diff(token_offsets) < 0).any():
        raise SpecError(f"token_offsets must rise from 0 to the {token_bytes.size} bytes of token_bytes")
    joined, offsets = token_bytes.tobytes(), token_offsets.tolist()
    tokens = tuple(joined[start:end] for start, end in pairwise(offsets))
    found = {token for token in tokens if token}
    missing = [byte for byte in range(256) if bytes([byte]) not in found]
    if missing:
        raise SpecError(
            f"{len(missing)} of the 256 bytes are no tokens (the first is 0x{missing[0]:02X}): "
            "text that holds them could not be encoded; give every byte an id"
        )
    if len(found) != sum(map(bool, tokens)):
        twice = next(token for i, token in enumerate(tokens) if token and token in tokens[:i])
        raise SpecError(
            f"token {twice!r} has the ids {[i for i, token in enumerate(tokens) if token == twice]}: give it one"
        )
    return tokens
