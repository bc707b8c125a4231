"""What every backend must find: the codes and the distances of the definition, bit for bit, on data made to mislead."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

import multitok
from multitok.codebook import Codebook
from multitok.errors import InputError
from multitok.frontend.patches import to_patches
from multitok.tokenizers.image_patch import ImagePatch
from tests.codebook import reference
from tests.codebook.backends import Backend, Unsuited, every_backend
from tests.codebook.families import DTYPES, FAMILIES, Data, draw

pytestmark = pytest.mark.usefixtures("one_thread")

METRICS = ("l2", "cosine", "dot")
# N, V, D: around the widths in which searches group codes and dimensions, and on both sides of them.
SHAPES = [(40, 130, 3), (40, 75, 8), (30, 50, 33), (20, 40, 130)]
FEW = [("float32", shape) for shape in SHAPES] + [("float64", SHAPES[1]), ("float64", SHAPES[3])]
FEW += [("float16", SHAPES[2]), ("bfloat16", SHAPES[0])]
ROOT = Path(__file__).parent.parent.parent

each_backend = pytest.mark.parametrize("backend", every_backend(), ids=lambda backend: backend.name)


@functools.cache
def drawn(family: str, dtype: str, shape: tuple[int, int, int]) -> Data:
    return draw(family, dtype, *shape)


@functools.cache
def expected(family: str, dtype: str, shape: tuple[int, int, int], metric: str, k: int) -> reference.Reference:
    return reference.search(*drawn(family, dtype, shape), metric, k)


def prepared(backend: Backend, values: Any, metric: str = "l2") -> Codebook:
    try:
        return backend.prepare(values, metric)
    except Unsuited:
        pytest.skip(f"{backend.name} is not made for {metric} with D = {values.shape[1]}")


def as_kind(vectors: Any, like: Any) -> Any:
    """`vectors` in the kind of array of `like`: NumPy has no bfloat16 for quantized vectors."""
    return torch.as_tensor(vectors) if isinstance(like, torch.Tensor) else vectors


def to_device(vectors: Any, book: Codebook) -> Any:
    """Vectors where the codebook is: tests give everything on the CPU."""
    return torch.as_tensor(vectors).to(book.values.device) if isinstance(book.values, torch.Tensor) else vectors


def agree(book: Codebook, vectors: Any, truth: reference.Reference) -> None:
    """Codes alone (which is a search of its own), then with everything."""
    k = truth.codes.shape[1]
    codes = book.search(to_device(vectors, book)).codes
    assert np.array_equal(as_numpy(codes), truth.codes[:, 0])
    found = book.search(to_device(vectors, book), k=k, distances=True, quantized=True)
    assert np.array_equal(as_numpy(found.codes), truth.codes)
    assert np.array_equal(as_numpy(found.distances), truth.distances)
    assert np.array_equal(as_numpy(found.quantized), reference.as_float64(book.values)[truth.codes])


def as_numpy(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    return reference.as_float64(values) if values.is_floating_point() else values.cpu().numpy()


def test_the_reference_itself() -> None:
    """Against Python floats: one vector, one code, one dimension at a time."""
    vectors, codebook = draw("integers", "float64", 12, 9, 3)
    for metric in METRICS:
        found = reference.search(vectors, codebook, metric, 9)
        for vector, codes, distances in zip(vectors.tolist(), found.codes, found.distances, strict=True):
            ranks = []
            for index, code in enumerate(codebook.tolist()):
                total = 0.0
                for left, right in zip(vector, code, strict=True):
                    total += (left - right) * (left - right) if metric == "l2" else left * right
                if metric == "cosine":
                    squares = sum(value * value for value in code)
                    total = total / squares**0.5 if squares else 0.0
                ranks.append((total if metric == "l2" else -total, index))
            ranks.sort()
            assert codes.tolist() == [index for _, index in ranks]
            length = sum(value * value for value in vector) ** 0.5 or 1.0
            reported = [1 + rank / length if metric == "cosine" else rank for rank, _ in ranks]
            assert distances.tolist() == reported


def check_family(backend: Backend, metric: str, family: str, cases: Iterable[tuple[str, tuple[int, int, int]]]) -> None:
    searched = 0
    for dtype, shape in cases:
        vectors, codebook = drawn(family, dtype, shape)
        with contextlib.suppress(Unsuited):
            agree(backend.prepare(codebook, metric), vectors, expected(family, dtype, shape, metric, 5))
            searched += 1
    if not searched:
        pytest.skip(f"{backend.name} is not made for {metric}")


@each_backend
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families(backend: Backend, metric: str, family: str) -> None:
    check_family(backend, metric, family, FEW)


@pytest.mark.slow
@each_backend
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_in_every_dtype(backend: Backend, metric: str, family: str) -> None:
    shapes = [*SHAPES, (50, 16, 1), (50, 33, 2), (30, 300, 5), (30, 64, 16), (20, 100, 64), (3, 17, 1024)]
    check_family(backend, metric, family, [(dtype, shape) for dtype in DTYPES for shape in shapes])


@each_backend
@pytest.mark.parametrize("metric", METRICS)
def test_every_pair_of_dtypes(backend: Backend, metric: str) -> None:
    for left in DTYPES:
        for right in DTYPES:
            vectors, codebook = draw("offset", left, 20, 30, 5).vectors, draw("offset", right, 20, 30, 5).codebook
            with contextlib.suppress(Unsuited):
                agree(
                    backend.prepare(codebook, metric),
                    as_kind(vectors, codebook),
                    reference.search(vectors, codebook, metric, 3),
                )


@each_backend
def test_latents_of_a_picture(backend: Backend) -> None:
    vectors, codebooks = latents()
    for codebook in codebooks:
        truth = reference.search(vectors, codebook, "l2", 2)
        agree(prepared(backend, codebook), vectors, truth)
        vectors = vectors - codebook[truth.codes[:, 0]]


@functools.cache
def latents() -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
    """Of the shipped image tokenizer: what its quantizer is given, and its codebooks."""
    tokenizer = multitok.load(ROOT / "checkpoints" / "image-patch8")
    assert isinstance(tokenizer, ImagePatch)
    picture = np.asarray(Image.open(ROOT / "examples" / "data" / "photos" / "coffee.png").convert("RGB"))[
        200:296, 200:296
    ]
    patches = to_patches(picture, tokenizer.spec.stride)
    return tokenizer.latents(patches), tokenizer.quantizer.codebooks


@each_backend
@pytest.mark.parametrize("metric", METRICS)
def test_top_k_is_the_start_of_a_full_sort(backend: Backend, metric: str) -> None:
    for size in (1, 2, 15, 16, 17, 40):
        vectors, codebook = draw("integers", "float32", 20, size, 3)
        truth = reference.search(vectors, codebook, metric, size)
        book = prepared(backend, codebook, metric)
        for k in {1, min(2, size), min(size, 16)}:
            found = book.search(to_device(vectors, book), k=k, distances=True)
            assert np.array_equal(as_numpy(found.codes), truth.codes[:, :k])
            assert np.array_equal(as_numpy(found.distances), truth.distances[:, :k])


# Many ties and near ties, and numbers whose squares or sums leave float32 and float64.
small = st.integers(-2, 2).map(float)
any_float32 = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-40, 1e-20, 1e19, 3e38, -3e38])
any_float64 = st.floats(-1e4, 1e4) | st.sampled_from([0.0, 1.0, -1.0, 5e-324, 1e-160, 1e154, -1e154, 1e308, -1e308])


@each_backend
@pytest.mark.parametrize("metric", METRICS)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), dim=st.integers(1, 5), size=st.integers(1, 20), count=st.integers(0, 6))
def test_any_values(backend: Backend, metric: str, data: st.DataObject, dim: int, size: int, count: int) -> None:
    dtype, elements = data.draw(
        st.sampled_from([(np.float32, small), (np.float32, any_float32), (np.float64, any_float64)])
    )
    vectors = data.draw(arrays(dtype, (count, dim), elements=elements))
    codebook = data.draw(arrays(dtype, (size, dim), elements=elements))
    with contextlib.suppress(Unsuited):
        agree(backend.prepare(codebook, metric), vectors, reference.search(vectors, codebook, metric, min(size, 3)))


ONCE_WRONG = [
    ("l2", np.float32, [[0.0]], [[3e38]]),
    ("l2", np.float32, [[0.0, 0.0, 0.0, 0.0]], [[1e19, 1e19, 1e19, 1e19]]),
    ("cosine", np.float64, [[2.0]], [[1e308], [0.0]]),
    ("cosine", np.float64, [[2.0, 0.0]], [[0.0, 0.0], [1e308, 0.0], [0.0, 0.0]]),
    ("cosine", np.float64, [[2.0]], [[1e308], [-1.0]]),
    ("dot", np.float64, [[1e308, 1e308]], [[1e308, -1e308], [1.0, 1.0]]),
]


@each_backend
@pytest.mark.parametrize(("metric", "dtype", "vectors", "codebook"), ONCE_WRONG)
def test_what_once_went_wrong(backend: Backend, metric: str, dtype: Any, vectors: Any, codebook: Any) -> None:
    """Squares, norms and products that leave the range of floats, found by `test_any_values`."""
    vectors, codebook = np.array(vectors, dtype), np.array(codebook, dtype)
    agree(prepared(backend, codebook, metric), vectors, reference.search(vectors, codebook, metric, len(codebook)))


@each_backend
def test_neither_threads_nor_batches_change_a_code(backend: Backend) -> None:
    rng = np.random.default_rng(3)
    vectors = np.round(rng.standard_normal((3000, 6), dtype=np.float32), 1)
    codebook = np.round(rng.standard_normal((500, 6), dtype=np.float32), 1)
    book = prepared(backend, codebook)
    vectors = to_device(vectors, book)
    whole = book.search(vectors, k=3, threads=1)
    assert np.array_equal(as_numpy(whole.codes[::50]), reference.search(vectors[::50], codebook, "l2", 3).codes)
    for threads in (2, 3, 4):
        assert np.array_equal(as_numpy(book.search(vectors, k=3, threads=threads).codes), as_numpy(whole.codes))
    for step in (1, 7, 1024):
        starts = range(0, 300 if step == 1 else 3000, step)
        parts = [as_numpy(book.search(vectors[i : i + step], k=3, threads=2).codes) for i in starts]
        found = np.concatenate(parts)
        assert np.array_equal(found, as_numpy(whole.codes)[: len(found)])


@each_backend
def test_no_vectors(backend: Backend) -> None:
    book = prepared(backend, np.ones((4, 3), np.float32))
    found = book.search(to_device(np.empty((0, 3), np.float32), book), k=2, distances=True, quantized=True)
    assert [part.shape for part in found] == [(0, 2), (0, 2), (0, 2, 3)]


@each_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite(backend: Backend, dtype: str, bad: float) -> None:
    for row in (0, 17, 39):
        vectors, codebook = draw("gaussian", dtype, 40, 40, 5)
        book = prepared(backend, codebook)
        vectors[row, 3] = bad
        vectors[-1, 4] = bad
        with pytest.raises(
            InputError, match=rf"vectors\[{row}, 3\] is -?(nan|inf): the search takes finite values only"
        ):
            book.search(to_device(vectors, book))
        with pytest.raises(InputError, match=rf"codebook\[{row}, 3\]"):
            backend.prepare(vectors, "l2")


LARGE = [
    ("gaussian", (40, 262_144, 4)),
    ("offset", (40, 262_144, 4)),
    ("integers", (40, 262_144, 4)),
    ("clustered", (40, 262_144, 32)),
    ("gaussian", (40, 4096, 1024)),
    ("offset", (40, 4096, 1024)),
    ("tight", (200, 20_000, 9)),
    ("duplicated", (200, 20_000, 9)),
]


@pytest.mark.slow
@each_backend
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("family", "shape"), LARGE)
def test_large_codebooks(backend: Backend, metric: str, family: str, shape: tuple[int, int, int]) -> None:
    check_family(backend, metric, family, [("float32", shape)])
