"""The computed permutation: one-to-one, addressable anywhere, fair, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest

from multitok.loader.order import DocumentOrder

GOLDEN_10 = [1, 8, 4, 9, 5, 6, 7, 2, 3, 0]
GOLDEN_10_12 = [20157571877, 409659327212, 196094972938]


@pytest.mark.parametrize("count", [*range(1, 40), 63, 64, 65, 1000, 4097])
def test_one_to_one_in_every_epoch(count: int) -> None:
    for seed in (0, 1, -7, 2**70):
        order = DocumentOrder(count, seed, shuffle=True)
        for epoch in range(3):
            assert sorted(order.take(epoch, 0, count).tolist()) == list(range(count))


def test_any_stretch_by_itself() -> None:
    order = DocumentOrder(1000, 5, shuffle=True)
    whole = order.take(2, 0, 1000)
    for start, stop in ((0, 1), (17, 500), (999, 1000), (990, 2000), (1000, 1001)):
        assert np.array_equal(order.take(2, start, stop), whole[start:stop])


def test_without_shuffling() -> None:
    assert DocumentOrder(9, 5, shuffle=False).take(3, 2, 20).tolist() == [2, 3, 4, 5, 6, 7, 8]


def test_the_order_never_changes() -> None:
    """Saved states depend on it: another order is another format."""
    assert DocumentOrder(10, 0, shuffle=True).take(0, 0, 10).tolist() == GOLDEN_10
    assert DocumentOrder(10**12, 3, shuffle=True).take(1, 10**11, 10**11 + 3).tolist() == GOLDEN_10_12


def test_seeds_and_epochs_differ() -> None:
    orders = {
        tuple(DocumentOrder(50, seed, shuffle=True).take(epoch, 0, 50)) for seed in range(20) for epoch in range(20)
    }
    assert len(orders) == 400


def test_every_document_is_as_likely_everywhere() -> None:
    """Chi-squared over positions and over neighbours, on 4,000 seeds; deterministic, so it cannot fail by chance."""
    count, trials = 7, 4000
    places = np.zeros((count, count))
    neighbours = np.zeros((count, count))
    for seed in range(trials):
        order = DocumentOrder(count, seed, shuffle=True).take(0, 0, count)
        places[np.arange(count), order] += 1
        neighbours[order[:-1], order[1:]] += 1
    expected = trials / count
    assert ((places - expected) ** 2 / expected).sum() < 70  # 36 degrees of freedom: 99.9% lie below 68
    pairs = neighbours[~np.eye(count, dtype=bool)]
    assert ((pairs - expected) ** 2 / expected).sum() < 80  # 41 degrees of freedom: 99.9% lie below 75
