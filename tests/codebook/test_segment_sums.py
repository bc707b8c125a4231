"""native/segment_sums.cpp against exact arithmetic, as compiled for each instruction set."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.codebook.compiled import NATIVE, SOURCES, compile_program, run_program

OK, NOT_FINITE, OUT_OF_MEMORY, UNSUPPORTED = range(4)
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}
# Longest common run of columns, shorter runs, single ones, and more than one thread's share.
DIMS = (1, 3, 4, 7, 8, 16, 31, 40, 100)


class Library:
    """mt_segment_sums with pools of its own."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        self.c.mt_pool_new.restype = pointer
        self.c.mt_segment_sums.argtypes = [
            pointer, pointer, i32, i64, i64, i64, pointer, i64, i32, pointer, pointer, pointer,
        ]  # fmt: skip
        self.pools: dict[int, int | None] = {1: None}

    def add(self, case: Case, exponent: int, threads: int, counts: NDArray[Any], sums: NDArray[Any]) -> tuple[int, int]:
        """Status and bad row."""
        if threads not in self.pools:
            self.pools[threads] = self.c.mt_pool_new(threads)
        bad_row = ctypes.c_int64(-1)
        stride = case.stored.strides[0] // case.stored.itemsize
        status = self.c.mt_segment_sums(
            self.pools[threads], case.stored.ctypes.data, TYPES[case.dtype], *case.stored.shape, stride,
            case.codes.ctypes.data, len(counts), exponent, counts.ctypes.data, sums.ctypes.data, ctypes.byref(bad_row),
        )  # fmt: skip
        return status, bad_row.value

    def sums(self, case: Case, size: int, exponent: int, threads: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
        counts, sums = np.zeros(size, np.int64), np.zeros((size, case.stored.shape[1]), np.int64)
        assert self.add(case, exponent, threads, counts, sums) == (OK, -1)
        return counts, sums

    def close(self) -> None:
        for pool in filter(None, self.pools.values()):
            self.c.mt_pool_free(ctypes.c_void_p(pool))


class Case(NamedTuple):
    """Vectors as they are stored (bfloat16: the upper halves of float32), their codes, and their values."""

    dtype: str
    stored: NDArray[Any]
    codes: NDArray[np.int32]

    @property
    def values(self) -> NDArray[np.float64]:
        if self.dtype == "bfloat16":
            return (self.stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return self.stored.astype(np.float64)


def make(values: NDArray[Any], codes: Any, dtype: str) -> Case:
    if dtype == "bfloat16":
        stored = (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        stored = np.ascontiguousarray(values, dtype)
    return Case(dtype, stored, np.ascontiguousarray(codes, np.int32))


def reference(case: Case, size: int, exponent: int) -> tuple[list[int], list[list[int]]]:
    """Python's exact fractions; `round` takes ties to even."""
    counts, sums = [0] * size, [[0] * case.stored.shape[1] for _ in range(size)]
    for row, code in zip(case.values.tolist(), case.codes.tolist(), strict=True):
        counts[code] += 1
        for d, value in enumerate(row):
            sums[code][d] += round(Fraction(value) * Fraction(2) ** exponent)
    return counts, sums


def processor_has(flag: str) -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and flag in info.read_text(encoding="utf-8").split()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    path = compile_program(
        tmp_path_factory.mktemp("sums") / "sums.so", SOURCES / "segment_sums_library.cpp", NATIVE / "segment_sums.cpp",
        NATIVE / "thread_pool.cpp", flags=("-O3", "-fPIC", "-shared", "-fvisibility=hidden"),
    )  # fmt: skip
    opened = Library(path)
    yield opened
    opened.close()


@pytest.fixture(params=["portable", "avx2", "avx512"])
def library(request: pytest.FixtureRequest, compiled: Library) -> Library:
    level = ["portable", "avx2", "avx512"].index(request.param)
    if level and not processor_has(("avx2", "avx512dq")[level - 1]):
        pytest.skip(f"this processor has no {request.param}")
    compiled.c.allow(level >= 1, level >= 2)
    return compiled


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("dim", DIMS)
def test_sums_are_exact(library: Library, dtype: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    values = rng.standard_normal((150, dim)) * 2.0 ** rng.integers(-12, 4, (150, dim))
    case = make(values, rng.integers(0, 5, 150), dtype)
    finest = 62 - 8 - int(np.ceil(np.log2(np.abs(case.values).max())))  # 150 values below 2^8
    for exponent in (finest, 30, 3, 0, -2):
        counts, sums = library.sums(case, 5, exponent)
        assert (counts.tolist(), sums.tolist()) == reference(case, 5, exponent)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_value_of_the_short_types(library: Library, dtype: str) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    finite = (bits & 0x7FFF) < (0x7C00 if dtype == "float16" else 0x7F80)
    bits = bits[finite]
    stored = (bits.view(np.float16) if dtype == "float16" else bits).reshape(-1, 32)
    case = Case(dtype, stored, np.arange(len(stored), dtype=np.int32))
    if dtype == "bfloat16":  # from 2^-133 to 2^127: no exponent fits all of them
        small = np.abs(case.values).max(axis=1) < 2
        case = Case(dtype, np.ascontiguousarray(stored[small]), np.arange(small.sum(), dtype=np.int32))
    exponent = 24 if dtype == "float16" else 61
    assert library.sums(case, len(case.stored), exponent)[1].tolist() == reference(case, len(case.stored), exponent)[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ties_go_to_even_at_every_size(library: Library, dtype: str) -> None:
    # Around the limits of one and of two rounding additions, 2^51 and 2^63, and around 0.
    steps = [0.5 * step for step in range(-9, 10)]
    large = [2.0**power + step for power in (20, 50, 51, 52) for step in steps]
    limits = [np.nextafter(2.0**power, side) for power in (51, 52, 62, 63) for side in (0, 2.0**64)][:-1]
    values = np.array([steps + large + limits], dtype)
    values = np.concatenate([values, -values])
    values = values[:, np.abs(values[0].astype(np.float64)) < 2.0**63]
    case = make(values, [0, 1], dtype)
    for exponent in (0, -1):
        assert library.sums(case, 2, exponent)[1].tolist() == reference(case, 2, exponent)[1]


@pytest.mark.parametrize("exponent", [1022, -900])
def test_exponents_far_out(library: Library, exponent: int) -> None:
    # Subnormal products become 0, subnormal values are read as what they are.
    values = np.array([[5e-324, 3e-308, -(2.0**-1000), 1.5 * 2.0**-1022, 0.0, 2.0**950 * 3]])
    values[np.abs(values) > 2.0 ** (40 - exponent)] = 0
    case = make(values, [0], "float64")
    assert library.sums(case, 1, exponent)[1].tolist() == reference(case, 1, exponent)[1]


@pytest.mark.parametrize(("rows", "dim", "size"), [(30_000, 8, 20), (30_000, 100, 3000), (9_000, 33, 7), (2, 5, 2)])
def test_the_same_for_every_number_of_threads(library: Library, rows: int, dim: int, size: int) -> None:
    rng = np.random.default_rng(0)
    case = make(rng.standard_normal((rows, dim)), rng.integers(0, size, rows), "float32")
    counts, sums = library.sums(case, size, 40)
    integers = np.rint(case.values * 2.0**40).astype(np.int64)
    expected = np.zeros_like(sums)
    np.add.at(expected, case.codes, integers)
    assert np.array_equal(sums, expected)
    assert np.array_equal(counts, np.bincount(case.codes, minlength=size))
    for threads in (2, 3, 4):
        other = library.sums(case, size, 40, threads)
        assert np.array_equal(other[0], counts)
        assert np.array_equal(other[1], sums)


def test_it_adds_to_what_is_there(library: Library) -> None:
    case = make(np.ones((3, 2)), [0, 1, 0], "float32")
    counts, sums = np.array([5, 6], np.int64), np.array([[1, 2], [-3, 4]], np.int64)
    assert library.add(case, 1, 1, counts, sums) == (OK, -1)
    assert counts.tolist() == [7, 7]
    assert sums.tolist() == [[5, 6], [-1, 6]]


def test_rows_may_lie_apart(library: Library) -> None:
    wide = np.random.default_rng(1).standard_normal((50, 30)).astype(np.float32)
    codes = np.arange(50, dtype=np.int32) % 4
    apart, together = Case("float32", wide[:, 3:20], codes), make(wide[:, 3:20], codes, "float32")
    assert np.array_equal(library.sums(apart, 4, 20)[1], library.sums(together, 4, 20)[1])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite(library: Library, dtype: str, threads: int, bad: float) -> None:
    for dim, size in ((5, 10), (100, 2000)):  # shared by vectors, shared by columns
        values = np.ones((20_000, dim))
        values[[19_999, 12_345, 17_000], [0, dim - 1, dim // 2]] = bad
        case = make(values, np.zeros(len(values)), dtype)
        counts, sums = np.zeros(size, np.int64), np.zeros((size, dim), np.int64)
        assert library.add(case, 10, threads, counts, sums) == (NOT_FINITE, 12_345)


@pytest.mark.parametrize("codes", [[0, 3], [-1, 0], [2**31 - 1, 0]])
def test_a_code_outside_the_codebook_touches_nothing(library: Library, codes: list[int]) -> None:
    counts, sums = np.zeros(3, np.int64), np.zeros((3, 2), np.int64)
    assert library.add(make(np.ones((2, 2)), codes, "float32"), 0, 1, counts, sums)[0] == UNSUPPORTED
    assert not counts.any()
    assert not sums.any()


def test_a_value_that_does_not_fit(library: Library) -> None:
    counts, sums = np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
    fits = make(np.array([[np.nextafter(2.0**63, 0)]]), [0], "float64")
    assert library.add(fits, 0, 1, counts, sums)[0] == OK
    assert library.add(fits, 1, 1, counts, sums)[0] == UNSUPPORTED
    assert library.add(fits, 1024, 1, counts, sums)[0] == UNSUPPORTED


def test_no_vectors(library: Library) -> None:
    counts, sums = library.sums(make(np.empty((0, 3)), [], "float32"), 2, 10)
    assert not counts.any()
    assert not sums.any()


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_under_sanitizers(tmp_path: Path, sanitizer: str) -> None:
    sources = [SOURCES / "segment_sums_exercise.cpp"]
    sources += [NATIVE / name for name in ("segment_sums.cpp", "thread_pool.cpp", "cpu_features.cpp")]
    flags = ("-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    assert run_program(compile_program(tmp_path / "sums", *sources, flags=flags)) == "equal\n"
