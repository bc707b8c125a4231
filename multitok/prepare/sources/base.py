"""What every kind of source offers: a plan of slices, and the items of one slice.

A source is planned once, in order, without holding its items: it yields slices, each about as large as asked
for. Any process can later read any slice by its numbers alone. What `start` and `stop` count is the kind's own
matter (bytes of a JSONL file, rows of a Parquet file, bytes of a tar, bytes of a folder's listing).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from multitok.prepare.routing import Routing

# What an item costs besides its bytes (a file to open, a header to read), so that a shard of tiny files does
# not become a shard of millions of them.
ITEM_COST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of an item: a text as it stands, a file's bytes, or a file still to be read.

    Args:
        name: File name, which gives the format ("a.png"); for inline text only what messages call it.
        tokenizer: Name of the tokenizer in the vocabulary; None lets the content decide.
        content: `str` is inline text, `bytes` a file's content, `Path` a file to read.
        num_bytes: Size that the plan recorded for the file; it must still have it. None where the plan did not see it.
    """

    name: str
    tokenizer: str | None
    content: str | bytes | Path
    num_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One document as the source holds it, nothing decoded.

    Args:
        id: Unique in its source; becomes the document's id.
        source: Label of its source.
        place: Where in the source, for people: "byte 1204", "row 17", a path.
        parts: In segment order.
        by_record: Its one file becomes a document for each record in it (FASTA).
    """

    id: str
    source: str
    place: str
    parts: tuple[Part, ...]
    by_record: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that cannot become a document, and why: one line of a quarantine file."""

    id: str
    source: str
    place: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of items: `start` and `stop` in the source's own count, and the input bytes they stand for."""

    start: int
    stop: int
    num_bytes: int


@dataclass(slots=True)
class Findings:
    """What planning a source found besides its slices.

    Args:
        skipped: What was left out and how often: {"files ending in .xyz": 3}.
        notes: Facts that reading a slice needs again (sorted JSON values).
    """

    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class Source(ABC):
    """One thing named on the command line.

    Args:
        path: Where it is.
        label: Name in IDs and messages, unique in the job; holds no folder, so that moved sources give equal output.
        routing: Which tokenizer takes which file or key.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, label: str, routing: Routing) -> None:
        self.path = path
        self.label = label
        self.routing = routing

    @abstractmethod
    def identity(self) -> tuple[int, str]:
        """Bytes, and a digest of sizes and modification times: both change when the source does."""

    @abstractmethod
    def plan(self, slice_bytes: int, listing: Path, findings: Findings) -> Iterator[Slice]:
        """Yield slices of about `slice_bytes` input bytes in order; `listing` may be written while doing so.

        Raises:
            JobError: The source as a whole cannot be used.
        """

    @abstractmethod
    def read(self, part: Slice, listing: Path, notes: frozenset[str]) -> Iterator[Item | Rejected]:
        """The items of one slice, in order.

        Raises:
            JobError: The source is not what was planned.
        """

    @property
    def media_root(self) -> Path:
        """The folder that relative media references start from."""
        return self.path.parent


def stat_digest(path: Path) -> tuple[int, str]:
    """Identity of a source that is one file."""
    status = path.stat()
    return status.st_size, f"{status.st_size}:{status.st_mtime_ns}"
