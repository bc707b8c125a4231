"""Writing one shard: streamed, hashed, and there only when it is whole.

The payload is written as documents come; of each document only its length (4 bytes) stays in memory, and segment
rows until their row group is full. So memory does not grow with the payload.

Order of the commit: payload, index and segments are flushed to the disk under temporary names, renamed, the folder
is flushed, and only then the commit record `shard-00000.done.json` is written the same way. A process killed at any
instant leaves either a whole shard or one that does not count.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from multitok.errors import CodeRangeError, ShapeError, ShardError
from multitok.interleave import TokenSequence
from multitok.protocol import Json, Modality
from multitok.shards.files import DurableFile, sync_folder
from multitok.shards.info import Count, ShardInfo, id_dtype, shard_name
from multitok.shards.megatron import write_index
from multitok.shards.segments import SegmentsWriter

if TYPE_CHECKING:
    from multitok.vocabulary import Vocabulary

MAX_DOCUMENT_TOKENS = 2**31 - 1


class ShardWriter:
    """Writes one shard; a context manager that commits at its end, and leaves nothing behind on an error.

        with ShardWriter(folder, 0, vocabulary) as writer:
            for sequence in sequences:
                writer.add(sequence)
        print(writer.info)

    Args:
        folder: Where to; created if absent. Left-overs of interrupted writers do no harm: files under final names are
            replaced, temporary names are never the same twice, and `remove_unfinished` clears both.
        index: Number of the shard, from 0.
        vocabulary: The vocabulary of the IDs; its size fixes the payload's dtype.

    Raises:
        ShardError: The shard is finished already.
    """

    def __init__(self, folder: Path, index: int, vocabulary: Vocabulary) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if ShardInfo.load(folder, index) is not None:
            raise ShardError(
                f"{folder / shard_name(index)} is finished already: skip it, or remove its four files to write it again"
            )
        self.info: ShardInfo | None = None
        self._folder, self._index = folder, index
        self._vocab_size, self._vocabulary = vocabulary.vocab_size, vocabulary.fingerprint
        self._dtype = id_dtype(vocabulary.vocab_size)
        self._lengths = array("i")
        self._counts: dict[Modality, Count] = {}
        self._num_tokens = 0
        name = shard_name(index)
        self._files: list[DurableFile] = []
        try:
            for suffix in ("bin", "idx", "segments.parquet"):
                self._files.append(DurableFile(folder / f"{name}.{suffix}"))
            self._segments = SegmentsWriter(self._files[2])
        except BaseException:
            for file in self._files:
                file.discard()
            raise

    @property
    def num_documents(self) -> int:
        """Documents added so far."""
        return len(self._lengths)

    @property
    def num_tokens(self) -> int:
        """Tokens added so far."""
        return self._num_tokens

    def add(self, sequence: TokenSequence) -> None:
        """Append one document.

        Raises:
            ShapeError: No tokens at all, more than 2^31 - 1, or spans out of order or beyond the document.
            CodeRangeError: An ID outside the vocabulary.
        """
        ids, what = sequence.ids, f"document {sequence.id!r}"
        if not 0 < len(ids) <= MAX_DOCUMENT_TOKENS:
            raise ShapeError(
                f"{what} has {len(ids)} tokens: a document in a shard has from 1 to {MAX_DOCUMENT_TOKENS}; "
                "leave empty documents out, split longer ones"
            )
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self._vocab_size:
            raise CodeRangeError(
                f"{what} has the ID {low if low < 0 else high}: allowed are 0 to {self._vocab_size - 1}; "
                "these IDs come from another vocabulary"
            )
        end = 0
        for span in sequence.spans:
            if span.start < end or span.length < 0 or span.stop > len(ids):
                raise ShapeError(
                    f"{what}: the span of {span.name!r} covers tokens {span.start} to {span.stop}, allowed are "
                    f"{end} to {len(ids)}: spans come in order and do not overlap"
                )
            end = span.stop
        self._files[0].write(np.ascontiguousarray(ids, self._dtype))
        self._segments.add(len(self._lengths), sequence)
        self._lengths.append(len(ids))
        self._num_tokens += len(ids)
        for span in sequence.spans:
            self._counts[span.modality] = self._counts.get(span.modality, Count()) + Count(1, span.length)

    def close(self, note: Mapping[str, Json] | None = None) -> ShardInfo:
        """Commit the shard.

        Args:
            note: JSON values for the commit record; they must depend on the inputs alone, as all its bytes do.
        Returns:
            The commit record.
        Raises:
            ShardError: The writer was closed or aborted before.
        """
        if not self._files:
            raise ShardError(f"{self._folder / shard_name(self._index)}: this writer is closed; open a new one")
        try:
            self._segments.close()
            write_index(self._files[1], np.array(self._lengths, np.int32), self._dtype)
            payload, index, segments = (file.finish() for file in self._files)
            info = ShardInfo(
                index=self._index,
                vocab_size=self._vocab_size,
                vocabulary=self._vocabulary,
                num_documents=self.num_documents,
                num_tokens=self._num_tokens,
                counts=dict(sorted(self._counts.items())),
                files=(payload, index, segments),
                note={} if note is None else note,
            )
            for file in self._files:
                file.rename()
            sync_folder(self._folder)
            info.save(self._folder)
        except BaseException:
            self.abort()
            raise
        self._files = []
        self.info = info
        return info

    def abort(self) -> None:
        """Remove the temporary files; a no-op after `close`."""
        if not self._files:
            return
        self._segments.abort()
        for file in self._files:
            file.discard()
        self._files = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._files:
            self.close()
