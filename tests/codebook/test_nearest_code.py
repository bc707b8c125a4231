"""The public edge of the search: what it takes, in which kinds and layouts, what it refuses, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from multitok.codebook import Codebook, Nearest, inputs, native, nearest_code
from multitok.errors import InputError, ShapeError, SpecError
from tests.codebook import reference
from tests.codebook.families import DTYPES, draw

pytestmark = pytest.mark.usefixtures("one_thread")

BACKENDS = ["torch"] if native.available() else ["native", "torch"]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
needs_native = pytest.mark.skipif(native.available() is not None, reason="needs the native library")


def gaussian(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


CODEBOOK = gaussian(50, 6, seed=1)


def expected(vectors: Any, codebook: Any = CODEBOOK, metric: str = "l2") -> list[int]:
    rows = reference.as_float64(vectors).reshape(-1, vectors.shape[-1])
    found: list[int] = reference.search(rows, codebook, metric).codes[:, 0].tolist()
    return found


@each_backend
@pytest.mark.parametrize("lead", [(), (1,), (7,), (2, 3), (2, 1, 3, 2), (0,), (3, 0, 2)])
def test_any_leading_shape(backend: str, lead: tuple[int, ...]) -> None:
    vectors = gaussian(*lead, 6)
    book = Codebook(CODEBOOK, backend=backend)
    for given, codes_dtype in ((vectors, np.int32), (torch.from_numpy(vectors), torch.int64)):
        codes = nearest_code(given, CODEBOOK, backend=backend)
        assert type(codes) is type(given)
        assert codes.dtype == codes_dtype
        assert tuple(codes.shape) == lead
        assert codes.reshape(-1).tolist() == expected(vectors)
        found = book.search(given, k=3, distances=True, quantized=True)
        assert isinstance(found, Nearest)
        assert [tuple(part.shape) for part in found] == [(*lead, 3), (*lead, 3), (*lead, 3, 6)]
        assert found.distances.dtype in (np.float64, torch.float64)
        assert found.codes[..., 0].reshape(-1).tolist() == expected(vectors)


def test_nothing_is_returned_that_was_not_asked_for() -> None:
    found = Codebook(CODEBOOK).search(gaussian(3, 6))
    assert found.distances is None
    assert found.quantized is None
    assert Codebook(CODEBOOK).search(gaussian(3, 6), distances=True).quantized is None


def numpy_layouts() -> dict[str, NDArray[np.float32]]:
    """Arrays [..., 6] that do not lie in C order, with every kind of step between their values."""
    odd = np.zeros(40 * 6 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(40, 6)
    odd[:] = gaussian(40, 6)
    record = np.zeros(40, [("a", np.uint8), ("b", np.float32, 6)])
    record["b"] = gaussian(40, 6)
    locked = gaussian(40, 6)
    locked.flags.writeable = False
    return {
        "Fortran order": np.asfortranarray(gaussian(40, 6)),
        "every other value": gaussian(40, 12)[:, ::2],
        "part of each row": gaussian(40, 9)[:, 2:8],
        "every third row": gaussian(120, 6)[::3],
        "rows backwards": gaussian(40, 6)[::-1],
        "values backwards": gaussian(40, 6)[:, ::-1],
        "one row repeated": np.broadcast_to(gaussian(6), (40, 6)),
        "one value repeated": np.broadcast_to(gaussian(40, 1), (40, 6)),
        "overlapping rows": np.lib.stride_tricks.sliding_window_view(gaussian(45), 6),
        "axes swapped": gaussian(5, 8, 6).transpose(1, 0, 2),
        "channels first": np.moveaxis(gaussian(6, 5, 8), 0, -1),
        "part of both axes": gaussian(7, 9, 6)[1:6, :8],
        "batch of crops": gaussian(3, 7, 9, 6)[:, 1:6, ::2][:, :, :4],
        "not aligned": odd,
        "rows not a multiple of the values": record["b"],
        "another byte order": gaussian(40, 6).astype(">f4"),
        "read-only": locked,
        "a single row of a wide array": gaussian(40, 600)[3:4, 5:11],
        "one dimension": gaussian(40, 5)[:, 2:3],
        "one dimension backwards": gaussian(40, 1)[:, ::-1],
        "one row backwards": gaussian(1, 6)[::-1],
    }


@each_backend
@pytest.mark.parametrize("copied_bytes", [1, 100, 2**22])
@pytest.mark.parametrize("layout", numpy_layouts())
def test_numpy_layouts(backend: str, layout: str, copied_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "COPIED_BYTES", copied_bytes)
    vectors = numpy_layouts()[layout]
    codebook = CODEBOOK[:, : vectors.shape[-1]]
    book = Codebook(codebook, backend=backend)
    found = book.search(vectors, distances=True)
    truth = reference.search(vectors.reshape(-1, vectors.shape[-1]), codebook)
    assert found.codes.shape == vectors.shape[:-1]
    assert np.array_equal(found.codes.ravel(), truth.codes[:, 0])
    assert np.array_equal(found.distances.ravel(), truth.distances[:, 0])
    # The same as a codebook.
    values = vectors.reshape(-1, vectors.shape[-1])
    values = vectors if vectors.ndim == 2 else values
    assert nearest_code(codebook, values, backend=backend).tolist() == expected(codebook, values)


def torch_layouts() -> dict[str, torch.Tensor]:
    return {
        "transposed": torch.from_numpy(gaussian(6, 40)).T,
        "channels first": torch.from_numpy(gaussian(2, 6, 5, 4)).movedim(1, -1),
        "expanded": torch.from_numpy(gaussian(6)).expand(40, 6),
        "every other row": torch.from_numpy(gaussian(80, 6))[::2],
        "negated when read": torch.complex(torch.from_numpy(gaussian(40, 6)), torch.from_numpy(gaussian(40, 6)))
        .conj()
        .imag,
        "needs a gradient": torch.from_numpy(gaussian(40, 6)).requires_grad_(),
        "result with a gradient": torch.from_numpy(gaussian(40, 6)).requires_grad_() * 2,
        "parameter": torch.nn.Parameter(torch.from_numpy(gaussian(40, 6))),
    }


@each_backend
@pytest.mark.parametrize("layout", torch_layouts())
def test_torch_layouts(backend: str, layout: str) -> None:
    vectors = torch_layouts()[layout]
    codes = nearest_code(vectors, CODEBOOK, backend=backend)
    assert codes.flatten().tolist() == expected(vectors)
    values = vectors.reshape(-1, 6)
    found = Codebook(values, backend=backend).search(torch.from_numpy(CODEBOOK), quantized=True)
    assert found.codes.tolist() == expected(CODEBOOK, reference.as_float64(values))
    assert not found.quantized.requires_grad
    assert torch.equal(found.quantized, values[found.codes])


@each_backend
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kinds_may_differ(backend: str, metric: str, dtype: str) -> None:
    """NumPy vectors with a codebook of tensors and the other way round; results follow the vectors."""
    vectors, codebook = draw("gaussian", "float32", 20, 30, 5).vectors, draw("gaussian", dtype, 20, 30, 5).codebook
    truth = reference.search(vectors, codebook, metric, 2)
    tensor_book = Codebook(torch.as_tensor(codebook), metric=metric, backend=backend)
    found = tensor_book.search(vectors, k=2, distances=True, quantized=dtype != "bfloat16")
    assert np.array_equal(found.codes, truth.codes)
    assert np.array_equal(found.distances, truth.distances)
    if dtype == "bfloat16":
        return
    assert np.array_equal(found.quantized, codebook[truth.codes])
    array_book = Codebook(codebook, metric=metric, backend=backend)
    mixed = array_book.search(torch.from_numpy(vectors), k=2, distances=True, quantized=True)
    for left, right in zip(mixed, found, strict=True):
        assert isinstance(left, torch.Tensor)
        assert np.array_equal(left.numpy(), right)


def test_bfloat16_arrays() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    vectors, codebook = (gaussian(30, 5, seed=seed).astype(ml_dtypes.bfloat16) for seed in (0, 1))
    for backend in BACKENDS:
        for given in (vectors, np.asfortranarray(vectors)):
            found = Codebook(codebook, backend=backend).search(given, quantized=True)
            assert found.codes.tolist() == expected(vectors, codebook)
            assert found.quantized.dtype == ml_dtypes.bfloat16
        tensors = torch.from_numpy(codebook.astype(np.float32)).bfloat16()
        assert np.array_equal(
            Codebook(tensors, backend=backend).search(vectors, quantized=True).quantized, found.quantized
        )
    vectors[3, 1] = np.nan
    with pytest.raises(InputError, match=r"vectors\[3, 1\] is nan"):
        nearest_code(vectors, codebook)


def test_bfloat16_code_vectors_as_numpy_need_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    book = Codebook(torch.ones(3, 6, dtype=torch.bfloat16))
    assert book.search(gaussian(4, 6)).codes.tolist() == [0, 0, 0, 0]
    with pytest.raises(
        ImportError, match=r"NumPy has no bfloat16 .* `pip install ml_dtypes`, give the vectors as torch"
    ):
        book.search(gaussian(4, 6), quantized=True)


def test_a_codebook_changed_in_place_is_read_anew() -> None:
    codebook, vectors = CODEBOOK.copy(), gaussian(30, 6)
    before = nearest_code(vectors, codebook)
    book = Codebook(codebook)
    codebook[:] = codebook[::-1].copy()
    assert np.array_equal(nearest_code(vectors, codebook), 49 - before)
    assert np.array_equal(book.search(vectors).codes, before)  # it has its own


def test_vectors_are_left_as_they_are() -> None:
    vectors = gaussian(30, 6)
    for backend in BACKENDS:
        for metric in ("l2", "cosine", "dot"):
            Codebook(CODEBOOK, metric=metric, backend=backend).search(vectors, k=2, distances=True)
            Codebook(CODEBOOK.astype(np.float64), metric=metric, backend=backend).search(vectors.astype(np.float64))
    assert np.array_equal(vectors, gaussian(30, 6))


@needs_native
def test_a_layout_that_must_be_copied_is_copied_in_blocks() -> None:
    book = Codebook(CODEBOOK[:2], backend="native")

    def peak_bytes(vectors: NDArray[np.float32]) -> int:
        book.search(vectors[:10])
        tracemalloc.start()
        try:
            book.search(vectors)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    vectors = gaussian(6, 10**6)
    results = 4 * vectors.shape[1]
    for view in (
        vectors.T,
        np.broadcast_to(vectors[0, :6], (10**6, 6)),
        vectors.reshape(6, 1000, 1000).transpose(2, 1, 0),
    ):
        assert peak_bytes(view) < results + 2 * inputs.COPIED_BYTES + 2**16
    assert peak_bytes(vectors.reshape(-1, 6)) < results + 2**16  # nothing copied


@needs_native
def test_numpy_alone_never_loads_torch() -> None:
    def loaded_by(more: str) -> list[str]:
        program = (
            "import sys, numpy as np\n"
            "from multitok.codebook import Codebook, nearest_code\n"
            "from multitok.quantize import ResidualQuantizer\n"
            "x, c = np.ones((5, 3), np.float32), np.eye(3, dtype=np.float32)\n"
            "nearest_code(x, c), nearest_code(np.asfortranarray(x), c, metric='dot')\n"
            "Codebook(c, metric='cosine').search(x, k=2, distances=True, quantized=True)\n"
            f"ResidualQuantizer([c, c]).encode(x)\n{more}\n"
            "print('torch' in sys.modules)\n"
        )
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()

    assert loaded_by("") == ["False"]
    assert loaded_by("nearest_code(x, c, backend='torch')") == ["True"]


@pytest.mark.parametrize("index", [(0,), (4, 2), (1, 0, 2)])
def test_the_place_of_a_value_that_is_not_finite(index: tuple[int, ...]) -> None:
    shape = tuple(length + 3 for length in index)
    place = ", ".join(map(str, (*index, 5)))
    for backend in BACKENDS:
        for given in (
            gaussian(*shape, 6),
            np.asfortranarray(gaussian(*shape, 6)),
            torch.from_numpy(gaussian(*shape, 6)),
        ):
            if len(index) == 1 and backend == "torch":
                given = given[index[0]]  # a single vector [D]
                place = "5"
                given[5] = np.inf
            else:
                given[(*index, 5)] = np.inf
            with pytest.raises(InputError, match=rf"^vectors\[{place}\] is inf: the search takes finite values only"):
                nearest_code(given, CODEBOOK, backend=backend)


@each_backend
def test_the_place_in_a_later_block(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "COPIED_BYTES", 100)
    vectors = np.asfortranarray(gaussian(40, 6))
    vectors[33, 1] = np.nan
    with pytest.raises(InputError, match=r"vectors\[33, 1\] is nan"):
        nearest_code(vectors, CODEBOOK, backend=backend)


FLOATS = "of float16, bfloat16, float32 or float64"


@pytest.mark.parametrize(
    ("vectors", "codebook", "message"),
    [
        ([[1.0]], CODEBOOK, rf"vectors given as list: give vectors as .* \[\.\.\., D\] {FLOATS}"),
        (gaussian(2, 6), [[1.0]], rf"codebook given as list: give codebook as .* \[V, D\] {FLOATS}"),
        (np.ones((2, 6), np.int64), CODEBOOK, rf"vectors given as int64 of shape \[2, 6\]: .* {FLOATS}"),
        (np.ones((2, 6), np.complex64), CODEBOOK, "vectors given as complex64"),
        (np.ones((2, 6), np.longdouble), CODEBOOK, "vectors given as (float128|longdouble)"),
        (np.ones((2, 6), object), CODEBOOK, "vectors given as object"),
        (torch.ones(2, 6, dtype=torch.int32), CODEBOOK, r"vectors given as torch.int32 of shape \[2, 6\]"),
        (torch.ones(2, 6, dtype=torch.float8_e4m3fn), CODEBOOK, "vectors given as torch.float8_e4m3fn"),
        (
            torch.ones(2, 6).to_sparse(),
            CODEBOOK,
            "vectors given as a torch.sparse_coo tensor on cpu: give a dense tensor",
        ),
        (torch.ones(2, 6, device="meta"), CODEBOOK, "tensor on meta: give a dense tensor on a device that has float64"),
        (np.float32(1), CODEBOOK, "vectors given as float32: give"),
        (np.ones((), np.float32), CODEBOOK, r"vectors given as float32 of shape \[\]"),
        (gaussian(2, 6), gaussian(6), r"codebook given as float32 of shape \[6\]: .* \[V, D\]"),
        (gaussian(2, 6), gaussian(2, 3, 6), r"codebook given as float32 of shape \[2, 3, 6\]"),
        (gaussian(2, 6), np.ones((3, 6), np.int64), "codebook given as int64"),
        (
            gaussian(2, 6),
            np.ones((0, 6), np.float32),
            r"codebook of shape \[0, 6\]: give at least one code of at least one",
        ),
        (gaussian(2, 0), np.ones((2, 0), np.float32), "of at least one dimension"),
        (gaussian(2, 5), CODEBOOK, "vectors have D = 5, the codebook has D = 6: both must be equal"),
        (gaussian(0, 5), CODEBOOK, "vectors have D = 5"),
    ],
)
def test_wrong_arrays(vectors: Any, codebook: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        nearest_code(vectors, codebook)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "euclidean"}, "metric='euclidean': allowed are l2, cosine, dot"),
        ({"backend": "gpu"}, "backend='gpu': allowed are auto, native, cuda, torch"),
        ({"threads": 0}, "threads=0: give at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        nearest_code(gaussian(2, 6), CODEBOOK, **options)


@pytest.mark.parametrize(("k", "size", "largest"), [(0, 3, 3), (4, 3, 3), (17, 50, 16), (-1, 50, 16)])
def test_wrong_k(k: int, size: int, largest: int) -> None:
    with pytest.raises(SpecError, match=f"k={k}: allowed are 1 to {largest}, the smaller of V = {size} and 16"):
        Codebook(CODEBOOK[:size]).search(gaussian(2, 6), k=k)


def test_a_codebook_brings_its_metric_and_backend() -> None:
    vectors, book = gaussian(30, 6), Codebook(CODEBOOK, metric="cosine", backend="torch")
    assert nearest_code(vectors, book).tolist() == expected(vectors, metric="cosine")
    assert nearest_code(vectors, book, metric="cosine", backend="torch").tolist() == expected(vectors, metric="cosine")
    with pytest.raises(SpecError, match=r"metric='dot', backend='auto' contradict Codebook\(.*: leave them out"):
        nearest_code(vectors, book, metric="dot")
    with pytest.raises(SpecError, match="backend='native' contradict"):
        nearest_code(vectors, book, backend="native")


@needs_native
@pytest.mark.slow
def test_more_values_than_int32_counts() -> None:
    """2^31 + 2^10 values, almost none of them in memory: pages of zeros that were never written to."""
    vectors = np.zeros((2**21 + 1, 2**10), np.float16)
    codebook = np.zeros((3, 2**10), np.float16)
    codebook[1], codebook[2] = 1, 2
    vectors[-1], vectors[2**20 + 7] = 2, 1
    codes = nearest_code(vectors, codebook, backend="native")
    assert np.flatnonzero(codes).tolist() == [2**20 + 7, 2**21]
    assert codes[[2**20 + 7, 2**21]].tolist() == [1, 2]
