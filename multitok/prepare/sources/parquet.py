"""Parquet documents: one row a document, one column a segment, in the order of the columns.

A column counts when its name is a modality or a tokenizer's name; `id` is the document's id; others are ignored
and reported. A cell is a string (inline text, or a path relative to the file's folder), binary (a file's bytes),
or a struct {bytes, path} as Hugging Face writes it. An empty cell is no segment.
A slice is a range of rows; it is streamed, a column chunk at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitok.errors import InputError, JobError
from multitok.prepare.routing import INLINE
from multitok.prepare.sources.base import Findings, Item, Part, Rejected, Slice, Source, stat_digest
from multitok.prepare.sources.jsonl import part_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 64


class ParquetSource(Source):
    """A `.parquet` file."""

    kind = "parquet"

    def identity(self) -> tuple[int, str]:
        """See `Source`."""
        return stat_digest(self.path)

    def plan(self, slice_bytes: int, listing: Path, findings: Findings) -> Iterator[Slice]:
        """See `Source`."""
        file = self._open()
        columns = self._columns(file.schema_arrow)
        findings.skipped.update(
            f"column {name!r} (no modality or tokenizer)"
            for name in file.schema_arrow.names
            if name not in columns and name != "id"
        )
        row = 0
        for group in (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)):
            # A row group larger than asked for is cut by rows: reading one part of it has to decode, but not to
            # tokenize, the rows before.
            pieces = max(1, min(group.num_rows, round(group.total_byte_size / slice_bytes)))
            cuts = [group.num_rows * piece // pieces for piece in range(pieces + 1)]
            for low, high in itertools.pairwise(cuts):
                if high > low:
                    share = (high - low) / group.num_rows
                    yield Slice(row + low, row + high, max(1, int(group.total_byte_size * share)))
            row += group.num_rows

    def read(self, part: Slice, listing: Path, notes: frozenset[str]) -> Iterator[Item | Rejected]:
        """See `Source`."""
        file = self._open()
        columns = self._columns(file.schema_arrow)
        names = [*columns, *(["id"] if "id" in file.schema_arrow.names else [])]
        groups: list[int] = []
        first = row = 0
        for index in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(index).num_rows
            if row < part.stop and row + rows > part.start:
                first = first if groups else row
                groups.append(index)
            row += rows
        if row < part.stop:
            raise JobError(f"{self.path} has {row} rows, but was planned up to row {part.stop}")
        row = first
        for batch in self._batches(file, groups, names):
            low, high = max(part.start - row, 0), min(part.stop - row, batch.num_rows)
            for at in range(low, high):
                yield self._item(batch, columns, at, row + at)
            row += batch.num_rows
            if row >= part.stop:
                return

    def _batches(self, file: pq.ParquetFile, groups: list[int], names: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        batches = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=names, use_threads=False)
        try:
            yield from batches
        except (pa.ArrowException, OSError) as error:
            raise JobError(f"{self.path}: row groups {groups} are damaged: {error}; copy the file again") from error

    def _item(self, batch: pa.RecordBatch, columns: list[str], at: int, row: int) -> Item | Rejected:
        item_id = f"{self.label}:{row}"
        try:
            given = batch.column("id")[at].as_py() if "id" in batch.schema.names else None
            item_id = item_id if given is None else str(given)
            cells = ((column, batch.column(column)[at].as_py()) for column in columns)
            parts = tuple(self._part(column, cell, row) for column, cell in cells if cell is not None)
            if not parts:
                raise InputError(f"every segment of the row is null ({', '.join(columns)})")
        except (InputError, UnicodeDecodeError) as error:
            return Rejected(item_id, self.label, f"row {row}", type(error).__name__, str(error))
        return Item(item_id, self.label, f"row {row}", parts)

    def _part(self, column: str, cell: Any, row: int) -> Part:
        name = f"{self.label}:{row}"
        tokenizer = self.routing.of_key(column)
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if data is None and path is None:
            raise InputError(f"{column} has neither bytes nor a path")
        if data is None or (isinstance(data, str) and self.routing.modalities[tokenizer] not in INLINE):
            return part_of(self.routing, self.media_root, column, path if data is None else data, name)
        if isinstance(data, bytes) and self.routing.modalities[tokenizer] in INLINE:
            data = data.decode("utf-8")
        return Part(path or name, tokenizer, data)

    def _columns(self, schema: pa.Schema) -> list[str]:
        import pyarrow as pa

        columns = [name for name in schema.names if self.routing.is_key(name)]
        if not columns:
            raise JobError(
                f"{self.path}: no column is named like a modality or a tokenizer ({', '.join(schema.names)}): "
                "rename the columns, for instance to text and image"
            )
        for name in columns:
            kind = schema.field(name).type
            plain = any(
                test(kind)
                for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
            )
            fields = {kind.field(index).name for index in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
            if not plain and not {"bytes", "path"} & fields:
                raise JobError(
                    f"{self.path}: column {name!r} is {kind}: give strings, binary, or structs with bytes and path"
                )
            try:
                self.routing.of_key(name)
            except InputError as error:
                raise JobError(f"{self.path}: column {name!r}: {error}; drop the column or rename it") from error
        return columns

    def _open(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path, pre_buffer=False, memory_map=False)
        except (pa.ArrowException, OSError) as error:
            raise JobError(f"{self.path} cannot be read as Parquet: {error}") from error
