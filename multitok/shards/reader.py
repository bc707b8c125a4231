"""Reading shards by memory map: opening costs a few `stat` calls, an access touches only its own pages.

`ShardReader` reads one finished shard, `ShardSet` all shards of a folder with a manifest. Both pickle as a path and
open anew on the other side, and hold no file handles or threads that a fork would break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import FingerprintError, ShardError
from multitok.interleave import TokenSequence
from multitok.shards.info import ShardInfo, payload_bounds, shard_name
from multitok.shards.manifest import Manifest
from multitok.shards.mapping import map_file
from multitok.shards.megatron import map_index
from multitok.shards.segments import SegmentsFile, SpanTable

if TYPE_CHECKING:
    from multitok.vocabulary import Vocabulary

_VERIFY_TOKENS = 1 << 22


class ShardReader:
    """One finished shard: a read-only sequence of documents.

    Args:
        folder: Where the shard is.
        index: Number of the shard.
        info: Its commit record, where the caller has read it already.

    Raises:
        ShardError: Not finished, or a file is missing, cut short or of another shard.
    """

    def __init__(self, folder: Path, index: int, info: ShardInfo | None = None) -> None:
        self.folder = Path(folder)
        found = ShardInfo.load(self.folder, index) if info is None else info
        if found is None:
            raise ShardError(
                f"{self.folder / shard_name(index)} has no commit record (.done.json): "
                "the shard was never finished, run the same prepare command again"
            )
        self.info = found
        for file in found.files:
            file.check_size(self.folder)
        payload, idx, segments = (self.folder / file.name for file in found.files)
        self.lengths, self._pointers = map_index(idx, found.dtype, found.num_documents, found.files[0].size_bytes)
        if found.num_tokens * found.dtype.itemsize != found.files[0].size_bytes:
            raise ShardError(
                f"{payload} has {found.files[0].size_bytes} bytes, its record says {found.num_tokens} tokens"
            )
        self._payload: NDArray[Any] = map_file(payload).view(found.dtype)
        self._segments = SegmentsFile(segments, found.num_documents)

    def __len__(self) -> int:
        return self.info.num_documents

    def __iter__(self) -> Iterator[TokenSequence]:
        return (self.sequence(document) for document in range(len(self)))

    def __reduce__(self) -> tuple[Callable[..., ShardReader], tuple[Path, int, ShardInfo]]:
        return ShardReader, (self.folder, self.info.index, self.info)

    def ids(self, document: int) -> NDArray[Any]:
        """One document's token IDs: [n] read-only view of the file, in the payload's dtype.

        Raises:
            IndexError: No such document.
        """
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {self.info.name}: it has 0 to {len(self) - 1}")
        start = int(self._pointers[document]) // self._payload.itemsize
        return self._payload[start : start + int(self.lengths[document])]

    def sequence(self, document: int) -> TokenSequence:
        """One document with its spans and its id, ready to be decoded."""
        ids = self.ids(document).astype(np.int32)
        name, spans = self._segments.document(document)
        return TokenSequence(ids, spans, name)

    def span_table(self) -> SpanTable:
        """Where each modality lies, for all documents at once."""
        return self._segments.span_table()

    def verify(self) -> None:
        """Read everything and compare it with the commit record.

        Raises:
            ShardError: A byte differs (names the file and both sha256), or the content contradicts itself.
        """
        for file in self.info.files:
            file.check_content(self.folder)
        idx, payload = (self.folder / self.info.files[k].name for k in (1, 0))
        if not np.array_equal(self._pointers, payload_bounds(self.lengths, self._payload.itemsize)):
            raise ShardError(f"{idx}: its positions do not follow from its lengths; run prepare again")
        for start in range(0, len(self._payload), _VERIFY_TOKENS):
            part = self._payload[start : start + _VERIFY_TOKENS]
            if int(part.min()) < 0 or int(part.max()) >= self.info.vocab_size:
                raise ShardError(f"{payload} holds IDs from {part.min()} to {part.max()} of {self.info.vocab_size}")
        spans = self.span_table()
        documents = np.repeat(np.arange(len(self)), np.diff(spans.first_row))
        ends = spans.start.astype(np.int64) + spans.length
        if (spans.start < 0).any() or (ends > self.lengths[documents]).any():
            raise ShardError(f"{self._segments.path}: a span reaches beyond its document; run prepare again")


class ShardSet:
    """All shards of a finished output: a read-only sequence of documents.

    Args:
        folder: Where `manifest.json` is.
        vocabulary: The vocabulary (or its fingerprint) that the caller works with; None takes what is there.

    Raises:
        ShardError: The output is unfinished, or a file is missing or cut short.
        FingerprintError: The shards are of another vocabulary.
    """

    def __init__(self, folder: Path | str, vocabulary: Vocabulary | str | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)
        if vocabulary is not None:
            wanted = vocabulary if isinstance(vocabulary, str) else vocabulary.fingerprint
            if wanted != self.manifest.vocabulary:
                raise FingerprintError(
                    f"{self.folder} was prepared with vocabulary {self.manifest.vocabulary}, this one is {wanted}: "
                    "load the vocabulary that lies in the folder, or prepare again with this one"
                )
        for shard in self.manifest.shards:
            for file in shard.files:
                file.check_size(self.folder)
        self.first_document = np.zeros(len(self.manifest.shards) + 1, np.int64)
        np.cumsum([shard.num_documents for shard in self.manifest.shards], out=self.first_document[1:])
        self._readers: list[ShardReader | None] = [None] * len(self.manifest.shards)

    def __len__(self) -> int:
        return int(self.first_document[-1])

    def __getitem__(self, document: int) -> TokenSequence:
        shard, local = self.locate(document)
        return self.reader(shard).sequence(local)

    def __iter__(self) -> Iterator[TokenSequence]:
        for shard in range(len(self._readers)):
            yield from self.reader(shard)

    def __reduce__(self) -> tuple[Callable[..., ShardSet], tuple[Path, str]]:
        return ShardSet, (self.folder, self.manifest.vocabulary)

    @property
    def num_tokens(self) -> int:
        """Token IDs in all shards."""
        return self.manifest.num_tokens

    def ids(self, document: int) -> NDArray[Any]:
        """One document's token IDs: [n] read-only view of the file, in the payload's dtype."""
        shard, local = self.locate(document)
        return self.reader(shard).ids(local)

    def locate(self, document: int) -> tuple[int, int]:
        """The shard of a document and its number there.

        Raises:
            IndexError: No such document.
        """
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {self.folder}: it has {len(self)}, from 0")
        shard = int(np.searchsorted(self.first_document, document, side="right")) - 1
        return shard, document - int(self.first_document[shard])

    def reader(self, shard: int) -> ShardReader:
        """The reader of one shard, opened when first asked for."""
        reader = self._readers[shard]
        if reader is None:
            reader = ShardReader(self.folder, shard, self.manifest.shards[shard])
            self._readers[shard] = reader
        return reader

    def verify(self) -> None:
        """Read every shard and compare it with the manifest.

        Raises:
            ShardError: A byte differs; names the file and both sha256.
        """
        for shard in range(len(self._readers)):
            self.reader(shard).verify()
