"""`Codebook`: what it holds, how it travels between processes, and which backend it takes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re
import subprocess
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from multitok.codebook import Codebook, cuda_backend, engines, native, nearest_code
from multitok.errors import InputError, MissingExtraError, ShapeError, SpecError
from tests.codebook import reference

needs_native = pytest.mark.skipif(native.available() is not None, reason="needs the native library")
REASON = "libmultitok_codebook.so was not built: there was no C++ compiler; install g++"


def gaussian(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_what_it_says_of_itself() -> None:
    book = Codebook(torch.ones(7, 3, dtype=torch.bfloat16), metric="dot", backend="torch")
    assert (book.size, book.dim, book.metric, book.backend) == (7, 3, "dot", "torch")
    assert repr(book) == "Codebook(size=7, dim=3, dtype=bfloat16, metric='dot', backend='torch', device=cpu)"


@pytest.mark.parametrize("name", ["size", "dim", "metric", "backend", "values"])
def test_it_does_not_change(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Codebook(gaussian(4, 3)), name, None)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_values_are_its_own(backend: str) -> None:
    given, vectors = gaussian(9, 3), gaussian(40, 3, seed=1)
    book = Codebook(given, backend=backend)
    before = book.search(vectors, quantized=True)
    given[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        book.values[0, 0] = 5
    before.quantized[:] = 0  # a result is the caller's
    assert np.array_equal(book.values, gaussian(9, 3))
    after = book.search(vectors, quantized=True)
    assert np.array_equal(after.codes, before.codes)
    assert np.array_equal(after.quantized, gaussian(9, 3)[after.codes])

    tensor = torch.from_numpy(gaussian(9, 3))
    book = Codebook(tensor, backend=backend)
    tensor.zero_()
    book.values.zero_()
    assert np.array_equal(book.search(torch.from_numpy(vectors)).codes.numpy(), before.codes)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda book: pickle.loads(pickle.dumps(book))])
@pytest.mark.parametrize("values", [gaussian(9, 3), torch.from_numpy(gaussian(9, 3)).half()])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_copies_find_the_same(copied: Any, values: Any, backend: str) -> None:
    book = Codebook(values, metric="cosine", backend=backend)
    again = copied(book)
    assert repr(again) == repr(book)
    assert type(again.values) is type(book.values)
    vectors = gaussian(40, 3, seed=1)
    assert np.array_equal(again.search(vectors).codes, book.search(vectors).codes)


def test_a_pickle_chooses_its_backend_where_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, named = (pickle.dumps(Codebook(gaussian(9, 3), backend=backend)) for backend in ("auto", "torch"))
    monkeypatch.setattr(native, "available", lambda: REASON)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pickle.loads(auto).backend == "torch"
    assert pickle.loads(named).backend == "torch"


def codes_of(book: Codebook, vectors: NDArray[np.float32]) -> list[int]:
    found: list[int] = book.search(vectors, threads=2).codes.tolist()
    return found


@pytest.mark.slow
def test_workers_started_afresh() -> None:
    book, vectors = Codebook(gaussian(500, 8)), gaussian(3000, 8, seed=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(codes_of, (book, vectors)) == codes_of(book, vectors)


@needs_native
def test_workers_that_fork() -> None:
    program = (
        "import multiprocessing, numpy as np\n"
        "from multitok.codebook import Codebook\n"
        "rng = np.random.default_rng(0)\n"
        "book = Codebook(rng.standard_normal((500, 8), dtype=np.float32))\n"
        "x = rng.standard_normal((3000, 8), dtype=np.float32)\n"
        "def search(_): return book.search(x, threads=2).codes.tolist()\n"
        "expected = search(0)\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    assert pool.map(search, range(4)) == [expected] * 4\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_threads_share_one(backend: str) -> None:
    book = Codebook(gaussian(300, 8), metric="cosine", backend=backend)
    given = [gaussian(200, 8, seed=seed) for seed in range(1, 7)]
    expected = [reference.search(vectors, book.values, "cosine", 2) for vectors in given]
    found: list[Any] = [None] * len(given)

    def search(index: int) -> None:
        for _ in range(5):
            found[index] = book.search(given[index], k=2, distances=True, threads=2)

    workers = [threading.Thread(target=search, args=(index,)) for index in range(len(given))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for mine, truth in zip(found, expected, strict=True):
        assert np.array_equal(mine.codes, truth.codes)
        assert np.array_equal(mine.distances, truth.distances)


def test_codebooks_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"^codebook\[2, 1\] is -inf: the search takes finite values only"):
        Codebook(np.where(np.arange(12).reshape(4, 3) == 7, -np.inf, 1))
    with pytest.raises(ShapeError, match=r"codebook of shape \[0, 3\]: give at least one code"):
        Codebook(gaussian(0, 3))
    with pytest.raises(SpecError, match="metric='L2': allowed are l2, cosine, dot"):
        Codebook(gaussian(4, 3), metric="L2")


@pytest.fixture
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_told", set())


def test_falling_back_is_said_once(nothing_told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: REASON)
    vectors, codebook = gaussian(30, 3, seed=1), gaussian(9, 3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        codes = nearest_code(vectors, codebook)
        assert Codebook(codebook).backend == "torch"
    assert [(warning.category, warning.filename) for warning in told] == [(RuntimeWarning, __file__)]
    assert str(told[0].message).endswith(f"is slower, because the native backend cannot be used: {REASON}")
    assert codes.tolist() == reference.search(vectors, codebook).codes[:, 0].tolist()


def test_a_backend_that_is_named_does_not_fall_back(nothing_told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: REASON)
    with pytest.raises(
        MissingExtraError, match=re.escape(f"backend='native' cannot be used: {REASON}; backend='torch'")
    ):
        Codebook(gaussian(9, 3), backend="native")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Codebook(gaussian(9, 3), backend="torch").backend == "torch"


@needs_native
def test_nothing_is_said_where_nothing_is_missing(nothing_told: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Codebook(gaussian(9, 3)).backend == "native"
        assert Codebook(torch.from_numpy(gaussian(9, 3))).backend == "native"


def test_backends_search_where_they_can() -> None:
    for values in (gaussian(9, 3), torch.from_numpy(gaussian(9, 3))):
        with pytest.raises(
            ShapeError, match="backend='cuda' searches CUDA tensors, the codebook lies on cpu: move it, or"
        ):
            Codebook(values, backend="cuda")


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on a GPU, for what is decided before anything is computed."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda:1")


def test_devices_that_differ(nothing_told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.from_numpy(gaussian(9, 3)).as_subclass(Elsewhere)
    with pytest.raises(ShapeError, match="vectors are on cuda:1, the codebook is on cpu: move one to the other"):
        Codebook(gaussian(9, 3)).search(there)
    with pytest.raises(
        ShapeError, match="backend='native' searches CPU arrays and tensors, the codebook lies on cuda:1"
    ):
        engines.make_engine(there, "l2", "native")
    monkeypatch.setattr(cuda_backend, "available", lambda: "CuPy cannot be imported: pip install 'multitok[cuda12]'")
    with pytest.raises(
        MissingExtraError, match=r"backend='cuda' cannot be used: CuPy .* pip install 'multitok\[cuda12\]'"
    ):
        engines.make_engine(there, "l2", "cuda")
    made = []
    monkeypatch.setattr(engines, "TorchEngine", lambda values, metric: made.append(values))
    with pytest.warns(RuntimeWarning, match="the cuda backend cannot be used: CuPy cannot be imported"):
        engines.make_engine(there, "l2", "auto")
    assert made == [there]
    monkeypatch.setattr(cuda_backend, "available", lambda: None)
    monkeypatch.setattr(engines, "CudaEngine", lambda values, metric: "kernels")
    assert engines.make_engine(there, "l2", "auto") == "kernels"
