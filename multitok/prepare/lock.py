"""One job at a time in a folder, by kernel locks that end with the process that holds them.

The job holds `.lock`. Each of its workers holds a shared lock on `plan.json`, so a job that follows a killed one
can wait until the last worker of that one is gone: a lock left by a dead process does not exist.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from multitok.errors import JobError
from multitok.prepare.plan import PLAN

LOCK = ".lock"
_ORPHANS_S = 30.0
# `status` holds the lock for an instant to see whether it is free.
_GLANCE_S = 0.5


@contextmanager
def job_lock(out: Path) -> Iterator[None]:
    """Hold the folder for one job; the lock file is gone afterwards.

    Yields:
        Nothing.
    Raises:
        JobError: Another process works in the folder.
    """
    path = out / LOCK
    deadline = time.monotonic() + _GLANCE_S
    while True:
        file = path.open("a+")
        locked = _try_lock(file, fcntl.LOCK_EX)
        # Its last holder may have removed the file between open and lock: then this lock guards nothing.
        if locked and _is_at(path, file):
            break
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        if not locked and time.monotonic() > deadline:
            raise JobError(
                f"{out} is being prepared by process {owner} already: wait for it, or prepare into another folder"
            )
        time.sleep(0.02)
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _await_orphans(out)
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def is_locked(out: Path) -> bool:
    """Whether a job is at work in the folder."""
    try:
        with (out / LOCK).open() as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def hold_as_worker(out: Path) -> IO[str]:
    """Take a worker's share of the lock; it lasts as long as the returned file is open."""
    file = (out / PLAN).open()
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _await_orphans(out: Path) -> None:
    if not (out / PLAN).exists():
        return
    with (out / PLAN).open("r+") as file:
        deadline = time.monotonic() + _ORPHANS_S
        while not _try_lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise JobError(
                    f"workers of an earlier job still hold {out / PLAN} after {_ORPHANS_S:.0f} s: "
                    "end those processes, then run the same command again"
                )
            time.sleep(0.02)


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
