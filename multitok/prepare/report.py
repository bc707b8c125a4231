"""What a job did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitok.protocol import Json, Modality
from multitok.shards import FileInfo, ShardInfo


@dataclass(frozen=True)
class Work:
    """What was spent on one modality in this run: not part of the output, which knows no time."""

    items: int = 0
    tokens: int = 0
    bytes_in: int = 0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.items + other.items,
            self.tokens + other.tokens,
            self.bytes_in + other.bytes_in,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class ModalityReport:
    """One modality's part of the output.

    Args:
        items: Segments.
        tokens: Token IDs inside spans.
        bytes_in: Raw bytes: of the files, or of the text in UTF-8.
        work: What this run did of it, summed over workers; a resumed run did only the rest.
    """

    items: int
    tokens: int
    bytes_in: int
    work: Work

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second and worker, reading and decoding included; None where this run did nothing."""
        return self.work.tokens / self.work.seconds if self.work.seconds > 0 else None


@dataclass(frozen=True)
class JobReport:
    """A finished job.

    Args:
        out: The output folder.
        num_shards: Shards in it.
        num_documents: Documents in it.
        num_tokens: Token IDs in it, structure tokens included.
        num_quarantined: Items that could not become documents.
        bytes_out: Size of the token payloads.
        modalities: Per modality, in the order of `Modality`.
        skipped: What the sources held and the job left out, and how often.
        new_shards: Shards that this run wrote; the others stood already.
        seconds: Wall time of this run.
        workers: Processes it used.
    """

    out: Path
    num_shards: int
    num_documents: int
    num_tokens: int
    num_quarantined: int
    bytes_out: int
    modalities: Mapping[Modality, ModalityReport]
    skipped: Mapping[str, int] = field(default_factory=dict)
    new_shards: int = 0
    seconds: float = 0.0
    workers: int = 0

    @property
    def bytes_in(self) -> int:
        """Raw bytes of all documents."""
        return sum(report.bytes_in for report in self.modalities.values())

    @classmethod
    def build(
        cls,
        out: Path,
        shards: Sequence[ShardInfo],
        work: Mapping[Modality, Work],
        *,
        skipped: Mapping[str, int],
        new_shards: int,
        seconds: float,
        workers: int,
    ) -> JobReport:
        """Add up the shards' commit records; see the class for the arguments."""
        items: dict[Modality, tuple[int, int, int]] = {}
        for shard in shards:
            for modality, count in shard.counts.items():
                before = items.get(modality, (0, 0, 0))
                raw = bytes_in(shard).get(modality, 0)
                items[modality] = (before[0] + count.items, before[1] + count.tokens, before[2] + raw)
        reports = {
            modality: ModalityReport(*items[modality], work.get(modality, Work()))
            for modality in Modality
            if modality in items
        }
        return cls(
            out=out,
            num_shards=len(shards),
            num_documents=sum(shard.num_documents for shard in shards),
            num_tokens=sum(shard.num_tokens for shard in shards),
            num_quarantined=sum(num_quarantined(shard) for shard in shards),
            bytes_out=sum(shard.files[0].size_bytes for shard in shards),
            modalities=reports,
            skipped=dict(skipped),
            new_shards=new_shards,
            seconds=seconds,
            workers=workers,
        )


def shard_note(bytes_in: Mapping[Modality, int], quarantine: Mapping[str, Json] | None, count: int) -> dict[str, Json]:
    """What `prepare` adds to a shard's commit record: raw bytes per modality, and its quarantine file."""
    return {
        "bytes_in": {modality.value: bytes_in[modality] for modality in Modality if modality in bytes_in},
        "num_quarantined": count,
        "quarantine": None if quarantine is None else dict(quarantine),
    }


def bytes_in(shard: ShardInfo) -> dict[Modality, int]:
    """Raw bytes per modality, from a commit record."""
    found: Any = shard.note.get("bytes_in", {})
    return {Modality(word): int(count) for word, count in found.items()}


def num_quarantined(shard: ShardInfo) -> int:
    """Items in the shard's quarantine file, from its commit record."""
    found: Any = shard.note.get("num_quarantined", 0)
    return int(found)


def quarantine_of(shard: ShardInfo) -> list[FileInfo]:
    """The shard's quarantine file, from its commit record: one, or none."""
    found: Any = shard.note.get("quarantine")
    return [] if found is None else [FileInfo.from_json(found)]
