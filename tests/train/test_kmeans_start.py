"""The start of k-means: draws with the probabilities of k-means++, and drops the codes that matter least."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.train import kmeans_start
from multitok.train.kmeans import train_kmeans
from tests.train.kmeans_reference import inertia


def squared(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances between all rows of the two."""
    distances: NDArray[np.float64] = ((left[:, None] - right) ** 2).sum(axis=2)
    return distances


def probabilities(points: NDArray[np.float64], size: int) -> dict[tuple[int, ...], float]:
    """Of each sequence of codes, by the definition of k-means++."""
    found = {}
    for chosen in itertools.permutations(range(len(points)), size):
        probability = 1 / len(points)
        for n in range(1, size):
            distances = squared(points, points[list(chosen[:n])]).min(axis=1)
            probability *= distances[chosen[n]] / distances.sum()
        found[chosen] = probability
    return found


@pytest.mark.parametrize("part", [1, 2, 64])
def test_codes_are_drawn_as_k_means_plus_plus_says(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small parts: between two updates of the distances, codes are accepted against older and newer ones.
    monkeypatch.setattr(kmeans_start, "PART", part)
    monkeypatch.setattr(kmeans_start, "_distance", lambda codes, vectors, _: squared(vectors, codes).min(axis=1))
    points = np.array([[0, 0], [1, 0], [0, 3], [7, 1], [7, 2]], np.float64)
    draws = 3000
    seen = Counter(
        tuple(kmeans_start._plus_plus(points, 4, np.random.default_rng(seed), 1).tolist()) for seed in range(draws)
    )
    expected = probabilities(points, 4)
    assert set(seen) <= {chosen for chosen, probability in expected.items() if probability > 0}
    for chosen, probability in expected.items():
        deviation = (draws * probability * (1 - probability)) ** 0.5
        assert abs(seen[chosen] - draws * probability) <= 4.5 * deviation + 1


def test_codes_differ_until_there_are_none_left() -> None:
    sample = np.random.default_rng(0).integers(0, 4, (500, 2)).astype(np.float32)  # 16 different vectors
    for seed in range(20):
        chosen = kmeans_start._plus_plus(sample, 12, np.random.default_rng(seed), 1)
        assert len(np.unique(sample[chosen], axis=0)) == 12
        assert len(kmeans_start._plus_plus(sample, 40, np.random.default_rng(seed), 1)) == 16


def test_the_codes_that_matter_least_are_dropped() -> None:
    clusters = np.repeat(np.array([[0, 0], [9, 0], [0, 9]], np.float32), [10, 10, 1], axis=0)
    # Two codes share the first cluster, the third has one vector, but one far away.
    codes = np.array([[0.1, 0], [9, 0], [0, 9], [-0.1, 0]], np.float32)
    kept = kmeans_start._without_surplus(codes, clusters, 3, 1)
    assert kept.tolist() == codes[1:].tolist()
    # Of three, the one goes that serves a single vector: 81 away, the others 10 times 81.
    assert kmeans_start._without_surplus(codes[:3], clusters, 2, 1).tolist() == codes[:2].tolist()


def test_neighbours_are_not_dropped_together() -> None:
    # Without either code of a pair, the other serves its cluster nearly as well; without both, nothing does.
    centres = np.arange(8)[:, None] * np.float32(100)
    sample = np.concatenate([centres - 1, centres + 1, centres + 1]).astype(np.float32)
    codes = np.concatenate([centres - 1, centres + 1]).astype(np.float32)
    kept = kmeans_start._without_surplus(codes, sample, 8, 1)
    assert np.rint(kept / 100).tolist() == (centres / 100).tolist()


def test_the_start_is_better_than_plain_k_means_plus_plus() -> None:
    ratios = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        vectors = (rng.standard_normal((40, 3))[rng.integers(40, size=1500)] * 8).astype(np.float32)
        vectors += rng.standard_normal(vectors.shape).astype(np.float32) * 0.5
        plain = vectors[kmeans_start._plus_plus(vectors, 40, rng, 1)]
        trained = [train_kmeans(vectors, 40, start=start, seed=seed) for start in (plain, "k-means++")]
        ratios.append(inertia(vectors, trained[1]) / inertia(vectors, trained[0]))
    assert np.mean(ratios) < 0.9


def test_a_sample_is_drawn_without_repetition() -> None:
    vectors = np.arange(300, dtype=np.float32)[:, None]
    codes = [train_kmeans(vectors, 300, start="sample", seed=seed, iterations=1) for seed in (0, 1)]
    assert sorted(codes[0][:, 0].tolist()) == vectors[:, 0].tolist()
    assert codes[0].tolist() != codes[1].tolist()


def test_the_sample_is_bounded() -> None:
    rows = kmeans_start.sample_rows("k-means++", 1000, 8, np.dtype(np.float32))
    assert rows == 32_000
    for dim in (256, 100_000):
        rows = kmeans_start.sample_rows("k-means++", 65_536, dim, np.dtype(np.float32))
        assert 4 * 65_536 <= rows < 32 * 65_536
