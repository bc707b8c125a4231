"""The tree search for codes of few dimensions, compiled by itself, against the definition."""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.codebook import reference
from tests.codebook.compiled import FLAGS, NATIVE, SOURCES
from tests.codebook.families import FAMILIES, draw

PATHS = {"avx2": 6, "avx512": 7}
# As in native/CMakeLists.txt.
INSTRUCTIONS = {
    "tree_avx2.cpp": ["-mavx2", "-mfma"],
    "tree_avx512.cpp": [f"-mavx512{part}" for part in ("f", "bw", "dq", "vl")] + ["-mfma", "-Wno-uninitialized"],
}
FILES = [*INSTRUCTIONS, "tree_build.cpp", "book.cpp", "values.cpp", "cpu_features.cpp"]
SIZES = (1, 2, 15, 16, 17, 255, 256, 257, 600)
DIMS = range(1, 11)

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the tree search is written for x86-64"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]

Floats = NDArray[np.float32]


class Statistics(ctypes.Structure):
    """`mt_statistics` of native/multitok_codebook.h."""

    rows: int
    groups: int
    decided_double: int
    scanned: int
    _fields_ = [(name, ctypes.c_int64) for name in ("rows", "groups", "decided_double", "scanned")]


class Found(NamedTuple):
    """Codes [N] int32 and distances [N] float64."""

    codes: NDArray[np.int32]
    distances: NDArray[np.float64]
    statistics: Statistics


class Tree:
    """A prepared codebook [V, D] float32."""

    def __init__(self, library: ctypes.CDLL, codebook: Floats) -> None:
        self.library, self.dim = library, codebook.shape[1]
        values = np.ascontiguousarray(codebook)
        self.book = library.tree_open(values.ctypes.data, *values.shape)
        assert self.book

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.tree_close(self.book)

    def codes_in_order(self) -> NDArray[np.int32]:
        """Indices of the codes in kd order [leaves * 16], -1 where there is none."""
        count = self.library.tree_leaves(self.book) * 16
        return np.array(self.library.tree_codes(self.book)[:count], np.int32)

    def search(self, path: str, vectors: Floats, *, flush: bool = False) -> Found:
        """Codes of the vectors [N, D] float32, whose rows may be further apart."""
        assert vectors.strides[1] == 4
        found = Found(np.full(len(vectors), -7, np.int32), np.full(len(vectors), np.nan), Statistics())
        stride = vectors.strides[0] // 4
        arguments = (vectors.ctypes.data, len(vectors), stride, flush, found.codes.ctypes.data)
        statistics = ctypes.byref(found.statistics)
        self.library.tree_search(self.book, PATHS[path], *arguments, found.distances.ctypes.data, statistics)
        codes_alone = np.full(len(vectors), -7, np.int32)
        arguments = (*arguments[:-1], codes_alone.ctypes.data)
        self.library.tree_search(self.book, PATHS[path], *arguments, None, ctypes.byref(Statistics()))
        np.testing.assert_array_equal(found.codes, codes_alone)
        return found


def compile_file(source: Path, to: Path) -> Path:
    command = ["g++", *FLAGS, "-O1", "-fPIC", "-Werror", "-Wno-psabi", *INSTRUCTIONS.get(source.name, [])]
    done = subprocess.run([*command, "-c", str(source), "-o", str(to)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("tree")
    sources = [*(NATIVE / name for name in FILES), SOURCES / "tree_driver.cpp"]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda source: compile_file(source, folder / f"{source.stem}.o"), sources))
    whole = folder / "tree.so"
    subprocess.run(["g++", "-shared", *map(str, objects), "-o", str(whole)], check=True)
    loaded = ctypes.CDLL(str(whole))
    pointer, number, small = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "tree_runs": (small, [small]),
        "tree_takes": (small, [number, number]),
        "tree_open": (pointer, [pointer, number, number]),
        "tree_close": (None, [pointer]),
        "tree_top": (number, [pointer]),
        "tree_leaves": (number, [pointer]),
        "tree_codes": (ctypes.POINTER(small), [pointer]),
        "tree_search": (None, [pointer, small, pointer, number, number, small, pointer, pointer, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, library: ctypes.CDLL) -> str:
    name: str = request.param
    if not library.tree_runs(PATHS[name]):
        pytest.skip(f"this processor has no {name}")
    return name


@functools.cache
def known(family: str, count: int, size: int, dim: int) -> tuple[Floats, Floats, reference.Reference]:
    vectors, codebook = draw(family, "float32", count, size, dim, seed=size * 16 + dim)
    return vectors, codebook, reference.search(vectors, codebook)


def check(found: Found, expected: reference.Reference) -> None:
    np.testing.assert_array_equal(found.codes, expected.codes[:, 0])
    np.testing.assert_array_equal(found.distances, expected.distances[:, 0])


@pytest.mark.parametrize("family", FAMILIES)
def test_same_codes_as_the_definition(library: ctypes.CDLL, path: str, family: str) -> None:
    for dim in DIMS:
        for size in SIZES:
            vectors, codebook, expected = known(family, 9, size, dim)
            with Tree(library, codebook) as tree:
                check(tree.search(path, vectors), expected)


@pytest.mark.parametrize("dim", [1, 3, 4, 6, 8, 10])
@pytest.mark.parametrize("family", ["gaussian", "tight", "integers"])
def test_many_codes(library: ctypes.CDLL, path: str, family: str, dim: int) -> None:
    """Enough boxes within the limits to fill the lists of waiting nodes, and blocks that end within 64 vectors."""
    vectors, codebook, expected = known(family, 150, 5000, dim)
    with Tree(library, codebook) as tree:
        check(tree.search(path, vectors), expected)


@pytest.mark.parametrize(("size", "top"), [(512, 0), (513, 1), (8192, 1), (8193, 2), (140_000, 3)])
def test_levels(library: ctypes.CDLL, path: str, size: int, top: int) -> None:
    vectors, codebook, expected = known("gaussian", 20, size, 2)
    with Tree(library, codebook) as tree:
        assert tree.library.tree_top(tree.book) == top
        check(tree.search(path, vectors), expected)


@pytest.mark.parametrize("size", [1, 16, 17, 257, 513, 8193])
def test_every_code_stands_in_one_place(library: ctypes.CDLL, size: int) -> None:
    for family in ("gaussian", "one code"):
        with Tree(library, draw(family, "float32", 1, size, 3).codebook) as tree:
            order = tree.codes_in_order()
            assert sorted(order[order >= 0].tolist()) == list(range(size))


def test_rows_apart_and_off_alignment(library: ctypes.CDLL, path: str) -> None:
    vectors, codebook, expected = known("clustered", 150, 600, 5)
    apart = np.full((150, 12), np.nan, np.float32)
    apart[:, 3:8] = vectors
    with Tree(library, codebook) as tree:
        check(tree.search(path, apart[:, 3:8]), expected)


def test_more_rows_than_a_block(library: ctypes.CDLL, path: str) -> None:
    vectors, codebook, expected = known("gaussian", 2100, 300, 3)
    with Tree(library, codebook) as tree:
        check(tree.search(path, vectors), expected)


@pytest.mark.parametrize("dim", [3, 4, 6, 8, 10])
def test_ties_that_float32_rounds_apart(library: ctypes.CDLL, path: str, dim: int) -> None:
    """Around each vector, 30 codes at one distance exactly, whose squares are added in another order in each."""
    rng = np.random.default_rng(dim)
    vectors = rng.integers(-(2**22), 2**22, (100, dim))
    offsets = rng.permuted(np.repeat(rng.integers(2**12, 2**16, (100, 1, dim)), 30, axis=1), axis=2)
    offsets *= rng.choice([-1, 1], offsets.shape)
    codebook = rng.permutation((vectors[:, None] + offsets).reshape(-1, dim)).astype(np.float32)
    expected = reference.search(vectors, codebook)
    assert (expected.distances[:, 0] == (offsets[:, 0] ** 2).sum(1)).all()
    with Tree(library, codebook) as tree:
        found = tree.search(path, vectors.astype(np.float32))
    check(found, expected)
    assert found.statistics.decided_double == 100


@pytest.mark.parametrize(("flush", "unit"), [(False, 2**-74.5), (True, 2**-63.0)])
def test_squares_that_underflow_one_by_one(library: ctypes.CDLL, path: str, flush: bool, unit: float) -> None:
    """The nearer code has one large difference; those of the other code, a little smaller, vanish when squared."""
    lost, kept = (0.7, 0.84) if not flush else (0.995, 1.005)
    for dim in DIMS[1:]:
        codebook = np.full((2, dim), lost * unit, np.float32)
        codebook[1] = 0
        codebook[1, dim // 2] = kept * unit
        with Tree(library, codebook) as tree:
            assert tree.search(path, np.zeros((1, dim), np.float32), flush=flush).codes.tolist() == [1]


@pytest.mark.parametrize("scale", [1e-17, 1e-19, 1e-20, 1e-22, 1e-30])
def test_flushed_denormals(library: ctypes.CDLL, path: str, scale: float) -> None:
    """Squares that float32 holds as denormals or not at all, where the processor is told to flush."""
    vectors, codebook = (np.float32(scale) * part for part in known("gaussian", 100, 600, 4)[:2])
    with Tree(library, codebook) as tree:
        check(tree.search(path, vectors, flush=True), reference.search(vectors, codebook))


def test_statistics_tell_how_it_went(library: ctypes.CDLL, path: str) -> None:
    def counts(family: str) -> Statistics:
        vectors, codebook, _ = known(family, 100, 5000, 3)
        with Tree(library, codebook) as tree:
            return tree.search(path, vectors).statistics

    usual, equal, overflowing = counts("gaussian"), counts("one code"), counts("largest")
    assert 100 <= usual.groups < 600  # of 31,300 leaves in all
    assert (usual.decided_double, usual.scanned) == (0, 0)
    assert equal.groups >= 31_300
    assert (equal.decided_double, equal.scanned) == (100, 0)
    assert overflowing.scanned > 0


@pytest.mark.parametrize(
    ("size", "dim", "takes"),
    [(1, 1, True), (2**24, 10, True), (100, 11, False), (100, 0, False), (0, 3, False), (2**31, 4, False)],
)
def test_sizes_it_takes(library: ctypes.CDLL, size: int, dim: int, takes: bool) -> None:
    assert library.tree_takes(size, dim) == takes
