"""Items -> token sequences: read, decode, tokenize, interleave.

Texts wait until a batch is full and go through `encode_batch`; everything else is encoded as it comes, so that one
decoded image or clip is in memory at a time, and of sound one chunk, where its tokenizer works piece by piece. Because
`encode_batch` equals single encodes and pieces equal the whole, bit for bit, no bounds show in the output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from multitok.errors import InputError, JobError
from multitok.frontend.media import Limits, ReadOptions, is_item_folder, iter_audio, modalities_of, records
from multitok.interleave import Document, Interleaver, Segment, Template, TokenSequence
from multitok.prepare.quarantine import is_items_fault, reject
from multitok.prepare.report import Work
from multitok.prepare.routing import Routing
from multitok.prepare.sources import Item, Part, Rejected
from multitok.prepare.sources.item_folders import SLICES, measure
from multitok.protocol import Codes, Modality, Tokenizer, Waveform
from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer
from multitok.vocabulary import Vocabulary

BATCH_ITEMS = 256
BATCH_SIZE = 2**22
"""Characters of text waiting, and codes kept beside them."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document's tokens, and the raw bytes that each modality of it took."""

    sequence: TokenSequence
    bytes_in: Mapping[Modality, int]


@dataclass(slots=True)
class _Pending:
    """An item on its way: codes so far, with texts still as they are."""

    item: Item
    root: Path
    segments: list[tuple[str, Codes | str]] = field(default_factory=list)
    bytes_in: dict[Modality, int] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def size(self) -> int:
        """Characters and codes it holds."""
        return sum(len(value) if isinstance(value, str) else value.num_tokens for _, value in self.segments)


class ItemEncoder:
    """Encodes items with a vocabulary's tokenizers, each loaded when first needed, once.

    Args:
        vocabulary: Knows where its tokenizers lie.
        routing: Which tokenizer takes what.
        template: How documents are written.
        limits: How large an item may be.
        reading: Frame rate, window and the like.

    Raises:
        VocabularyError: The template does not fit the vocabulary.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        routing: Routing,
        template: Template,
        limits: Limits,
        reading: ReadOptions | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self._routing = routing
        self._limits = limits
        self._reading = reading or ReadOptions()
        self._interleaver = Interleaver(vocabulary, template)
        self._tokenizers: dict[str, Tokenizer[Any]] = {}
        self._work: dict[Modality, Work] = {}

    def take_work(self) -> dict[Modality, Work]:
        """What was done since the last call, by modality."""
        work, self._work = self._work, {}
        return work

    def encode(self, items: Iterable[tuple[Path, Item | Rejected]]) -> Iterator[Encoded | Rejected]:
        """Encode items, in order.

        Args:
            items: Each with the folder that its source's references start from.
        Yields:
            The document of each item, or why there is none.
        Raises:
            MultitokError, OSError, MemoryError: What is not the item's fault.
        """
        batch: list[_Pending | Rejected] = []
        size = 0
        for root, item in items:
            if isinstance(item, Rejected):
                batch.append(item)
            else:
                entries = self._begin(item, root)
                batch += entries
                size += sum(entry.size for entry in entries)
            if len(batch) >= BATCH_ITEMS or size >= BATCH_SIZE:
                yield from self._finish(batch)
                batch, size = [], 0
        yield from self._finish(batch)

    def _begin(self, item: Item, root: Path) -> list[_Pending]:
        """Read an item, and encode what is not text: one entry, or one for each record of a file."""
        # What waits for its batch needs no raw bytes any more.
        waiting = replace(item, parts=())
        whole = _Pending(waiting, root)
        entries = [] if item.by_record else [whole]
        try:
            for part in item.parts:
                for record, name, value, num_bytes in self._segments(part):
                    entry = whole
                    if item.by_record:
                        entry = _Pending(replace(waiting, id=f"{item.id}#{record}" if record else item.id), root)
                        entries.append(entry)
                    if isinstance(value, Exception):
                        entry.error = entry.error or value
                    else:
                        modality = self._routing.modalities[name]
                        entry.segments.append((name, value))
                        entry.bytes_in[modality] = entry.bytes_in.get(modality, 0) + num_bytes
        except Exception as error:
            if not is_items_fault(error):
                raise
            whole.error = error
            entries += [whole] if item.by_record else []
        return entries

    def _segments(self, part: Part) -> Iterator[tuple[str, str, Codes | str | Exception, int]]:
        """Record id, tokenizer, codes (text stays text, a failure its error) and raw bytes of each item of a part."""
        started = time.perf_counter()
        num_bytes, raws = self._raws(part)
        for record, name, raw in raws:
            modality = self._routing.modalities[name]
            value: Codes | str | Exception = raw
            if isinstance(raw, Iterator):
                value = _encode_sound(self._tokenizer(name), raw)
            elif modality is not Modality.TEXT:
                (value,) = _encode_all(self._tokenizer(name), [raw])
            tokens = value.num_tokens if isinstance(value, Codes) else 0
            now = time.perf_counter()
            self._count(modality, Work(1, tokens, num_bytes, now - started))
            yield record, name, value, num_bytes
            # The bytes of a file of several records count once.
            started, num_bytes = time.perf_counter(), 0

    def _raws(self, part: Part) -> tuple[int, Iterator[tuple[str, str, Any]]]:
        """Bytes of a part, and its raw items (sound may be its chunks) with the record and the tokenizer of each."""
        wanted = None if part.tokenizer is None else self._routing.modalities[part.tokenizer]
        if isinstance(part.content, str):
            assert part.tokenizer is not None
            size = len(part.content.encode())
            if not size:
                raise InputError(f"the {wanted} is empty")
            if size > self._limits.max_text_bytes:
                raise InputError(f"the {wanted} has {size:,} bytes; the limit is {self._limits.max_text_bytes:,}")
            return size, iter([("", part.tokenizer, part.content)])
        expected = wanted or next(iter(modalities_of(part.name)), None)
        if expected is Modality.AUDIO:
            name = part.tokenizer or self._routing.of_content(part.name, expected)
            if isinstance(self._tokenizer(name), AudioStreamTokenizer):
                size = len(part.content) if isinstance(part.content, bytes) else _size_of(part.content, part.num_bytes)
                return size, iter([("", name, iter_audio(part.content, part.name, limits=self._limits))])
        data: bytes | Path
        is_series = part.name.endswith(SLICES)
        if isinstance(part.content, Path) and (is_series or is_item_folder(part.content)):
            data = part.content
            try:
                size, _ = measure(data / SLICES if is_series else data)
            except FileNotFoundError as error:
                if part.num_bytes is None:
                    raise
                raise _changed(data, part.num_bytes, "is gone") from error
            if part.num_bytes not in (None, size):
                raise _changed(data, part.num_bytes, f"has {size} bytes")
        else:
            data = part.content if isinstance(part.content, bytes) else self._bytes_of(part.content, part.num_bytes)
            size = len(data)
        found = records(data, part.name, modality=wanted, limits=self._limits, options=self._reading)
        return size, ((record, part.tokenizer or self._route(part.name, raw), raw) for record, raw in found)

    def _bytes_of(self, path: Path, planned: int | None) -> bytes:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read(self._limits.max_bytes + 1) if planned in (None, size) else b""
        except FileNotFoundError:
            if planned is None:
                raise
            size, data = -1, b""
        if planned not in (None, size):
            now = "is gone" if size < 0 else f"has {size} bytes"
            raise _changed(path, planned, now)
        if len(data) > self._limits.max_bytes:
            raise InputError(f"{path.name}: the limit is max_bytes={self._limits.max_bytes:,}")
        return data

    def _route(self, name: str, raw: Any) -> str:
        if isinstance(raw, str):
            return self._routing.of_content(name, modalities_of(name)[0])
        if isinstance(raw, Waveform):
            return self._routing.of_content(name, Modality.AUDIO)
        by_layout = {
            ("u", 3): Modality.IMAGE,
            ("u", 4): Modality.VIDEO,
            ("f", 3): Modality.VOLUME,
            ("f", 2): Modality.SERIES,
        }
        return self._routing.of_content(name, by_layout[raw.dtype.kind, raw.ndim])

    def _finish(self, batch: list[_Pending | Rejected]) -> Iterator[Encoded | Rejected]:
        self._encode_texts([entry for entry in batch if isinstance(entry, _Pending) and entry.error is None])
        for entry in batch:
            yield entry if isinstance(entry, Rejected) else self._document(entry)

    def _document(self, entry: _Pending) -> Encoded | Rejected:
        error = entry.error
        if error is None:
            segments = tuple(Segment(name, codes) for name, codes in entry.segments if isinstance(codes, Codes))
            # A name that is not UTF-8 arrives with surrogates, which no file of ours can hold.
            item_id = entry.item.id.encode("utf-8", "backslashreplace").decode()
            try:
                sequence = self._interleaver.encode(Document(segments, item_id))
                if not len(sequence):
                    raise InputError("the document has no tokens")
                return Encoded(sequence, entry.bytes_in)
            except Exception as failure:
                if not is_items_fault(failure):
                    raise
                error = failure
        return reject(entry.item, error, entry.root)

    def _encode_texts(self, entries: list[_Pending]) -> None:
        waiting: dict[str, list[tuple[_Pending, int, str]]] = {}
        for entry in entries:
            for index, (name, value) in enumerate(entry.segments):
                if isinstance(value, str):
                    waiting.setdefault(name, []).append((entry, index, value))
        for name, texts in waiting.items():
            started = time.perf_counter()
            tokenizer = self._tokenizer(name)
            tokens = 0
            for (entry, index, _), codes in zip(texts, _encode_all(tokenizer, [t for *_, t in texts]), strict=True):
                if isinstance(codes, Codes):
                    entry.segments[index] = (name, codes)
                    tokens += codes.num_tokens
                else:
                    entry.error = entry.error or codes
            self._count(Modality.TEXT, Work(0, tokens, 0, time.perf_counter() - started))

    def _tokenizer(self, name: str) -> Tokenizer[Any]:
        if name not in self._tokenizers:
            try:
                self._tokenizers |= self.vocabulary.load_tokenizers([name])
            except Exception as error:
                if not is_items_fault(error):
                    raise
                # Whatever it raises while it is loaded, the item at hand has no part in it.
                raise JobError(
                    f"tokenizer {name!r} cannot be loaded: {type(error).__name__}: {error}; mend its installation"
                ) from error
        return self._tokenizers[name]

    def _count(self, modality: Modality, work: Work) -> None:
        self._work[modality] = self._work.get(modality, Work()) + work


def _size_of(path: Path, planned: int | None) -> int:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        if planned is None:
            raise
        raise _changed(path, planned, "is gone") from error
    if planned not in (None, size):
        raise _changed(path, planned, f"has {size} bytes")
    return size


def _changed(path: Path, planned: int | None, now: str) -> JobError:
    return JobError(f"{path} had {planned} bytes when the job was planned and {now} now: bring it back as it was")


def _encode_sound(tokenizer: Tokenizer[Any], chunks: Iterator[Waveform]) -> Codes | Exception:
    """Codes of a clip, or what reading or encoding it raised."""
    assert isinstance(tokenizer, AudioStreamTokenizer)
    try:
        return Codes.join(tokenizer.encode_chunks(chunks))
    except Exception as error:
        if not is_items_fault(error):
            raise
        return error


def _encode_all(tokenizer: Tokenizer[Any], raws: list[Any]) -> list[Codes | Exception]:
    """Codes of each raw item, or what it raised: one bad item does not spoil its batch."""
    try:
        return list(tokenizer.encode_batch(raws))
    except Exception as error:
        if not is_items_fault(error):
            raise
    results: list[Codes | Exception] = []
    for raw in raws:
        try:
            results.append(tokenizer.encode(raw))
        except Exception as error:
            if not is_items_fault(error):
                raise
            results.append(error)
    return results
