"""The segments file: one Parquet row per segment, which makes IDs decodable and countable.

| column         | type         | what                                                              |
|----------------|--------------|-------------------------------------------------------------------|
| document       | int64        | number of the document in its shard                               |
| document_id    | string       | the document's own name                                           |
| segment        | int32        | number of the segment in its document; null: document without any |
| name           | string       | name of the tokenizer in the vocabulary                           |
| modality       | string       | "text", "image" ...                                               |
| start, length  | int32        | the segment's tokens inside the document                          |
| grid           | list<int32>  | shape of one codebook's codes                                     |
| extent         | list<int64>  | raw size along each grid axis                                     |
| num_codebooks  | int32        | K                                                                 |
| pattern        | string       | name of the flatten pattern                                       |

Rows are in order of document and segment. The same rows give the same bytes with the same version of pyarrow,
which the file's `created_by` field names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShardError
from multitok.interleave import Span, TokenSequence
from multitok.protocol import Modality

if TYPE_CHECKING:
    import pyarrow

    from multitok.shards.files import DurableFile

ROWS_PER_GROUP = 16_384
COLUMNS = (
    "document", "document_id", "segment", "name", "modality", "start", "length", "grid", "extent", "num_codebooks",
    "pattern",
)  # fmt: skip
MODALITIES = tuple(Modality)


class SegmentsWriter:
    """Streams segment rows into a Parquet file, one row group at a time.

    Args:
        file: Where to.
    """

    def __init__(self, file: DurableFile) -> None:
        from pyarrow import parquet

        self._schema = _schema()
        self._rows: dict[str, list[Any]] = {column: [] for column in COLUMNS}
        self._writer = parquet.ParquetWriter(
            file, self._schema, compression="zstd", compression_level=3, version="2.6", write_page_index=False
        )

    def add(self, document: int, sequence: TokenSequence) -> None:
        """Append the rows of one document."""
        if not sequence.spans:
            self._append((document, sequence.id, *[None] * (len(COLUMNS) - 2)))
        for segment, span in enumerate(sequence.spans):
            self._append(
                (
                    document, sequence.id, segment, span.name, span.modality.value, span.start, span.length,
                    list(span.grid), list(span.extent), span.num_codebooks, span.pattern,
                )
            )  # fmt: skip
        if len(self._rows["document"]) >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last rows and the footer."""
        if self._rows["document"]:
            self._flush()
        self._writer.close()

    def abort(self) -> None:
        """Let go of the file, whose content no longer matters; else pyarrow would write its footer much later."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _append(self, row: tuple[Any, ...]) -> None:
        for column, value in zip(COLUMNS, row, strict=True):
            self._rows[column].append(value)

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.table(self._rows, schema=self._schema), row_group_size=2 * ROWS_PER_GROUP)
        for values in self._rows.values():
            values.clear()


class SpanTable:
    """The spans of one shard as compact arrays: 9 bytes a segment and 8 a document.

    Args:
        first_row: [D + 1] first span of each document.
        start: [R] first token inside its document.
        length: [R] tokens.
        modality: [R] position in `MODALITIES`.
    """

    def __init__(
        self,
        first_row: NDArray[np.int64],
        start: NDArray[np.int32],
        length: NDArray[np.int32],
        modality: NDArray[np.uint8],
    ) -> None:
        self.first_row, self.start, self.length, self.modality = first_row, start, length, modality


class SegmentsFile:
    """Reads a segments file: all spans as arrays, or the rows of one document.

    Args:
        path: The Parquet file.
        num_documents: Documents in the shard.
    """

    def __init__(self, path: Path, num_documents: int) -> None:
        self.path = path
        self.num_documents = num_documents
        self._group_starts: NDArray[np.int64] | None = None
        self._cached: tuple[int, pyarrow.Table] | None = None

    def span_table(self) -> SpanTable:
        """Where each modality lies in each document; reads four columns."""
        table = self._read(None, ["document", "segment", "modality", "start", "length"])
        real = table.column("segment").is_valid().to_numpy(zero_copy_only=False)
        documents = table.column("document").to_numpy()[real]
        words = table.column("modality").combine_chunks().dictionary_encode()
        try:
            code_of = [MODALITIES.index(Modality(word)) for word in words.dictionary.to_pylist()]
        except ValueError as error:
            raise ShardError(f"{self.path}: {error}; known are {', '.join(MODALITIES)}") from error
        codes = words.indices.fill_null(0).to_numpy(zero_copy_only=False)[real]
        return SpanTable(
            np.searchsorted(documents, np.arange(self.num_documents + 1)).astype(np.int64),
            table.column("start").to_numpy()[real].astype(np.int32),
            table.column("length").to_numpy()[real].astype(np.int32),
            np.asarray(code_of, np.uint8)[codes] if code_of else np.zeros(0, np.uint8),
        )

    def document(self, document: int) -> tuple[str, tuple[Span, ...]]:
        """The id and the spans of one document; reads one row group and keeps it for the next call.

        Raises:
            ShardError: The document has no row.
        """
        rows = list(self._rows_of(document))
        if not rows:
            raise ShardError(f"{self.path} has no row for document {document} of {self.num_documents}")
        spans = tuple(
            Span(
                name=row["name"],
                modality=Modality(row["modality"]),
                start=row["start"],
                length=row["length"],
                grid=tuple(row["grid"]),
                extent=tuple(row["extent"]),
                num_codebooks=row["num_codebooks"],
                pattern=row["pattern"],
            )
            for row in rows
            if row["segment"] is not None
        )
        return rows[0]["document_id"], spans

    def _rows_of(self, document: int) -> Iterator[dict[str, Any]]:
        # A document's rows never straddle two groups: groups are flushed between documents.
        group = int(np.searchsorted(self._starts(), document, side="right")) - 1
        if group < 0:
            return
        # Looked at once: another thread may put its own group there at any time.
        cached = self._cached
        if cached is None or cached[0] != group:
            cached = self._cached = (group, self._read(group, list(COLUMNS)))
        table = cached[1]
        documents = table.column("document").to_numpy()
        first, last = np.searchsorted(documents, [document, document + 1])
        yield from table.slice(first, last - first).to_pylist()

    def _starts(self) -> NDArray[np.int64]:
        """First document of each row group, from the footer's statistics."""
        if self._group_starts is None:
            with self._open() as file:
                groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
                self._group_starts = np.array([group.column(0).statistics.min for group in groups], np.int64)
        return self._group_starts

    def _read(self, group: int | None, columns: list[str]) -> pyarrow.Table:
        import pyarrow

        with self._open() as file:
            try:
                # One thread: a pool would not survive a fork into loader workers.
                if group is None:
                    return file.read(columns, use_threads=False)
                return file.read_row_group(group, columns, use_threads=False)
            except (pyarrow.ArrowException, OSError) as error:
                raise ShardError(f"{self.path} cannot be read: {error}; copy it again") from error

    def _open(self) -> Any:
        import pyarrow
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(self.path, memory_map=False, pre_buffer=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise ShardError(f"{self.path} is no Parquet file: {error}; copy it again") from error
        if tuple(file.schema_arrow.names) != COLUMNS:
            found = file.schema_arrow.names
            file.close()
            raise ShardError(f"{self.path} has the columns {found}, a segments file has {list(COLUMNS)}")
        return file


def _schema() -> Any:
    import pyarrow as pa

    types = {
        "document": pa.int64(),
        "document_id": pa.string(),
        "segment": pa.int32(),
        "name": pa.string(),
        "modality": pa.string(),
        "start": pa.int32(),
        "length": pa.int32(),
        "grid": pa.list_(pa.int32()),
        "extent": pa.list_(pa.int64()),
        "num_codebooks": pa.int32(),
        "pattern": pa.string(),
    }
    return pa.schema([pa.field(column, types[column]) for column in COLUMNS])
