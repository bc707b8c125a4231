"""k-means: what every run must hold, and clusters that anyone can see."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.codebook import nearest_code
from multitok.errors import InputError, SpecError
from multitok.quantize import usage
from multitok.train.kmeans import train_kmeans, train_residual_kmeans


def draw(count: int, dim: int = 3, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def error(vectors: NDArray[np.float32], codebook: NDArray[np.float32]) -> float:
    return float(((vectors - codebook[nearest_code(vectors, codebook)]).astype(np.float64) ** 2).mean())


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


def test_the_seed_fixes_the_result() -> None:
    vectors = draw(300)
    first = train_kmeans(vectors, 8, seed=1, iterations=2)
    assert np.array_equal(train_kmeans(vectors, 8, seed=1, iterations=2), first)
    assert not np.array_equal(train_kmeans(vectors, 8, seed=2, iterations=2), first)


def test_no_code_stays_dead() -> None:
    # Nearly all vectors in one place: most codes of a random start would win nothing.
    vectors = np.concatenate([np.zeros((2000, 3), np.float32), 10 + draw(40)])
    codebook = train_kmeans(vectors, 32, iterations=10)
    assert usage(nearest_code(vectors, codebook), 32) == 1.0


def test_fewer_different_vectors_than_codes() -> None:
    vectors = np.repeat(draw(3), 5, axis=0)
    codebook = train_kmeans(vectors, 8)
    assert codebook.shape == (8, 3)
    assert error(vectors, codebook) == 0.0
    assert train_kmeans(vectors[:1], 4).tolist() == [vectors[0].tolist()] * 4


def test_a_larger_pool_than_the_start_looks_at() -> None:
    vectors = draw(1000)
    assert error(vectors, train_kmeans(vectors, 4)) < float((vectors**2).mean())


def test_wrong_arguments() -> None:
    with pytest.raises(SpecError, match="codebook_size=0"):
        train_kmeans(draw(4), 0)
    with pytest.raises(SpecError, match="iterations=0"):
        train_kmeans(draw(4), 2, iterations=0)
    with pytest.raises(InputError, match="no vectors"):
        train_kmeans(draw(0), 2)
    bad = draw(4)
    bad[2] = np.nan
    with pytest.raises(InputError, match=r"vectors\[2, 0\] is nan"):
        train_kmeans(bad, 2)


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
