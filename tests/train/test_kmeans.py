"""k-means: what every run must hold, and clusters that anyone can see."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.codebook import nearest_code
from multitok.errors import InputError, ShapeError, SpecError
from multitok.quantize import usage
from multitok.train.kmeans import train_kmeans, train_residual_kmeans
from tests.train import kmeans_reference


def draw(count: int, dim: int = 3, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def error(vectors: NDArray[np.float32], codebook: NDArray[np.float32]) -> float:
    return float(((vectors - codebook[nearest_code(vectors, codebook)]).astype(np.float64) ** 2).mean())


def inertias(vectors: NDArray[Any], codebook_size: int, **options: Any) -> list[float]:
    found: list[float] = []
    train_kmeans(vectors, codebook_size, progress=lambda _, inertia: found.append(inertia), **options)
    return found


@st.composite
def grids(draw_value: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors on a coarse grid, so that many tie and repeat, and a start among them or beside them."""
    count, dim, size = draw_value(st.integers(1, 40)), draw_value(st.integers(1, 3)), draw_value(st.integers(1, 12))
    rng = np.random.default_rng(draw_value(st.integers(0, 2**32)))
    width = draw_value(st.sampled_from([1, 2, 5, 40]))
    vectors = (rng.integers(-width, width + 1, (count, dim)) / 8).astype(np.float32)
    start = vectors[rng.integers(count, size=size)] if rng.random() < 0.5 else vectors[:1] + draw(size, dim)
    return vectors, start


@settings(max_examples=150, deadline=None)
@given(grids(), st.integers(1, 6))
def test_every_bit_as_by_the_definition(case: tuple[NDArray[np.float32], NDArray[np.float32]], iterations: int) -> None:
    vectors, start = case
    codebook = train_kmeans(vectors, len(start), start=start, iterations=iterations)
    assert codebook.tolist() == kmeans_reference.lloyd(vectors, start, iterations).tolist()


def test_as_by_the_definition_on_natural_values() -> None:
    vectors = draw(600, 5)
    codebook = train_kmeans(vectors, 20, start=vectors[:20], iterations=15)
    # The reference rounds its exact sums once more or less.
    assert np.allclose(codebook, kmeans_reference.lloyd(vectors, vectors[:20], 15), rtol=0, atol=2e-7)


def test_finds_separate_clusters() -> None:
    centres = np.array([[0, 0, 0], [50, 0, 0], [0, 50, 0], [0, 0, 50]], np.float32)
    vectors = np.concatenate([centre + 0.1 * draw(30, seed=i) for i, centre in enumerate(centres)])
    codebook = train_kmeans(vectors, 4, seed=3)
    assert sorted(nearest_code(centres, codebook).tolist()) == [0, 1, 2, 3]
    assert error(centres, codebook) < 0.01


def test_every_code_is_the_mean_of_its_vectors_at_the_end() -> None:
    vectors = draw(200)
    codebook = train_kmeans(vectors, 7, iterations=200)
    codes = nearest_code(vectors, codebook)
    for code in range(7):
        assert np.allclose(codebook[code], vectors[codes == code].mean(axis=0), atol=1e-5)


def test_more_passes_are_no_worse() -> None:
    vectors = draw(500)
    errors = [error(vectors, train_kmeans(vectors, 16, iterations=n)) for n in (1, 2, 4, 8, 16)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dim=st.sampled_from([1, 2, 7]),
    start=st.sampled_from(["k-means++", "sample"]),
    power=st.sampled_from([1, 3, 7]),
)
def test_the_inertia_never_rises(seed: int, dim: int, start: str, power: int) -> None:
    vectors = draw(300, dim, seed) ** power  # from Gaussian to a few values far out
    found = inertias(vectors, 12, seed=seed, start=start, iterations=12)
    # Codes are rounded to float32, so each distance may be off by that much.
    slack = 1e-6 * float(np.square(vectors, dtype=np.float64).sum())
    assert all(later <= earlier + slack for earlier, later in itertools.pairwise(found))


def test_progress_reports_the_inertia_before_each_pass() -> None:
    vectors = draw(400)
    reported: list[tuple[int, float]] = []
    train_kmeans(vectors, 9, start=vectors[:9], iterations=3, progress=lambda *pair: reported.append(pair))
    codebooks = [vectors[:9], *(train_kmeans(vectors, 9, start=vectors[:9], iterations=n) for n in (1, 2))]
    expected = [kmeans_reference.inertia(vectors, codebook) for codebook in codebooks]
    assert [number for number, _ in reported] == [1, 2, 3]
    assert np.allclose([inertia for _, inertia in reported], expected, rtol=1e-13)


def test_it_stops_when_no_code_moves() -> None:
    vectors = np.repeat(draw(5), 4, axis=0)
    assert inertias(vectors, 5, iterations=50)[-1] == 0
    assert len(inertias(vectors, 5, iterations=50)) < 5
    assert len(inertias(draw(400), 9, iterations=500)) < 500


def test_it_stops_at_the_tolerance() -> None:
    vectors = draw(2000)
    found = inertias(vectors, 30, iterations=100, tolerance=0.01)
    falls = [1 - later / earlier for earlier, later in itertools.pairwise(found)]
    assert falls[-1] <= 0.01
    assert all(fall > 0.01 for fall in falls[:-1])
    assert np.array_equal(
        train_kmeans(vectors, 30, iterations=100, tolerance=0.01), train_kmeans(vectors, 30, iterations=len(found))
    )


def test_the_seed_fixes_the_result() -> None:
    vectors = draw(300)
    first = train_kmeans(vectors, 8, seed=1, iterations=2)
    assert np.array_equal(train_kmeans(vectors, 8, seed=1, iterations=2), first)
    assert not np.array_equal(train_kmeans(vectors, 8, seed=2, iterations=2), first)


def test_every_number_of_threads_gives_the_same_bytes() -> None:
    vectors = draw(20_000, 9)
    first = train_kmeans(vectors, 100, iterations=4, threads=1)
    for threads in (2, 3, 4):
        assert np.array_equal(train_kmeans(vectors, 100, iterations=4, threads=threads), first)


def test_no_code_stays_dead() -> None:
    # Nearly all vectors in one place: most codes of a random start would win nothing.
    vectors = np.concatenate([np.zeros((2000, 3), np.float32), 10 + draw(40)])
    for start in ("k-means++", "sample", np.zeros((32, 3), np.float32)):
        codebook = train_kmeans(vectors, 32, iterations=10, start=start)
        assert usage(nearest_code(vectors, codebook), 32) == 1.0


def test_a_code_without_vectors_moves_to_the_one_that_is_worst_served() -> None:
    vectors = np.array([[0, 0], [1, 0], [9, 0], [9, 0], [2, 8], [-0.0, 0]], np.float32)
    start = np.array([[0, 0], [50, 50], [60, 60], [70, 70]], np.float32)
    codebook = train_kmeans(vectors, 4, start=start, iterations=1)
    mean = vectors.mean(axis=0)  # (3.5, 1.33): [2, 8] lies farthest, then [9, 0], then [0, 0] before [-0, 0]
    assert codebook.tolist() == [mean.tolist(), [2, 8], [9, 0], [0, 0]]


def test_fewer_different_vectors_than_codes() -> None:
    vectors = np.repeat(draw(3), 5, axis=0)
    for start in ("k-means++", "sample"):
        codebook = train_kmeans(vectors, 8, start=start)
        assert codebook.shape == (8, 3)
        assert error(vectors, codebook) == 0.0
        assert {tuple(code) for code in codebook.tolist()} == {tuple(vector) for vector in vectors.tolist()}
        assert train_kmeans(vectors[:1], 4, start=start).tolist() == [vectors[0].tolist()] * 4


def test_one_vector_and_one_code() -> None:
    vectors = draw(1)
    assert train_kmeans(vectors, 1).tolist() == vectors.tolist()
    vectors = draw(50)
    assert np.allclose(train_kmeans(vectors, 1), vectors.mean(axis=0, dtype=np.float64))


def test_a_larger_pool_than_the_start_looks_at() -> None:
    vectors = draw(2000)
    assert error(vectors, train_kmeans(vectors, 4)) < float((vectors**2).mean())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes(dtype: type[np.floating[Any]]) -> None:
    vectors = draw(500).astype(np.float16)  # the same values in each dtype
    codebook = train_kmeans(vectors.astype(dtype), 10, iterations=5)
    assert codebook.dtype == (np.float64 if dtype is np.float64 else np.float32)
    first = train_kmeans(vectors.astype(np.float32), 10, iterations=1)
    assert np.array_equal(train_kmeans(vectors.astype(dtype), 10, iterations=1).astype(np.float32), first)


def test_float64_is_not_rounded_on_the_way() -> None:
    vectors = 1 + 1e-12 * draw(300).astype(np.float64)  # all equal in float32
    codebook = train_kmeans(vectors, 6, start=vectors[:6], iterations=4)
    expected = kmeans_reference.lloyd(vectors, vectors[:6], 4)
    assert len(np.unique(codebook, axis=0)) == 6
    assert np.abs(codebook - expected).max() < 1e-15


def test_every_memory_layout_gives_the_same_bytes() -> None:
    vectors = draw(200, 6)
    first = train_kmeans(vectors, 7)
    wide = np.zeros((400, 12), np.float32)
    wide[::2, 3:9] = vectors
    for other in (np.asfortranarray(vectors), wide[::2, 3:9], vectors.astype(">f4"), vectors[::-1].copy()[::-1]):
        assert np.array_equal(train_kmeans(other, 7), first)


def test_values_of_any_scale() -> None:
    vectors = draw(300)
    first = train_kmeans(vectors, 9, iterations=5)
    for power in (-100, 60):  # exact in float32
        scaled = np.ldexp(vectors, power)
        assert np.array_equal(train_kmeans(scaled, 9, iterations=5), np.ldexp(first, power))


def test_a_value_far_out_does_not_coarsen_the_others() -> None:
    vectors = draw(1000)
    with_outliers = np.concatenate([vectors, np.array([[1e30, 0, 0], [0, -3e20, 0]], np.float32)])
    start = vectors[:8]
    expected = train_kmeans(vectors, 8, start=start, iterations=5)
    outlying = np.concatenate([start, with_outliers[-2:]])
    assert np.array_equal(train_kmeans(with_outliers, 10, start=outlying, iterations=5)[:8], expected)


def test_cosine_is_euclidean_on_the_unit_sphere() -> None:
    vectors = draw(500, 4)
    vectors[7] = 0
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit = (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    codebook = train_kmeans(vectors, 6, metric="cosine", start=unit[20:26], iterations=1)
    mean = kmeans_reference.lloyd(unit, unit[20:26], 1).astype(np.float64)
    assert np.allclose(codebook, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    again = train_kmeans(vectors * np.float32(8), 6, metric="cosine", start=unit[20:26], iterations=1)
    assert np.array_equal(again, codebook)
    found = nearest_code(vectors[8:], train_kmeans(vectors, 6, metric="cosine"), metric="cosine")
    assert usage(found, 6) == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_not_finite_values_are_refused(value: float, dtype: type[np.floating[Any]], metric: str) -> None:
    bad = draw(4).astype(dtype)
    bad[2, 1] = value
    with pytest.raises(InputError, match=rf"vectors\[2, 1\] is {value}"):
        train_kmeans(bad, 2, metric=metric)


def test_wrong_arguments() -> None:
    with pytest.raises(SpecError, match="codebook_size=0"):
        train_kmeans(draw(4), 0)
    with pytest.raises(SpecError, match="iterations=0"):
        train_kmeans(draw(4), 2, iterations=0)
    with pytest.raises(SpecError, match="tolerance=-1"):
        train_kmeans(draw(4), 2, tolerance=-1)
    with pytest.raises(SpecError, match="start='random'"):
        train_kmeans(draw(4), 2, start="random")
    with pytest.raises(SpecError, match="metric='dot'"):
        train_kmeans(draw(4), 2, metric="dot")
    with pytest.raises(SpecError, match="threads=0"):
        train_kmeans(draw(4), 2, threads=0)
    with pytest.raises(InputError, match="no vectors"):
        train_kmeans(draw(0), 2)
    with pytest.raises(ShapeError, match="int64"):
        train_kmeans(np.arange(6).reshape(3, 2), 2)
    with pytest.raises(ShapeError, match=r"float32 \[4\]"):
        train_kmeans(draw(4)[:, 0], 2)
    with pytest.raises(ShapeError, match=r"\[V, D\] = \[2, 3\]"):
        train_kmeans(draw(4), 2, start=draw(3))
    with pytest.raises(SpecError, match="start holds NaN"):
        train_kmeans(draw(4), 2, start=np.full((2, 3), np.nan, np.float32))
    with pytest.raises(InputError, match=r"vectors\[0, 0\] is 1e\+200"):
        train_kmeans(np.array([[1e200], [1.0]]), 2)


def test_each_codebook_lowers_the_error() -> None:
    vectors = draw(1000, 4)
    quantizer = train_residual_kmeans(vectors, (8, 8, 4), seed=5, iterations=5)
    assert quantizer.codebook_sizes == (8, 8, 4)
    codes = quantizer.encode(vectors)
    errors = [float(((vectors - quantizer.decode(codes, k)) ** 2).mean()) for k in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


def test_finish_is_applied_before_the_residual_is_taken() -> None:
    vectors = 10 * draw(300, 2)
    quantizer = train_residual_kmeans(vectors, (4, 4), finish=np.rint)
    assert all(np.array_equal(codebook, np.rint(codebook)) for codebook in quantizer.codebooks)
    first = np.rint(train_kmeans(vectors, 4, seed=0))
    assert np.array_equal(quantizer.codebooks[0], first)
    residual = vectors - first[nearest_code(vectors, first)]
    assert np.array_equal(quantizer.codebooks[1], np.rint(train_kmeans(residual, 4, seed=1)))


def test_residual_codebooks_of_other_dtypes_are_float32() -> None:
    vectors = draw(100).astype(np.float64)
    quantizer = train_residual_kmeans(vectors, (4, 4), iterations=2)
    assert [codebook.dtype for codebook in quantizer.codebooks] == [np.float32] * 2
