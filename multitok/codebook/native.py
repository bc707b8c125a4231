"""The native codebook search, `libmultitok_codebook.so`, through ctypes; native/README.md says what is in it.

Nothing is loaded at import, and torch never is. Every call releases the GIL, may come from several threads at
once, and works on memory by address: the caller keeps its arrays alive until the call returns.

Threads are kept in one pool a process: started by the first search large enough, replaced when another number
is asked for, and never inherited by a forked child, which starts its own.

    MULTITOK_NATIVE=0           switches the native search off
    MULTITOK_NATIVE_PATH=name   prepares every codebook for this path alone: tests and benchmarks

N vectors, V codes, D dimensions.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import weakref
from pathlib import Path
from typing import NamedTuple

from multitok.errors import InputError, SpecError

INTERFACE_VERSION = 1
LIBRARY = "libmultitok_codebook.so"
MAX_NEAREST = 16
REBUILD = "pip install --force-reinstall --no-deps --no-cache-dir multitok  (in a repository: make native)"

# The numbers of native/multitok_codebook.h.
DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}
METRICS = {"l2": 0, "cosine": 1, "dot": 2}
_OK, _NOT_FINITE, _OUT_OF_MEMORY, _UNSUPPORTED = range(4)
_AUTO = 0
_MAX_PATHS = 32  # bits of mt_supported_paths

# Multiply-adds below which waking a thread costs more than it saves.
_WORK_FOR_ONE_THREAD = 2**18


class NotFiniteError(InputError):
    """A NaN or an infinity in row `row`; the public edge names the array and the value."""

    def __init__(self, row: int) -> None:
        super().__init__(row)

    @property
    def row(self) -> int:
        """The first row that holds one, counted from 0."""
        row: int = self.args[0]
        return row

    def __str__(self) -> str:
        return f"row {self.row} holds a NaN or an infinity"


class Matrix(NamedTuple):
    """Where a matrix [rows, dim] lies in memory; the values of a row are contiguous.

    Args:
        pointer: Address of the first value.
        dtype: A key of `DTYPES`.
        rows: Vectors or codes.
        dim: Values a row.
        row_stride: Values from one row to the next, at least `dim`.
    """

    pointer: int
    dtype: str
    rows: int
    dim: int
    row_stride: int


class Statistics(ctypes.Structure):
    """How the search went, added up over the calls it is given to.

    `rows`: vectors searched. `groups`: groups of 16 codes compared again in float32 or float64.
    `decided_double`: vectors whose code needed float64. `scanned`: vectors compared with every code, because no
    bound held for them.
    """

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("decided_double", ctypes.c_int64),
        ("scanned", ctypes.c_int64),
    )
    rows: int
    groups: int
    decided_double: int
    scanned: int


def available() -> str | None:
    """None where the native search can be used, else "the reason why not; what to do"."""
    if os.environ.get("MULTITOK_NATIVE") == "0":
        return "switched off by MULTITOK_NATIVE=0; unset MULTITOK_NATIVE"
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def library_path() -> Path | None:
    """The library file in use or to be used; None where there is none."""
    package = Path(__file__).parent
    root = package.parents[1]
    candidates = [package / LIBRARY]
    if (root / "native" / "multitok_codebook.h").exists():  # a repository: what `make native` built
        candidates.append(root / "build" / "native" / LIBRARY)
    return next((path for path in candidates if path.exists()), None)


def supported_paths() -> list[str]:
    """Names of the search paths that run on this processor, in the order of their numbers; needs `available`."""
    library = loaded_library()
    bits = library.mt_supported_paths()
    return [name for number, name in _path_names().items() if bits >> number & 1]


class NativeCodebook:
    """A codebook [V, D] prepared by the library, which copies the values. Immutable.

    Args:
        values: The codes.
        metric: A key of `METRICS`.
        path: Name of the search path; None: MULTITOK_NATIVE_PATH, and where that is unset too the fastest for
            each search, by a measured rule.

    Raises:
        NotFiniteError: A code is not finite.
        SpecError: The path is unknown, does not run here or not for this codebook.
        MemoryError: The prepared codebook does not fit.
    """

    def __init__(self, values: Matrix, *, metric: str, path: str | None = None) -> None:
        library = loaded_library()
        named = path or os.environ.get("MULTITOK_NATIVE_PATH") or None
        handle = ctypes.c_void_p()
        bad_row = ctypes.c_int64(-1)
        status = library.mt_codebook_new(
            values.pointer, DTYPES[values.dtype], values.rows, values.dim, METRICS[metric],
            _AUTO if named is None else _path_number(named), ctypes.byref(handle), ctypes.byref(bad_row),
        )  # fmt: skip
        _check(
            status,
            bad_row,
            f"path {named!r} does not run here, or not for a codebook of this shape and metric {metric!r}",
        )
        self.size, self.dim, self.metric = values.rows, values.dim, metric
        self._handle = handle
        self._call = library.mt_search
        # Not at exit: a daemon thread may still be searching then, and the memory goes with the process.
        weakref.finalize(self, library.mt_codebook_free, handle).atexit = False

    def search(
        self,
        vectors: Matrix,
        *,
        nearest: int,
        codes: int,
        distances: int | None = None,
        threads: int | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        """Find the `nearest` codes of each vector, nearest first, the lower index on ties.

        Args:
            vectors: [N, D] in any dtype, whatever the codebook's.
            nearest: Codes for each vector, 1 to min(V, 16).
            codes: Address of an int32 array [N, nearest] in C order, filled.
            distances: Address of a float64 array [N, nearest] in C order, filled; None where not wanted.
            threads: As for `thread_count`.
            statistics: Added to where given.

        Raises:
            NotFiniteError: A vector is not finite; the arrays then hold anything.
            MemoryError: The threads' working memory does not fit.
        """
        assert vectors.dim == self.dim
        assert 1 <= nearest <= min(self.size, MAX_NEAREST)
        work = vectors.rows * self.size * self.dim
        pool = None if work < _WORK_FOR_ONE_THREAD else thread_pool(thread_count(threads))
        bad_row = ctypes.c_int64(-1)
        status = self._call(
            self._handle, pool and pool.handle, vectors.pointer, DTYPES[vectors.dtype], vectors.rows,
            vectors.row_stride, nearest, codes, distances, ctypes.byref(bad_row),
            None if statistics is None else ctypes.byref(statistics),
        )  # fmt: skip
        if status != _OK:
            _check(status, bad_row, "this search is not possible")

    def path(self, count: int, nearest: int = 1) -> str:
        """Name of the path that a search of `count` vectors for their `nearest` codes takes."""
        return _path_names()[loaded_library().mt_codebook_path(self._handle, count, nearest)]

    @property
    def nbytes(self) -> int:
        """Bytes held by the prepared codebook."""
        held: int = loaded_library().mt_codebook_bytes(self._handle)
        return held


def segment_sums(
    vectors: Matrix,
    *,
    codes: int,
    size: int,
    exponent: int,
    counts: int,
    sums: int,
    threads: int | None = None,
) -> None:
    """Add the number and the sum of the vectors of each code to what `counts` and `sums` hold.

    A value enters as the integer nearest to value * 2^exponent, ties to even, so every order and every split of
    the vectors gives the same sums.

    Args:
        vectors: [N, D].
        codes: Address of an int32 array [N].
        size: V.
        exponent: Such that N * max|value| * 2^exponent < 2^63.
        counts: Address of an int64 array [V].
        sums: Address of an int64 array [V, D] in C order.
        threads: As for `thread_count`.

    Raises:
        NotFiniteError: A vector is not finite; the arrays then hold anything.
        InputError: A code lies outside [0, V); the arrays then hold anything.
        MemoryError: The threads' working memory does not fit.
    """
    library = loaded_library()
    pool = None if vectors.rows * vectors.dim < _WORK_FOR_ONE_THREAD else thread_pool(thread_count(threads))
    bad_row = ctypes.c_int64(-1)
    status = library.mt_segment_sums(
        pool and pool.handle, vectors.pointer, DTYPES[vectors.dtype], vectors.rows, vectors.dim, vectors.row_stride,
        codes, size, exponent, counts, sums, ctypes.byref(bad_row),
    )  # fmt: skip
    if status == _UNSUPPORTED:
        raise InputError(f"a code lies outside [0, {size})")
    _check(status, bad_row, "")


def thread_count(threads: int | None = None) -> int:
    """Threads to use: `threads`, else torch's setting where torch is loaded, else OMP_NUM_THREADS, else all cores.

    Args:
        threads: At least 1, the calling thread included; None for the default.
    """
    if threads is not None:
        if threads < 1:
            raise SpecError(f"threads={threads}: give at least 1, the calling thread, or None for the default")
        return threads
    # getattr: another thread may be in the middle of importing torch.
    from_torch = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if from_torch is not None:
        number: int = from_torch()
        return number
    setting = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if setting.isdecimal() and int(setting) >= 1:
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ThreadPool:
    """A thread pool of the library. Freed when the last search that uses it is done, in the process that made it."""

    def __init__(self, threads: int) -> None:
        library = loaded_library()
        self.threads, self.process = threads, os.getpid()
        # 0 where no thread can be started: searches then run on the calling thread.
        self.handle: int | None = library.mt_pool_new(threads)
        if self.handle is not None:
            weakref.finalize(self, _free_pool, library, self.handle, self.process).atexit = False


def _free_pool(library: ctypes.CDLL, handle: int, process: int) -> None:
    # A forked child has the memory of the pool, but none of its threads to wait for.
    if os.getpid() == process:
        library.mt_pool_free(handle)


_current: ThreadPool | None = None


def thread_pool(threads: int) -> ThreadPool | None:
    """The pool of this process, made or replaced as needed; None for one thread.

    Takes no lock, which a fork could leave locked for ever in the child: two threads that get here together may
    both make a pool, and the one that is not kept goes when its search is done.
    """
    global _current
    if threads == 1:
        return None
    pool = _current
    if pool is None or pool.threads != threads or pool.process != os.getpid():
        _current = pool = ThreadPool(threads)
    return pool


def _check(status: int, bad_row: ctypes.c_int64, unsupported: str) -> None:
    if status == _NOT_FINITE:
        raise NotFiniteError(bad_row.value)
    if status == _OUT_OF_MEMORY:
        raise MemoryError("the native codebook search ran out of memory")
    if status == _UNSUPPORTED:
        raise SpecError(f"{unsupported}; paths that run here: {', '.join(supported_paths())}")
    assert status == _OK, status


@functools.cache
def _path_names() -> dict[int, str]:
    names = {number: loaded_library().mt_path_name(number) for number in range(_MAX_PATHS)}
    return {number: name.decode() for number, name in names.items() if name is not None}


def _path_number(name: str) -> int:
    numbers = {known: number for number, known in _path_names().items()}
    if name not in numbers:
        raise SpecError(f"unknown search path {name!r}; paths that run here: {', '.join(supported_paths())}")
    return numbers[name]


def loaded_library() -> ctypes.CDLL:
    """The library, its codebook functions declared; needs `available`."""
    loaded = _load()
    assert not isinstance(loaded, str), f"ask available() first: {loaded}"
    return loaded


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library with its signatures declared, or why there is none and what to do."""
    path = library_path()
    if path is None:
        return f"{LIBRARY} was not built, for want of a C++ compiler; install g++, then {REBUILD}"
    try:
        library = ctypes.CDLL(str(path))
        library.mt_interface_version.restype = ctypes.c_int32
        version = library.mt_interface_version()
        if version != INTERFACE_VERSION:
            return f"{path} has interface version {version}, multitok here needs {INTERFACE_VERSION}; {REBUILD}"
        _declare(library)
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded: {error}; {REBUILD}"
    return library


def _declare(library: ctypes.CDLL) -> None:
    i32, i64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    signatures: dict[str, tuple[type | None, tuple[type, ...]]] = {
        "mt_supported_paths": (ctypes.c_uint32, ()),
        "mt_path_name": (ctypes.c_char_p, (i32,)),
        "mt_pool_new": (pointer, (i32,)),
        "mt_pool_threads": (i32, (pointer,)),
        "mt_pool_free": (None, (pointer,)),
        "mt_codebook_new": (i32, (pointer, i32, i64, i64, i32, i32, pointer, pointer)),
        "mt_codebook_free": (None, (pointer,)),
        "mt_codebook_path": (i32, (pointer, i64, i64)),
        "mt_codebook_bytes": (i64, (pointer,)),
        "mt_search": (i32, (pointer, pointer, pointer, i32, i64, i64, i64, pointer, pointer, pointer, pointer)),
        "mt_segment_sums": (i32, (pointer, pointer, i32, i64, i64, i64, pointer, i64, i32, pointer, pointer, pointer)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
