"""Items that cannot become documents: kept with their reason, counted against a budget.

    shard-00000.quarantine.jsonl    {"id": ..., "source": ..., "place": ..., "error": ..., "message": ...}

One line an item, in the order of the source; the file exists only where a shard has such items, and its sha256
stands in the shard's commit record. A reason says nothing of this machine or this run.
"""

from __future__ import annotations

import errno
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from multitok.errors import (
    CheckpointError,
    JobError,
    RegistryError,
    ShardError,
    VocabularyError,
)
from multitok.prepare.report import num_quarantined
from multitok.prepare.sources import Item, Rejected
from multitok.shards import ShardInfo, shard_name
from multitok.shards.files import DurableFile, FileInfo

DEFAULT_BUDGET = 0.01
# A share means little for the first few items: so many may always fail, unless nothing else succeeds.
ALWAYS_ALLOWED = 10

# The file is not there or not ours to read: it will be so tomorrow. Any other failure of the system (a full or
# broken disk, a lost network) says nothing about the item, so it ends the shard instead.
_ITEM_ERRNO = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
}
_JOB_ERRORS = (
    MemoryError,
    ImportError,
    RegistryError,
    CheckpointError,
    VocabularyError,
    ShardError,
    JobError,
)
# torch has no MemoryError: its GPUs raise a RuntimeError of their own, its main memory a plain one.
_TORCH_OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory")
_MAX_MESSAGE = 500
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def is_items_fault(error: Exception) -> bool:
    """Whether an error says something about the item, so that it would come again on any machine."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _JOB_ERRORS) or (isinstance(seen, OSError) and seen.errno not in (*_ITEM_ERRNO, None)):
            return False
        if isinstance(seen, RuntimeError) and _TORCH_OUT_OF_MEMORY.search(str(seen)):
            return False
        seen = seen.__cause__
    return True


def reject(item: Item, error: Exception, root: Path) -> Rejected:
    """The quarantine record of an item that failed.

    Args:
        item: The item.
        error: What it raised.
        root: Folder whose name must not stand in the reason: it is this machine's.
    """
    if isinstance(error, OSError) and error.errno is not None:
        message = f"{error.filename or item.place}: {error.strerror}"
    else:
        message = str(error) or type(error).__name__
    message = " ".join(_ADDRESS.sub("0x...", message.replace(f"{root}/", "")).split())
    return Rejected(item.id, item.source, item.place, type(error).__name__, message[:_MAX_MESSAGE])


class QuarantineFile:
    """Collects one shard's rejected items; there is no file until the first one.

    Args:
        out: The output folder.
        shard: Number of the shard.
    """

    def __init__(self, out: Path, shard: int) -> None:
        self.count = 0
        self._path = out / quarantine_name(shard)
        self._file: DurableFile | None = None

    def add(self, rejected: Rejected) -> None:
        """Append one item."""
        if self._file is None:
            self._file = DurableFile(self._path)
        record = {name: _readable(getattr(rejected, name)) for name in ("id", "source", "place", "error", "message")}
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self.count += 1

    def finish(self) -> FileInfo | None:
        """Put the file in place, before the commit record that names it; None where there is none."""
        if self._file is None:
            return None
        info = self._file.finish()
        self._file.rename()
        return info

    def discard(self) -> None:
        """Remove what was written unless it is finished."""
        if self._file is not None:
            self._file.discard()


def quarantine_name(shard: int) -> str:
    """Name of a shard's quarantine file."""
    return f"{shard_name(shard)}.quarantine.jsonl"


def read_quarantine(out: Path, shards: Iterable[int]) -> Iterator[Rejected]:
    """The rejected items of shards that have some, in order."""
    for shard in shards:
        with (out / quarantine_name(shard)).open(encoding="utf-8") as lines:
            for line in lines:
                yield Rejected(**json.loads(line))


class Budget:
    """How many items may end in quarantine before the job stops.

    Args:
        out: The output folder.
        allowed: An int is a number of items; a float from 0 to 1 a share of them.
    """

    def __init__(self, out: Path, allowed: float) -> None:
        self._out = out
        self._allowed = allowed
        self._shards: list[int] = []
        self._failed = self._total = 0

    def add(self, shard: ShardInfo) -> None:
        """Count a finished shard."""
        failed = num_quarantined(shard)
        self._failed += failed
        self._total += failed + shard.num_documents
        if failed:
            self._shards.append(shard.index)

    def check(self, *, finished: bool) -> None:
        """Raise if more items failed than allowed.

        Args:
            finished: No shard is left to do.
        Raises:
            JobError: Says how many failed, the commonest reasons, and where they are.
        """
        share = isinstance(self._allowed, float)
        allowed = max(ALWAYS_ALLOWED, self._allowed * self._total) if share else self._allowed
        nothing_left = finished and self._failed == self._total and share and self._allowed < 1
        if self._failed <= allowed and not nothing_left:
            return
        kinds: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for rejected in read_quarantine(self._out, sorted(self._shards)):
            kinds[rejected.error] += 1
            examples.setdefault(rejected.error, f"{rejected.id}: {rejected.message}")
        reasons = "; ".join(f"{count} x {error} (first: {examples[error]})" for error, count in kinds.most_common(3))
        raise JobError(
            f"{self._failed} of {self._total} items could not be encoded, more than error_budget={self._allowed} "
            f"allows: {reasons}. All are listed in {self._out}/shard-*.quarantine.jsonl; what is done is kept. If they "
            "may be left out, run the same command with a larger error budget; if not, repair the sources and use a "
            "new folder"
        )


def _readable(text: str) -> str:
    # Names that are not UTF-8 arrive with surrogates, which no UTF-8 file can hold.
    return text.encode("utf-8", "backslashreplace").decode()
