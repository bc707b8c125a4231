"""The Megatron index: exact bytes.

    offset  bytes   what                              D documents, one sequence each
    0       9       b"MMIDIDX\\0\\0"
    9       8       u64 version = 1
    17      1       u8 dtype code: 8 uint16, 4 int32
    18      8       u64 number of sequences = D
    26      8       u64 length of the document list = D + 1
    34      4 D     i32 tokens in each sequence
            8 D     i64 byte position of each sequence in the payload
            8 D+8   i64 document list: 0, 1, ... D

Everything is little-endian. One sequence per document, because Megatron's GPTDataset shuffles sequences and would
tear a document's segments apart; the segments lie beside it in `shard-00000.segments.parquet`.

Source:
    Megatron-LM, megatron/core/datasets/indexed_dataset.py (the reader that tests open these files with).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShardError
from multitok.shards.files import DurableFile
from multitok.shards.info import payload_bounds
from multitok.shards.mapping import map_file

HEADER = struct.Struct("<9sQBQQ")
MAGIC = b"MMIDIDX\0\0"
VERSION = 1
DTYPE_CODES = {"uint16": 8, "int32": 4}
_CHUNK_DOCUMENTS = 1 << 16


def write_index(file: DurableFile, lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> None:
    """Write the index of a payload whose documents follow each other without gaps.

    Args:
        file: Where to.
        lengths: [D] tokens in each document.
        dtype: The payload's dtype.
    """
    count = len(lengths)
    file.write(HEADER.pack(MAGIC, VERSION, DTYPE_CODES[dtype.name], count, count + 1))
    file.write(np.ascontiguousarray(lengths, "<i4"))
    file.write(payload_bounds(lengths, dtype.itemsize).astype("<i8", copy=False))
    for start in range(0, count + 1, _CHUNK_DOCUMENTS):
        file.write(np.arange(start, min(start + _CHUNK_DOCUMENTS, count + 1), dtype="<i8"))


def map_index(
    path: Path, dtype: np.dtype[Any], num_documents: int, payload_bytes: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Map an index into memory and check it against its payload's size; reads the header and the last entry.

    Args:
        path: The `.idx` file.
        dtype: The payload's dtype according to the commit record.
        num_documents: Documents according to the commit record.
        payload_bytes: Size of the payload.
    Returns:
        Lengths in tokens [D] and byte positions [D], read-only views of the file.
    Raises:
        ShardError: Not a Megatron index, cut short, or of another payload.
    """
    raw = map_file(path)
    size = len(raw)
    if size < HEADER.size:
        raise ShardError(f"{path} has {size} bytes, an index has at least {HEADER.size}: it is cut short")
    magic, version, code, count, listed = HEADER.unpack(raw[: HEADER.size].tobytes())
    if magic != MAGIC or version != VERSION:
        raise ShardError(f"{path} starts with {magic!r} and version {version}, not with {MAGIC!r} and {VERSION}")
    if code != DTYPE_CODES[dtype.name]:
        raise ShardError(f"{path} has dtype code {code}, its record says {dtype.name}, code {DTYPE_CODES[dtype.name]}")
    if (count, listed) != (num_documents, num_documents + 1):
        raise ShardError(f"{path} lists {count} sequences in {listed - 1} documents, its record says {num_documents}")
    expected = HEADER.size + 12 * count + 8 * (count + 1)
    if size != expected:
        raise ShardError(f"{path} has {size} bytes, an index of {count} documents has {expected}: it is cut short")
    lengths = np.frombuffer(raw, "<i4", count, HEADER.size)
    pointers = np.frombuffer(raw, "<i8", count, HEADER.size + 4 * count)
    end = int(pointers[-1]) + int(lengths[-1]) * dtype.itemsize if count else 0
    if end != payload_bytes:
        raise ShardError(f"{path} describes a payload of {end} bytes, the payload has {payload_bytes}")
    return lengths, pointers
