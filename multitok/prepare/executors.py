"""Who runs the workers. An executor is given shard numbers and gives back counts; no item ever passes through it.

| name    | where shards are written                                                              |
|---------|---------------------------------------------------------------------------------------|
| inline  | in this process, one after the other                                                  |
| process | in spawned processes, one shard each at a time; one thread each for numeric libraries |

A worker process ends with its parent, however that ends: it watches a pipe that only the parent holds open.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any, Protocol

from multitok.errors import MultitokError
from multitok.prepare.lock import hold_as_worker
from multitok.prepare.report import Work
from multitok.prepare.worker import JobContext, Worker
from multitok.protocol import Modality

# One shard keeps a process busy; more threads inside would only take the other workers' cores.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_TICK_S = 0.2

Tick = Callable[[int, int], None]
"""Told now and then how many documents and tokens this run has written so far, unfinished shards included."""


@dataclass(frozen=True)
class Failure:
    """What ended a shard.

    Args:
        error: Name of the exception's class.
        message: Its message; with the traceback where it is none of ours.
    """

    error: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure that an exception means."""
        expected = isinstance(error, (MultitokError, OSError, MemoryError))
        message = str(error) if expected else "".join(traceback.format_exception(error))
        return cls(type(error).__name__, message or "no memory left")


Finished = tuple[int, "dict[Modality, Work] | Failure"]


class Executor(Protocol):
    """Writes shards and yields each as it ends, in any order; begins no more after the first failure."""

    def __call__(
        self, context: JobContext, shards: Sequence[int], *, workers: int, tick: Tick | None
    ) -> Generator[Finished, None, None]: ...


def run_inline(
    context: JobContext, shards: Sequence[int], *, workers: int, tick: Tick | None
) -> Generator[Finished, None, None]:
    """Write the shards in this process; `workers` does not matter."""
    worker = Worker(context)
    totals = [0, 0]

    def advance(num_documents: int, num_tokens: int) -> None:
        totals[0] += num_documents
        totals[1] += num_tokens
        if tick is not None:
            tick(*totals)

    for shard in shards:
        try:
            yield shard, worker.write_shard(shard, advance)
        except Exception as error:
            yield shard, Failure.of(error)
            return


def run_processes(
    context: JobContext, shards: Sequence[int], *, workers: int, tick: Tick | None
) -> Generator[Finished, None, None]:
    """Write the shards in `workers` spawned processes."""
    spawn = multiprocessing.get_context("spawn")
    stop, alive = spawn.Pipe(duplex=False)
    totals = spawn.Array("q", [0, 0])
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(context, stop, totals))
    todo = iter(shards)
    running: dict[Future[dict[Modality, Work] | Failure], int] = {}
    failed = False
    try:
        while True:
            # No more in flight than workers, so that every one of them has begun: a death names its shards.
            while not failed and len(running) < workers and (shard := next(todo, None)) is not None:
                with _environment(_ONE_THREAD):
                    running[_submit(pool, shard)] = shard
            if not running:
                return
            ended, _ = wait(running, timeout=_TICK_S if tick is not None else None, return_when=FIRST_COMPLETED)
            if tick is not None:
                tick(*totals.get_obj())
            for future in ended:
                result = _result(future)
                failed = failed or isinstance(result, Failure)
                yield running.pop(future), result
    finally:
        # Whatever still runs ends at once; it leaves temporary files only, which the next run removes.
        alive.close()
        pool.shutdown(wait=True, cancel_futures=True)
        stop.close()


EXECUTORS: dict[str, Executor] = {"inline": run_inline, "process": run_processes}


def _submit(pool: ProcessPoolExecutor, shard: int) -> Future[dict[Modality, Work] | Failure]:
    try:
        return pool.submit(_write_shard, shard)
    except BrokenProcessPool as error:
        # A worker died between two shards, or while the next one was being started.
        refused: Future[dict[Modality, Work] | Failure] = Future()
        refused.set_exception(error)
        return refused


def _result(future: Future[dict[Modality, Work] | Failure]) -> dict[Modality, Work] | Failure:
    try:
        return future.result()
    except BrokenProcessPool:
        return Failure(
            "WorkerDied",
            "its worker process, or one beside it, ended without a word: the system may have ended it for want of "
            "memory (then use fewer workers), or the calling script lacks `if __name__ == '__main__':`",
        )


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---- in the worker process


@dataclass
class _Process:
    """What one worker process keeps between shards."""

    worker: Worker | Failure
    totals: Any
    lock: IO[str]


_process: _Process | None = None


def _start_worker(context: JobContext, stop: Connection, totals: Any) -> None:
    global _process
    # An interrupt from the keyboard reaches all processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = hold_as_worker(context.out)
    # With the lock held, a parent that is alive now cannot be followed by another job before this process is gone.
    if stop.poll():
        os._exit(1)
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
    worker: Worker | Failure
    try:
        worker = Worker(context)
    except Exception as error:
        worker = Failure.of(error)
    _process = _Process(worker, totals, lock)


def _end_with_parent(stop: Connection) -> None:
    stop.poll(None)
    os._exit(1)


def _write_shard(shard: int) -> dict[Modality, Work] | Failure:
    assert _process is not None
    if isinstance(_process.worker, Failure):
        return _process.worker
    totals = _process.totals

    def advance(num_documents: int, num_tokens: int) -> None:
        with totals.get_lock():
            totals[0] += num_documents
            totals[1] += num_tokens

    try:
        return _process.worker.write_shard(shard, advance)
    except Exception as error:
        return Failure.of(error)
