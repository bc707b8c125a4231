"""The loader of the native search: what it hands over, what it refuses, when it gives up and what it then says."""

from __future__ import annotations

import ctypes.util
import json
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok import doctor
from multitok.codebook import native
from multitok.codebook.native import Matrix, NativeCodebook, NotFiniteError, Statistics
from multitok.errors import InputError, SpecError
from tests.codebook.compiled import compile_program
from tests.codebook.reference import search as reference

needs_library = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
PATHS = native.supported_paths() if native.available() is None else []


def matrix(values: NDArray[Any]) -> Matrix:
    # The caller keeps `values`: a pointer does not.
    return Matrix(values.ctypes.data, values.dtype.name, *values.shape, values.strides[0] // values.itemsize)


def nearest(
    book: NativeCodebook, vectors: NDArray[Any], k: int = 1, **options: Any
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    codes, distances = np.full((len(vectors), k), -1, np.int32), np.full((len(vectors), k), np.nan)
    book.search(matrix(vectors), nearest=k, codes=codes.ctypes.data, distances=distances.ctypes.data, **options)
    return codes, distances


def data(seed: int, rows: int, dim: int, dtype: str = "float32") -> NDArray[Any]:
    # One decimal: many near-ties and some exact ones.
    return np.random.default_rng(seed).standard_normal((rows, dim)).round(1).astype(dtype)


@needs_library
class TestSearch:
    @pytest.mark.parametrize("metric", native.METRICS)
    @pytest.mark.parametrize("path", PATHS)
    def test_every_path_gives_the_defined_codes(self, path: str, metric: str) -> None:
        codebook, vectors = data(1, 300, 5), data(2, 400, 5)
        if path.startswith("tree") and metric != "l2":
            with pytest.raises(SpecError, match=f"path '{path}' does not run here, or not for .* metric '{metric}'"):
                NativeCodebook(matrix(codebook), metric=metric, path=path)
            return
        book = NativeCodebook(matrix(codebook), metric=metric, path=path)
        codes, _ = nearest(book, vectors, k=4)
        assert codes.tolist() == reference(vectors, codebook, metric, k=4).codes.tolist()

    @pytest.mark.parametrize("of_codes", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("of_vectors", ["float16", "float32", "float64"])
    def test_dtypes_mix(self, of_codes: str, of_vectors: str) -> None:
        codebook, vectors = data(1, 70, 12, of_codes), data(2, 50, 12, of_vectors)
        codes, distances = nearest(NativeCodebook(matrix(codebook), metric="l2"), vectors)
        expected = reference(vectors, codebook)
        assert codes.tolist() == expected.codes.tolist()
        assert distances.tolist() == expected.distances.tolist()

    def test_rows_may_lie_apart(self) -> None:
        wide, codebook = data(1, 90, 20), data(2, 33, 7)
        codes, _ = nearest(NativeCodebook(matrix(codebook), metric="l2"), wide[::2, 3:10])
        assert codes.tolist() == reference(wide[::2, 3:10], codebook).codes.tolist()

    def test_the_codebook_is_a_copy(self) -> None:
        codebook, vectors = data(1, 64, 8), data(2, 64, 8)
        book = NativeCodebook(matrix(codebook), metric="l2")
        before, _ = nearest(book, vectors)
        codebook[:] = np.nan
        assert nearest(book, vectors)[0].tolist() == before.tolist()
        assert book.nbytes >= 64 * 8 * 4

    def test_no_vectors_no_codes(self) -> None:
        codebook = data(1, 64, 8)
        codes, _ = nearest(NativeCodebook(matrix(codebook), metric="l2"), np.empty((0, 8), np.float32))
        assert codes.shape == (0, 1)

    def test_threads_do_not_change_the_codes(self) -> None:
        codebook, vectors = data(1, 256, 16), data(2, 3000, 16)
        book, counted = NativeCodebook(matrix(codebook), metric="l2"), Statistics()
        expected = reference(vectors, codebook).codes.tolist()
        for threads in (1, 2, 5, None):
            assert nearest(book, vectors, threads=threads, statistics=counted)[0].tolist() == expected
        assert counted.rows == 4 * len(vectors)

    def test_several_python_threads_share_a_codebook_and_a_pool(self) -> None:
        codebook, vectors = data(1, 256, 16), data(2, 3000, 16)
        book = NativeCodebook(matrix(codebook), metric="l2")
        expected = reference(vectors, codebook).codes.tolist()
        wrong = []

        def repeat(threads: int) -> None:
            for _ in range(20):
                wrong.extend([threads] if nearest(book, vectors, threads=threads)[0].tolist() != expected else [])

        callers = [threading.Thread(target=repeat, args=(threads,)) for threads in (2, 3, 3, 1)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert wrong == []

    def test_the_first_row_that_is_not_finite_is_named(self) -> None:
        codebook, vectors = data(1, 256, 16), data(2, 3000, 16)
        book = NativeCodebook(matrix(codebook), metric="l2")
        vectors[[2999, 1700, 1850], [0, 15, 3]] = np.nan, -np.inf, np.inf
        for threads in (1, 3):
            with pytest.raises(NotFiniteError, match="row 1700 holds") as caught:
                nearest(book, vectors, threads=threads)
            assert caught.value.row == pickle.loads(pickle.dumps(caught.value)).row == 1700
        codebook[7, 3] = np.nan
        with pytest.raises(InputError, match="row 7 holds"):
            NativeCodebook(matrix(codebook), metric="l2")

    def test_a_path_can_be_forced_from_outside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        codebook = data(1, 256, 16)
        monkeypatch.setenv("MULTITOK_NATIVE_PATH", "portable")
        assert NativeCodebook(matrix(codebook), metric="l2").path(1000) == "portable"
        monkeypatch.setenv("MULTITOK_NATIVE_PATH", "warp")
        with pytest.raises(SpecError, match="unknown search path 'warp'; paths that run here: portable"):
            NativeCodebook(matrix(codebook), metric="l2")

    def test_codebooks_are_freed(self) -> None:
        codebook = data(1, 2048, 64)
        pages = Path("/proc/self/statm")
        if not pages.exists():
            pytest.skip("needs /proc")
        held = NativeCodebook(matrix(codebook), metric="l2").nbytes
        before = int(pages.read_text().split()[1]) * 4096
        for _ in range(100):
            NativeCodebook(matrix(codebook), metric="l2")
        assert int(pages.read_text().split()[1]) * 4096 - before < 20 * held


@needs_library
def test_segment_sums_add_to_what_is_there() -> None:
    vectors, codes = data(1, 500, 6), np.random.default_rng(0).integers(0, 9, 500, dtype=np.int32)
    counts, sums = np.ones(9, np.int64), np.ones((9, 6), np.int64)
    where = {"codes": codes.ctypes.data, "counts": counts.ctypes.data, "sums": sums.ctypes.data}
    native.segment_sums(matrix(vectors), size=9, exponent=20, **where)
    expected = np.ones((9, 6), np.int64)
    np.add.at(expected, codes, np.rint(vectors.astype(np.float64) * 2**20).astype(np.int64))
    assert sums.tolist() == expected.tolist()
    assert (counts - 1).tolist() == np.bincount(codes, minlength=9).tolist()
    with pytest.raises(InputError, match=r"a code lies outside \[0, 8\)"):
        native.segment_sums(matrix(vectors), size=8, exponent=20, **where)
    vectors[3] = np.inf
    with pytest.raises(NotFiniteError, match="row 3"):
        native.segment_sums(matrix(vectors), size=9, exponent=20, **where)


class TestThreads:
    def test_an_explicit_number_comes_first(self) -> None:
        assert native.thread_count(3) == 3
        with pytest.raises(SpecError, match="threads=0: give at least 1"):
            native.thread_count(0)

    def test_then_torch_where_it_is_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(get_num_threads=lambda: 7))
        assert native.thread_count() == 7
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace())  # in the middle of its import
        assert native.thread_count() == 5

    @pytest.mark.parametrize(("setting", "number"), [("4", 4), ("3,2", 3), ("0", None), ("many", None), ("", None)])
    def test_then_openmp_then_the_cores(
        self, monkeypatch: pytest.MonkeyPatch, setting: str, number: int | None
    ) -> None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
        assert native.thread_count() == (number or 3)


@pytest.fixture
def library_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the loader find the library at the given path, and look again afterwards."""

    def put(path: Path | None) -> None:
        monkeypatch.setattr(native, "library_path", lambda: path)
        native._load.cache_clear()

    yield put
    native._load.cache_clear()


class TestAbsence:
    def test_switched_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MULTITOK_NATIVE", "0")
        assert native.available() == "switched off by MULTITOK_NATIVE=0; unset MULTITOK_NATIVE"

    def test_not_built(self, library_at: Any) -> None:
        library_at(None)
        assert "install g++, then pip install --force-reinstall" in str(native.available())
        found = [finding for finding in doctor._codebook_search() if finding.name == "native"]
        assert [finding.state for finding in found] == ["absent"]
        assert "not built" in found[0].value
        assert "install g++" in found[0].fix

    def test_not_a_library(self, library_at: Any, tmp_path: Path) -> None:
        path = tmp_path / native.LIBRARY
        path.write_text("not a library")
        library_at(path)
        assert str(native.available()).startswith(f"{path} cannot be loaded: ")

    def test_another_library(self, library_at: Any) -> None:
        library_at(Path(ctypes.util.find_library("c") or "libc.so.6"))
        assert "mt_interface_version" in str(native.available())

    def test_another_version(self, library_at: Any, tmp_path: Path) -> None:
        source = tmp_path / "old.cpp"
        source.write_text('extern "C" int mt_interface_version() { return 99; }')
        library_at(compile_program(tmp_path / native.LIBRARY, source, flags=("-shared", "-fPIC")))
        assert "has interface version 99, multitok here needs 1; pip install" in str(native.available())


@needs_library
def test_the_search_needs_no_torch() -> None:
    code = (
        "import sys; import numpy as np; from multitok.codebook import native as n; x = np.ones((9000, 8), 'f4'); "
        "m = n.Matrix(x.ctypes.data, 'float32', 9000, 8, 8); out = np.ones(9000, 'i4'); "
        "n.NativeCodebook(m, metric='l2').search(m, nearest=1, codes=out.ctypes.data); "
        "print(out.any(), 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


@needs_library
def test_doctor_names_the_path_and_what_a_faster_one_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITOK_NATIVE_PATH", "portable")
    monkeypatch.setattr(native, "supported_paths", lambda: ["portable", "avx2"])
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"})
    found = {f.name: f for f in doctor._codebook_search()}
    assert found["native"].value.startswith("portable for V 1,024 D 256, portable for V 16,384 D 4, threads: ")
    assert found["amx"].value == "this machine does not offer amx_bf16 amx_tile avx512_bf16"
    assert found["avx512-vnni"].value == "this machine does not offer avx512_vnni"
    assert found["avx512"].value == "the library was built without it"
    assert found["avx512"].fix == native.REBUILD
    assert "avx2" not in found
    assert json.dumps([f.to_json() for f in found.values()])
