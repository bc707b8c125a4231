"""Several prepared folders as one row of numbered documents."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.checkpoint import sha256_json
from multitok.errors import FingerprintError, LoaderError
from multitok.shards import ShardReader, ShardSet, SpanTable

if TYPE_CHECKING:
    from multitok.interleave import TokenSequence
    from multitok.vocabulary import Vocabulary

Folders = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Corpus:
    """All documents of one or more finished outputs, numbered from 0 in the order given.

    Pickles as paths and opens anew on the other side.

    Args:
        folders: One folder with a `manifest.json`, or several of one vocabulary.
        vocabulary: The vocabulary (or its fingerprint) that the caller works with; None takes what is there.

    Raises:
        ShardError: An output is unfinished, or a file is missing or cut short.
        FingerprintError: The outputs are of different vocabularies, or not of the one given.
        LoaderError: No folder, or no document in any.
    """

    def __init__(self, folders: Folders, vocabulary: Vocabulary | str | None = None) -> None:
        paths = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
        if not paths:
            raise LoaderError("no folder given: give at least one folder with a manifest.json")
        self._sets = [ShardSet(Path(path), vocabulary) for path in paths]
        first = self._sets[0]
        for other in self._sets[1:]:
            if other.manifest.vocabulary != first.manifest.vocabulary:
                raise FingerprintError(
                    f"{first.folder} has vocabulary {first.manifest.vocabulary}, {other.folder} has "
                    f"{other.manifest.vocabulary}: load folders of one vocabulary only"
                )
        self._shards = [(shards, k) for shards in self._sets for k in range(len(shards.manifest.shards))]
        sizes = [shards.manifest.shards[k].num_documents for shards, k in self._shards]
        self._first = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=self._first[1:])
        self._bounds: list[int] = self._first.tolist()
        self._readers: list[ShardReader | None] = [None] * len(sizes)
        self._spans: list[SpanTable | None] = [None] * len(sizes)
        self.num_tokens = sum(shards.num_tokens for shards in self._sets)
        self.fingerprint = sha256_json(
            [[file.sha256 for file in shards.manifest.shards[k].files] for shards, k in self._shards]
        )
        if not len(self):
            raise LoaderError(f"{', '.join(map(str, paths))}: no documents in there; all were quarantined?")

    def __len__(self) -> int:
        return int(self._first[-1])

    def __reduce__(self) -> tuple[Callable[..., Corpus], tuple[list[Path], str]]:
        return Corpus, ([shards.folder for shards in self._sets], self._sets[0].manifest.vocabulary)

    def lengths(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n] tokens in each of the documents [n]."""
        shards = self._first.searchsorted(documents, side="right") - 1
        found = np.empty(len(documents), np.int64)
        by_shard = np.argsort(shards, kind="stable")
        present, starts = np.unique(shards[by_shard], return_index=True)
        for shard, chosen in zip(present.tolist(), np.split(by_shard, starts[1:]), strict=True):
            found[chosen] = self._reader(shard).lengths[documents[chosen] - self._first[shard]]
        return found

    def read(self, document: int) -> tuple[NDArray[Any], SpanTable, int, int]:
        """One document's token IDs, the table of its spans, and its first and last row (exclusive) there.

        The IDs are a read-only view of the file, in the payload's dtype.
        """
        shard, local = self._locate(document)
        reader = self._reader(shard)
        table = self._spans[shard]
        if table is None:
            table = self._spans[shard] = reader.span_table()
        return reader.ids(local), table, int(table.first_row[local]), int(table.first_row[local + 1])

    def sequence(self, document: int) -> TokenSequence:
        """One document with its spans, ready to be decoded."""
        shard, local = self._locate(document)
        return self._reader(shard).sequence(local)

    def _locate(self, document: int) -> tuple[int, int]:
        shard = bisect_right(self._bounds, document) - 1
        return shard, document - self._bounds[shard]

    def _reader(self, shard: int) -> ShardReader:
        reader = self._readers[shard]
        if reader is None:
            shards, index = self._shards[shard]
            reader = self._readers[shard] = shards.reader(index)
        return reader
