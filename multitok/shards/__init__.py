"""Token shards: append-only, checksummed, memory-mapped.

`ShardWriter` writes one shard, `Manifest` declares a set of them finished, `ShardReader` and `ShardSet` read them.
The payload with its index opens in Megatron as it is; the segments file beside it makes the IDs decodable.
"""

from __future__ import annotations

from multitok.shards.files import FileInfo
from multitok.shards.info import Count, ShardInfo, id_dtype, remove_unfinished, shard_name
from multitok.shards.manifest import MANIFEST, Manifest
from multitok.shards.reader import ShardReader, ShardSet
from multitok.shards.segments import SpanTable
from multitok.shards.writer import ShardWriter

__all__ = [
    "MANIFEST",
    "Count",
    "FileInfo",
    "Manifest",
    "ShardInfo",
    "ShardReader",
    "ShardSet",
    "ShardWriter",
    "SpanTable",
    "id_dtype",
    "remove_unfinished",
    "shard_name",
]
