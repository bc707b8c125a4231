"""Mini-batch k-means: vector by vector as Sculley wrote it, idle codes that move, and how good it is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.codebook import nearest_code
from multitok.errors import SpecError
from multitok.quantize import usage
from multitok.train.kmeans import train_kmeans
from multitok.train.kmeans_minibatch import train_kmeans_minibatch
from tests.train import kmeans_reference


def draw(count: int, dim: int = 3, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_one_pass_as_by_the_definition(batch_size: int) -> None:
    vectors = draw(250)
    start = vectors[:8]
    codebook = train_kmeans_minibatch([vectors], 8, start=start, batch_size=batch_size)
    assert usage(nearest_code(vectors, codebook), 8) == 1.0  # no code was idle, which the definition ignores
    assert np.allclose(codebook, kmeans_reference.minibatch(vectors, start, batch_size), rtol=0, atol=1e-6)


def test_a_batch_of_everything_is_a_pass_of_lloyd() -> None:
    vectors = draw(500)
    options = {"start": vectors[:9]}
    codebook = train_kmeans_minibatch([vectors], 9, batch_size=500, **options)
    assert np.allclose(codebook, train_kmeans(vectors, 9, iterations=1, **options), rtol=0, atol=1e-6)


def test_earlier_passes_weigh_a_tenth() -> None:
    vectors = np.repeat(np.array([[0.0], [3.0]], np.float32), 10, axis=0)
    start = np.array([[1.0]], np.float32)
    # Pass 1: 10 zeros, then 10 threes: 1.5, won 20. Pass 2 begins with the weight of 2 vectors at 1.5.
    codebook = train_kmeans_minibatch([vectors], 1, start=start, batch_size=10, passes=2)
    assert codebook[0, 0] == pytest.approx((2 * 1.5 + 10 * 0 + 10 * 3) / 22)


def test_idle_codes_move() -> None:
    vectors = np.concatenate([draw(3000), draw(3000) + 20])[np.random.default_rng(0).permutation(6000)]
    start = np.concatenate([vectors[:1], np.full((7, 3), 1000, np.float32)])  # seven codes far from everything
    codebook = train_kmeans_minibatch([vectors], 8, start=start, batch_size=200)
    codes = nearest_code(vectors, codebook)
    assert usage(codes, 8) == 1.0
    assert kmeans_reference.inertia(vectors, codebook) < 1.5 * kmeans_reference.inertia(
        vectors, train_kmeans(vectors, 8)
    )


def test_a_pass_comes_near_to_twenty_of_lloyd() -> None:
    for vectors in (
        draw(20_000, 4),
        draw(60, 4)[np.random.default_rng(1).integers(60, size=20_000)] + draw(20_000, 4) / 9,
    ):
        reached = kmeans_reference.inertia(vectors, train_kmeans_minibatch([vectors], 50))
        assert reached < 1.05 * kmeans_reference.inertia(vectors, train_kmeans(vectors, 50))


def test_every_number_of_threads_gives_the_same_bytes() -> None:
    vectors = draw(20_000, 9)
    first = train_kmeans_minibatch([vectors], 100, passes=2, threads=1)
    for threads in (2, 3, 4):
        assert np.array_equal(train_kmeans_minibatch([vectors], 100, passes=2, threads=threads), first)


def test_progress_and_dtype() -> None:
    vectors = draw(2000).astype(np.float64)
    reported: list[tuple[int, float]] = []
    codebook = train_kmeans_minibatch(
        [vectors], 5, passes=3, batch_size=100, progress=lambda *pair: reported.append(pair)
    )
    assert codebook.dtype == np.float64
    assert [number for number, _ in reported] == [1, 2, 3]
    assert reported[-1][1] == pytest.approx(kmeans_reference.inertia(vectors, codebook), rel=0.02)


def test_cosine_codes_have_length_one() -> None:
    codebook = train_kmeans_minibatch([draw(2000)], 5, metric="cosine", batch_size=100)
    assert np.allclose(np.linalg.norm(codebook, axis=1), 1)


def test_fewer_vectors_than_codes() -> None:
    vectors = np.repeat(draw(3), 5, axis=0)
    codebook = train_kmeans_minibatch([vectors], 8, passes=2)
    assert np.allclose(codebook[nearest_code(vectors, codebook)], vectors)
    assert train_kmeans_minibatch([vectors[:1]], 4).tolist() == [vectors[0].tolist()] * 4


def test_wrong_arguments() -> None:
    with pytest.raises(SpecError, match="codebook_size=0, passes=1"):
        train_kmeans_minibatch([draw(4)], 0)
    with pytest.raises(SpecError, match="passes=0"):
        train_kmeans_minibatch([draw(4)], 2, passes=0)
    with pytest.raises(SpecError, match="batch_size=0"):
        train_kmeans_minibatch([draw(4)], 2, batch_size=0)
