"""The AMX search on a processor that need not have AMX: its tile instructions done in software, in two ways.

`native_sources/amx_emulation.h` takes the place of the instructions in the source, with three orders of summation;
`amx_trap.h` catches the real instructions of the compiled code. Both show what is computed, not how fast.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.codebook import reference

NATIVE = Path(__file__).parents[2] / "native"
SOURCES = Path(__file__).parent / "native_sources"
PLAIN = ["api", "book", "values", "segment_sums", "thread_pool", "paths_portable", "cpu_features"]
COMMON = ["-std=gnu++17", "-O1", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-DMULTITOK_HAVE_AMX",
          "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # fmt: skip
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma"]
AMX = ["-mamx-tile", "-mamx-bf16"]

METRICS = {"l2": 0, "cosine": 1, "dot": 2}
TYPES = {"float32": 0, "float64": 1, "float16": 2}
DIMS = [1, 2, 3, 4, 8, 9, 10, 16, 31, 32, 33, 64, 100, 256, 1024]

Floats = NDArray[np.float32]


def cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(found.group(1).split()) if found else set()


NEEDED = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"}
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the emulation of AMX is written for Linux"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif(not cpu_flags() >= NEEDED, reason="the rest of the AMX search runs on AVX-512 with BF16"),
]


def compile_file(source: Path, to: Path, *flags: str) -> Path:
    """Compiles one file; its own folder comes first where headers are looked for, then native/."""
    command = ["g++", *COMMON, *flags, f"-I{NATIVE}", f"-I{SOURCES}", "-c", str(source), "-o", str(to)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


class Library:
    """The native library with the AMX search in it, and what amx_check.cpp lays open."""

    def __init__(self, path: Path) -> None:
        self.call = ctypes.CDLL(str(path))
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        for name, result, arguments in [
            ("amx_fault", ctypes.c_char_p, []),
            ("amx_is_real", ctypes.c_int32, []),
            ("amx_trap_instructions", number, [ctypes.c_int32]),
            ("amx_set_modes", ctypes.c_uint32, [ctypes.c_uint32]),
            ("amx_open", pointer, [pointer, ctypes.c_int32, number, number, ctypes.c_int32]),
            ("amx_close", None, [pointer]),
            ("amx_centre", None, [pointer, pointer]),
            ("amx_unit", number, [pointer]),
            ("amx_rows_per_block", number, [pointer]),
            ("amx_propose", None, [pointer, pointer, number, pointer, pointer]),
            ("mt_pool_new", pointer, [ctypes.c_int32]),
            ("mt_pool_free", None, [pointer]),
            ("mt_codebook_new", ctypes.c_int32, [pointer, ctypes.c_int32, number, number, ctypes.c_int32,
                                                 ctypes.c_int32, pointer, pointer]),
            ("mt_codebook_free", None, [pointer]),
            ("mt_search", ctypes.c_int32, [pointer, pointer, pointer, ctypes.c_int32, number, number, number, pointer,
                                           pointer, pointer, pointer]),
        ]:  # fmt: skip
            function = getattr(self.call, name)
            function.restype, function.argtypes = result, arguments

    def fault(self) -> str | None:
        found = self.call.amx_fault()
        return found.decode() if found else None


class Proposal(NamedTuple):
    """Maxima [N, units] of the scores, slack [N], the centre [D] and the codes of a unit."""

    maxima: Floats
    slack: Floats
    centre: Floats
    unit: int
    rows_per_block: int


def propose(library: Library, vectors: Floats, codebook: Floats, metric: str) -> Proposal | None:
    """None where the codebook has no bound, so that the search takes another path."""
    assert vectors.dtype == codebook.dtype == np.float32
    call = library.call
    size, dim = codebook.shape
    book = call.amx_open(codebook.ctypes.data, TYPES[codebook.dtype.name], size, dim, METRICS[metric])
    if not book:
        return None
    unit = call.amx_unit(book)
    groups = (size + 15) // 16
    units = (groups + unit - 1) // unit
    maxima = np.full((len(vectors), units), np.nan, np.float32)
    slack = np.full(len(vectors), np.nan, np.float32)
    centre = np.full(dim, np.nan, np.float32)
    call.amx_centre(book, centre.ctypes.data)
    call.amx_trap_instructions(1)
    call.amx_propose(book, vectors.ctypes.data, len(vectors), maxima.ctypes.data, slack.ctypes.data)
    call.amx_trap_instructions(0)
    block = call.amx_rows_per_block(book)
    call.amx_close(book)
    return Proposal(maxima, slack, centre, 16 * unit, block)


class Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("rows", "groups", "decided_double", "scanned")]


class Found(NamedTuple):
    codes: NDArray[np.int32]
    distances: NDArray[np.float64]
    scanned: int


def search(
    library: Library, vectors: Any, codebook: Any, metric: str = "l2", k: int = 1, distances: bool = True,
    threads: int = 1,
) -> Found:  # fmt: skip
    """Through the C interface, on path 5 (MT_AMX)."""
    call = library.call
    (count, dim), size = vectors.shape, len(codebook)
    handle, bad_row, statistics = ctypes.c_void_p(), ctypes.c_int64(-1), Statistics()
    status = call.mt_codebook_new(
        codebook.ctypes.data, TYPES[codebook.dtype.name], size, dim, METRICS[metric], 5, ctypes.byref(handle),
        ctypes.byref(bad_row),
    )  # fmt: skip
    assert status == 0
    codes, found = np.full((count, k), -1, np.int32), np.full((count, k), np.nan)
    pool = call.mt_pool_new(threads)
    call.amx_trap_instructions(1)
    status = call.mt_search(
        handle, pool, vectors.ctypes.data, TYPES[vectors.dtype.name], count, dim, k, codes.ctypes.data,
        found.ctypes.data if distances else None, ctypes.byref(bad_row), ctypes.byref(statistics),
    )  # fmt: skip
    call.amx_trap_instructions(0)
    call.mt_pool_free(pool)
    call.mt_codebook_free(handle)
    assert status == 0
    return Found(codes, found, statistics.scanned)


# ---- data -----------------------------------------------------------------------------------------------------------


def gaussian(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    return rng.standard_normal((count, dim), np.float32), rng.standard_normal((size, dim), np.float32)


def clustered(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    middles = rng.standard_normal((8, dim), np.float32)
    vectors, codebook = gaussian(rng, count, size, dim)
    near = np.float32(0.02)
    return middles[rng.integers(8, size=count)] + vectors * near, middles[rng.integers(8, size=size)] + codebook * near


def tight(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    vectors, codebook = gaussian(rng, count, size, dim)
    return 1 + vectors * np.float32(1e-4), 1 + codebook * np.float32(1e-4)


def offset(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    vectors, codebook = gaussian(rng, count, size, dim)
    return 100 + vectors, 100 + codebook


def huge(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    """Some rows beyond the squares of float32, some to its very end; a codebook that is still bounded."""
    vectors, codebook = gaussian(rng, count, size, dim)
    scales = np.array([1e12, 1e17, 1e25, 1e38, 3e38], np.float32)
    return np.clip(vectors, -1, 1) * scales[np.arange(count) % 5, None], codebook * np.float32(1e12)


def tiny(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    vectors, codebook = gaussian(rng, count, size, dim)
    return vectors * np.float32(1e-13), codebook * np.float32(1e-13)


def denormal(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    """Denormal rows, and denormal values among those of codes and rows."""
    vectors, codebook = gaussian(rng, count, size, dim)
    vectors[::2] *= np.float32(1e-39)
    for values in (vectors, codebook):
        values[rng.random(values.shape) < 0.3] *= np.float32(1e-40)
    return vectors, codebook


def coherent(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    """Values just under half a unit of bfloat16, all alike: every rounding errs the same way, as far as it can."""
    ulps = 1 + rng.integers(1, 3, size=(count, 1)) * 2.0**-8 - 2.0**-20
    vectors = np.repeat(ulps * rng.choice([-1, 1], size=(count, 1)), dim, axis=1).astype(np.float32)
    half = np.repeat(1 + rng.integers(0, 3, size=(size // 2 + 1, 1)) * 2.0**-7 + 2.0**-8 - 2.0**-20, dim, axis=1)
    codebook = np.concatenate([half, -half])[:size].astype(np.float32)
    return vectors, codebook


def ties(rng: np.random.Generator, count: int, size: int, dim: int) -> tuple[Floats, Floats]:
    vectors, codebook = rng.integers(-2, 3, size=(count, dim)), rng.integers(-2, 3, size=(size, dim))
    return vectors.astype(np.float32), codebook.astype(np.float32)


Family = Callable[[np.random.Generator, int, int, int], tuple[Floats, Floats]]
FAMILIES: list[Family] = [gaussian, clustered, tight, offset, huge, tiny, denormal, coherent, ties]

# ---- checks ---------------------------------------------------------------------------------------------------------


def true_maxima(vectors: Floats, codebook: Floats, metric: str, centre: Floats, unit: int) -> NDArray[np.float64]:
    """[N, units] largest score of each unit, as native/amx.h defines it, in float64."""
    a = vectors.astype(np.float64) - centre.astype(np.float64)
    b = codebook.astype(np.float64) - centre.astype(np.float64)
    if metric == "cosine":
        lengths = np.linalg.norm(b, axis=1, keepdims=True)
        b = np.divide(b, lengths, out=np.zeros_like(b), where=lengths > 0)
    scores = a @ b.T
    if metric == "l2":
        scores -= (b * b).sum(1) / 2
    starts = np.arange(0, len(codebook), unit)
    maxima: NDArray[np.float64] = np.maximum.reduceat(scores, starts, axis=1)
    return maxima


def bound_problem(library: Library, vectors: Floats, codebook: Floats, metric: str) -> str | None:
    """What is wrong with the proposal, or None."""
    made = propose(library, vectors, codebook, metric)
    if made is None:
        return "not bounded"
    bounded = made.slack < np.inf
    truth = true_maxima(vectors, codebook, metric, made.centre, made.unit)
    if not np.isfinite(made.maxima).all():
        return "a maximum is not finite"
    if not (made.slack > 0).all():
        return "a slack is not positive"
    error = np.abs(made.maxima - truth).max(axis=1)
    if (error > made.slack.astype(np.float64) / 2)[bounded].any():
        return f"error {np.max((error / made.slack)[bounded]):.3g} of the slack"
    return library.fault()


def search_problem(library: Library, vectors: Any, codebook: Any, metric: str = "l2", k: int = 1) -> str | None:
    found = search(library, vectors, codebook, metric, k)
    wanted = reference.search(vectors, codebook, metric, k)
    if not np.array_equal(found.codes, wanted.codes):
        return f"{(found.codes != wanted.codes).any(1).sum()} of {len(vectors)} rows wrong"
    return library.fault()


# ---- libraries ------------------------------------------------------------------------------------------------------


def compile_plain(folder: Path, *flags: str) -> None:
    for name in PLAIN:
        renamed = ["-Dcpu_features=cpu_features_of_this_processor"] if name == "cpu_features" else []
        compile_file(NATIVE / f"{name}.cpp", folder / f"{name}.o", *renamed, *flags)


def build(objects: Path, folder: Path, *flags: str) -> Path:
    """The library with the AMX files of `folder`, or of native/ where it has none."""
    folder.mkdir(exist_ok=True)
    changed = folder / "amx_build.cpp"
    parts = [
        compile_file(SOURCES / "amx_check.cpp", folder / "check.o", f"-I{folder}", *AVX512, *flags),
        compile_file(changed if changed.exists() else NATIVE / "amx_build.cpp", folder / "build.o", *flags),
        *[objects / f"{name}.o" for name in PLAIN],
    ]
    library = folder / "library.so"
    subprocess.run(["g++", "-shared", *flags, "-o", library, *parts, "-lpthread"], check=True)
    return library


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of object files of everything that is not AMX."""
    folder = tmp_path_factory.mktemp("amx")
    compile_plain(folder)
    return folder


@pytest.fixture(scope="module")
def emulated(objects: Path) -> Library:
    return Library(build(objects, objects / "emulated"))


@pytest.fixture(scope="module")
def trapped(objects: Path) -> Iterator[Library]:
    """The real instructions, compiled as for the wheel."""
    library = Library(build(objects, objects / "trapped", "-DAMX_TRAP", "-O3", *AMX))
    yield library
    assert library.fault() is None


# ---- the bound ------------------------------------------------------------------------------------------------------


def check_bounds(library: Library) -> None:
    rng = np.random.default_rng(9)
    for dim in DIMS:
        for family in FAMILIES:
            for metric in METRICS:
                vectors, codebook = family(rng, 21, 70, dim)
                problem = bound_problem(library, vectors, codebook, metric)
                assert problem is None, (family.__name__, dim, metric, problem)


def test_proposals_keep_their_bound(emulated: Library) -> None:
    check_bounds(emulated)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_proposals_keep_their_bound_in_other_orders(objects: Path, order: int) -> None:
    check_bounds(Library(build(objects, objects / f"order{order}", f"-DAMX_ORDER={order}")))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 63, 65])
@pytest.mark.parametrize("dim", [2, 40])
def test_any_number_of_codes(emulated: Library, size: int, dim: int) -> None:
    vectors, codebook = gaussian(np.random.default_rng(size), 40, size, dim)
    for metric in METRICS:
        assert bound_problem(emulated, vectors, codebook, metric) is None
        assert search_problem(emulated, vectors, codebook, metric) is None


def test_slack_is_small_for_gaussian_data(emulated: Library) -> None:
    """So that the bound is of use: few codes lie within it."""
    for dim, most in [(4, 2.0**-13), (9, 2.0**-13), (10, 2.0**-7), (256, 2.0**-7), (1024, 2.0**-7)]:
        vectors, codebook = gaussian(np.random.default_rng(dim), 50, 300, dim)
        made = propose(emulated, vectors, codebook, "l2")
        assert made is not None
        lengths = np.linalg.norm(vectors, axis=1) + np.linalg.norm(codebook, axis=1).max()
        assert (made.slack < most * lengths**2).all()


def test_rows_without_a_bound_have_an_infinite_slack(emulated: Library) -> None:
    vectors, codebook = gaussian(np.random.default_rng(0), 40, 50, 12)
    vectors[3] *= np.float32(1e30)
    vectors[39, 11] = np.float32(3e38)
    made = propose(emulated, vectors, codebook, "l2")
    assert made is not None
    assert np.flatnonzero(np.isinf(made.slack)).tolist() == [3, 39]
    found = search(emulated, vectors, codebook)
    assert found.scanned == 2
    assert search_problem(emulated, vectors, codebook) is None


def test_large_codebooks_share_maxima(emulated: Library) -> None:
    vectors, codebook = gaussian(np.random.default_rng(1), 33, 140_000, 2)
    made = propose(emulated, vectors, codebook, "l2")
    assert made is not None
    assert made.unit == 32
    assert bound_problem(emulated, vectors, codebook, "l2") is None
    assert search_problem(emulated, vectors, codebook) is None


# ---- searches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_searches_agree_with_the_definition(emulated: Library, family: Family) -> None:
    rng = np.random.default_rng(2)
    for dim in DIMS:
        for metric in METRICS:
            vectors, codebook = family(rng, 21, 70, dim)
            k = int(rng.choice([1, 3, 16]))
            assert search_problem(emulated, vectors, codebook, metric, k) is None, (dim, metric, k)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types(emulated: Library, dtype: str) -> None:
    rng = np.random.default_rng(3)
    for dim in (3, 40):
        vectors = (3 + rng.standard_normal((70, dim)) * 1e-3).astype(dtype)
        codebook = (3 + rng.standard_normal((90, dim)) * 1e-3).astype(dtype)
        for metric in METRICS:
            assert search_problem(emulated, vectors, codebook, metric) is None


@pytest.mark.parametrize("dim", [5, 40, 1024])
@pytest.mark.parametrize("threads", [1, 3])
def test_several_blocks_and_threads(emulated: Library, dim: int, threads: int) -> None:
    vectors, codebook = gaussian(np.random.default_rng(4), 1100, 40, dim)
    made = propose(emulated, vectors, codebook, "l2")
    assert made is not None
    assert made.rows_per_block < len(vectors)
    assert bound_problem(emulated, vectors, codebook, "l2") is None
    found = search(emulated, vectors, codebook, distances=False, threads=threads)
    assert np.array_equal(found.codes, reference.search(vectors, codebook).codes)
    assert emulated.fault() is None


def test_modes_of_the_calling_thread_do_not_matter(emulated: Library) -> None:
    """Codes whose distances differ by roundings alone, searched with truncation and denormals flushed."""
    rng = np.random.default_rng(5)
    codebook = rng.permuted(np.tile(rng.standard_normal(12, np.float32), (64, 1)), axis=1)
    vectors = np.zeros((17, 12), np.float32)
    toward_zero, flush, as_usual = 0x6000, 0x8040, 0x1F80
    before = emulated.call.amx_set_modes(as_usual | toward_zero | flush)
    found = search(emulated, vectors, codebook, k=8)
    after = emulated.call.amx_set_modes(before)
    assert after & 0xFFC0 == as_usual | toward_zero | flush
    wanted = reference.search(vectors, codebook, k=8)
    assert np.array_equal(found.codes, wanted.codes)
    assert np.array_equal(found.distances, wanted.distances)


# ---- the real instructions ------------------------------------------------------------------------------------------


def test_real_instructions(trapped: Library) -> None:
    """The compiled code of the real search, each of its tile instructions done in software (or by the processor)."""
    rng = np.random.default_rng(6)
    before = trapped.call.amx_trap_instructions(0)
    for dim in (1, 4, 9, 10, 33, 64, 256, 1024):
        for family in FAMILIES:
            vectors, codebook = family(rng, 40, 70, dim)
            for metric in METRICS:
                assert bound_problem(trapped, vectors, codebook, metric) is None, (family.__name__, dim, metric)
            assert search_problem(trapped, vectors, codebook, k=2) is None, (family.__name__, dim)
    trapped_now = trapped.call.amx_trap_instructions(0)
    assert trapped.call.amx_is_real() or trapped_now > before
    assert trapped.fault() is None


def test_real_instructions_on_threads(trapped: Library) -> None:
    vectors, codebook = gaussian(np.random.default_rng(7), 1100, 100, 20)
    found = search(trapped, vectors, codebook, threads=3)
    assert np.array_equal(found.codes, reference.search(vectors, codebook).codes)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump")
def test_instructions_in_the_compiled_code(objects: Path, trapped: Library) -> None:
    listing = subprocess.run(["objdump", "-d", objects / "trapped" / "check.o"], capture_output=True, text=True).stdout
    for name in ("ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored", "tdpbf16ps"):
        assert re.search(rf"\b{name}\b", listing), name


# ---- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["-DAMX_TRAP", *AMX]], ids=["emulated", "trapped"])
def test_address_sanitizer(tmp_path: Path, flags: list[str]) -> None:
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_plain(tmp_path, *sanitize)
    build(tmp_path, tmp_path / "amx", *flags, *sanitize)
    script = f"""
from tests.codebook.test_amx import Library, Path, first_problem
problem = first_problem(Library(Path({str(tmp_path / "amx" / "library.so")!r})))
assert problem is None, problem
"""
    found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=NATIVE.parent,
        env={**os.environ, "LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0:handle_sigill=0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


# ---- seeded mistakes ------------------------------------------------------------------------------------------------


class Mistake(NamedTuple):
    """What is put in place of `right`, which stands in the file once."""

    file: str
    right: str
    wrong: str


MISTAKES = {
    "stride of a tile": Mistake("search", "_tile_loadd(5, codes + apart, 64);", "_tile_loadd(5, codes + apart, 32);"),
    "no slack": Mistake("search", "return slack < infinity ? slack : infinity;",
                        "return slack < infinity ? slack * 1e-30f : infinity;"),
    "no norm": Mistake("search", "return kFolded ? sum : sum - splat(half_norm[code]);", "return sum;"),
    "column of the fold": Mistake("search", "columns[d] = columns[2 * dim + d] = high;",
                                  "columns[d] = columns[2 * dim] = high;"),
    "last codes": Mistake("search", "group < tile.groups; group += 2) {\n        for (int64_t pair",
                          "group < tile.groups - 2; group += 2) {\n        for (int64_t pair"),
    "last step": Mistake("search", "for (int64_t step = 0; step < steps; step++",
                         "for (int64_t step = 0; step + 1 < steps; step++"),
    "last part": Mistake("search", "left < kMostSteps ? left : kMostSteps);", "kMostSteps - 1);"),
    "last maxima": Mistake("search", "    enter_maxima<kFolded>(tile, last_sums, last_group, last_pair, scratch);\n}",
                           "}"),
    "sums not cleared": Mistake("search", "            clear_sums();\n            multiply", "            multiply"),
    "sums of parts lost": Mistake("search", "step ? load_sums(sums) : clear_sums();", "clear_sums();"),
    "neighbours exchanged": Mistake("search", "line_of(even, odd));", "line_of(odd, even));"),
    "tiles not configured": Mistake("search", "_tile_loadconfig(&config);", "(void)config;"),
    "tiles not released": Mistake("search", "MT_INLINE ~Tiles() { _tile_release(); }", "MT_INLINE ~Tiles() {}"),
    "lines of a tile": Mistake("search", "config.lines[tile] = 16;", "config.lines[tile] = tile < 4 ? 16 : 8;"),
    "maxima not shared": Mistake("search", "store(to + 16, first ? right : lane_max(right, load<Float16>(to + 16)));",
                                 "store(to + 16, right);"),
    "infinite rows multiplied": Mistake("search", "if (bits_of(bounded) != 0xffffu) {", "if (false) {"),
    "residual of odd values": Mistake("search", "add_square(measures.residual, y[i + 1] - odd);", ""),
    "residual of the fold": Mistake("search", "add_square(measures.residual, rest - low);", ""),
    "low part not measured": Mistake("search", "add_square(measures.low, low);", ""),
    "centre forgotten": Mistake("search", "d, dim - d) - centre;", "d, dim - d);"),
    "modes of the thread": Mistake("search", "_mm_setcsr(0x1f80);", ""),
    "codes that do not exist": Mistake("build", "constexpr float kLowest = 3e38f;", "constexpr float kLowest = 0;"),
    "column of the codes": Mistake("build", "at(dim + d) = bits_of(piece[0]);", "at(dim + d) = bits_of(piece[1]);"),
    "norm of the fold": Mistake("build", "for (int i = 0; i < 3; i++) at(3", "for (int i = 0; i < 1; i++) at(3"),
    "error of codes": Mistake("build", "twice * (code_error + reading + other + roundings * (largest.high",
                              "twice * (reading + other + roundings * (largest.high"),
    "product left out": Mistake("build", "code_error + reading + other + largest.low + roundings",
                                "code_error + reading + other + roundings"),
    "error of the row": Mistake("build", "round_up(twice * (norm + reading + other));", "round_up(0);"),
}  # fmt: skip


def first_problem(library: Library) -> str | None:
    """A small choice of the tests above."""
    rng = np.random.default_rng(8)
    for dim in (3, 9, 40, 1024):
        for family in (gaussian, tight, huge, coherent):
            for metric in METRICS:
                problem = bound_problem(library, *family(rng, 40, 70, dim), metric)
                if problem:
                    return f"{family.__name__}, {dim}, {metric}: {problem}"
        problem = search_problem(library, *gaussian(rng, 40, 70, dim))
        if problem:
            return problem
    try:
        test_modes_of_the_calling_thread_do_not_matter(library)
        test_large_codebooks_share_maxima(library)
    except AssertionError as error:
        return str(error) or "failed"
    return None


def caught(objects: Path, folder: Path, mistake: Mistake) -> str | None:
    source = NATIVE / f"amx_{mistake.file}.cpp"
    text = source.read_text()
    assert text.count(mistake.right) == 1
    (folder / source.name).write_text(text.replace(mistake.right, mistake.wrong))
    return first_problem(Library(build(objects, folder, "-Wno-unused", "-Wno-error")))


def test_no_mistake_is_no_problem(emulated: Library) -> None:
    assert first_problem(emulated) is None


FAST = ["no slack", "column of the fold"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in MISTAKES]
)
def test_mistakes_are_caught(objects: Path, tmp_path: Path, name: str) -> None:
    assert caught(objects, tmp_path, MISTAKES[name]) is not None
