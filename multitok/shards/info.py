"""What a finished shard is: its names, its commit record, its counts.

shard-00000.bin                token IDs, no header, little-endian uint16 or int32
shard-00000.idx                Megatron index: one sequence per document
shard-00000.segments.parquet   one row per segment: what the IDs are and how to decode them
shard-00000.done.json          the commit record, written last; without it the shard does not exist
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShardError
from multitok.protocol import Json, Modality
from multitok.shards.files import TEMPORARY_SUFFIX, FileInfo, read_json, write_json

FORMAT_VERSION = 1
UINT16_VOCAB_SIZE = 65_500
_SHARD_FILE = re.compile(r"^\.?(shard-\d{5,8})\.(bin|idx|segments\.parquet|done\.json)(\.[0-9a-f]{16}\.tmp)?$")


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """The payload's dtype, from the vocabulary's size alone: little-endian uint16 below 65,500 IDs, else int32."""
    return np.dtype("<u2" if vocab_size < UINT16_VOCAB_SIZE else "<i4")


def shard_name(index: int) -> str:
    """ "shard-00000"; the number grows beyond five digits where it must."""
    return f"shard-{index:05d}"


@dataclass(frozen=True)
class Count:
    """Items (segments) and tokens of one modality; the tokens are those inside spans."""

    items: int = 0
    tokens: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.items + other.items, self.tokens + other.tokens)


@dataclass(frozen=True)
class ShardInfo:
    """The commit record of one shard.

    Args:
        index: Number of the shard.
        vocab_size: Number of IDs of the vocabulary; fixes the payload's dtype.
        vocabulary: Fingerprint of the vocabulary.
        num_documents: Documents in the shard.
        num_tokens: Token IDs in the payload.
        counts: Items and tokens of each modality that occurs. Structure tokens belong to none.
        files: Payload, index and segments, in this order.
        note: What the writer's caller adds: JSON values, kept as they are.
    """

    index: int
    vocab_size: int
    vocabulary: str
    num_documents: int
    num_tokens: int
    counts: Mapping[Modality, Count]
    files: tuple[FileInfo, FileInfo, FileInfo]
    note: Mapping[str, Json] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """ "shard-00000", the stem of its files."""
        return shard_name(self.index)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The payload's dtype."""
        return id_dtype(self.vocab_size)

    def to_json(self) -> dict[str, Json]:
        """The record as JSON values; `from_json` inverts it."""
        return {
            "format_version": FORMAT_VERSION,
            "index": self.index,
            "vocab_size": self.vocab_size,
            "dtype": self.dtype.name,
            "vocabulary": self.vocabulary,
            "num_documents": self.num_documents,
            "num_tokens": self.num_tokens,
            "modalities": counts_to_json(self.counts),
            "files": [file.to_json() for file in self.files],
            "note": dict(self.note),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "shard record") -> ShardInfo:
        """Rebuild a record from what `to_json` returned.

        Args:
            data: JSON values.
            where: What to call the record in a message.
        Raises:
            ShardError: Another format version, or a field that is missing or cannot be.
        """
        check_format_version(data, where)
        try:
            files = tuple(FileInfo.from_json(file) for file in data["files"])
            info = cls(
                index=int(data["index"]),
                vocab_size=int(data["vocab_size"]),
                vocabulary=str(data["vocabulary"]),
                num_documents=int(data["num_documents"]),
                num_tokens=int(data["num_tokens"]),
                counts=counts_from_json(data["modalities"]),
                files=files,  # type: ignore[arg-type]  # the names are checked below
                note=dict(data["note"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ShardError(
                f"{where} is damaged ({error!r}): remove the shard's files and run prepare again"
            ) from error
        expected = tuple(f"{info.name}.{suffix}" for suffix in ("bin", "idx", "segments.parquet"))
        if tuple(file.name for file in files) != expected or data["dtype"] != info.dtype.name:
            raise ShardError(
                f"{where} names the files {[file.name for file in files]} of {data['dtype']}; "
                f"shard {info.index} of a vocabulary of {info.vocab_size} IDs has {list(expected)} of {info.dtype.name}"
            )
        return info

    def save(self, folder: Path) -> None:
        """Write `shard-00000.done.json`: from here on the shard counts."""
        write_json(folder / f"{self.name}.done.json", self.to_json())

    @classmethod
    def load(cls, folder: Path, index: int) -> ShardInfo | None:
        """The commit record of a shard, or None where the shard was not finished.

        Raises:
            ShardError: The record is there but damaged.
        """
        path = folder / f"{shard_name(index)}.done.json"
        if not path.exists():
            return None
        info = cls.from_json(read_json(path, "shard record", "remove it and run prepare again"), str(path))
        if info.index != index:
            raise ShardError(f"{path} is the record of shard {info.index}: a file was renamed; copy the folder again")
        return info


def remove_unfinished(folder: Path) -> list[str]:
    """Remove what interrupted writers left: temporary files, and files of shards without a commit record.

    Call it only while nothing else writes these shards.

    Args:
        folder: Where the shards are.
    Returns:
        The names removed, sorted.
    """
    removed = []
    for path in sorted(folder.iterdir()):
        match = _SHARD_FILE.match(path.name)
        if match is None:
            continue
        if path.name.endswith(TEMPORARY_SUFFIX) or not (folder / f"{match[1]}.done.json").exists():
            path.unlink()
            removed.append(path.name)
    return removed


def add_counts(shards: Iterable[ShardInfo]) -> dict[Modality, Count]:
    """Items and tokens of each modality over several shards."""
    total: dict[Modality, Count] = {}
    for shard in shards:
        for modality, count in shard.counts.items():
            total[modality] = total.get(modality, Count()) + count
    return total


def counts_to_json(counts: Mapping[Modality, Count]) -> dict[str, Json]:
    """Counts as JSON values, keyed by the modality's word."""
    return {str(modality): {"items": count.items, "tokens": count.tokens} for modality, count in counts.items()}


def counts_from_json(data: Mapping[str, Any]) -> dict[Modality, Count]:
    """Rebuild counts from what `counts_to_json` returned."""
    return {Modality(word): Count(int(count["items"]), int(count["tokens"])) for word, count in data.items()}


def check_format_version(data: Mapping[str, Any], where: str) -> None:
    """Raise unless this version of the package can read `data`.

    Raises:
        ShardError: Another format version; names both.
    """
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{where} has format_version {version!r}, this multitok reads {FORMAT_VERSION}: "
            "upgrade multitok, or run prepare again into a new folder"
        )


def payload_bounds(lengths: NDArray[np.int32], itemsize: int) -> NDArray[np.int64]:
    """[D] byte position of each document, from the documents' lengths in tokens."""
    pointers = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
    return pointers * itemsize
