"""Sums of code vectors in several levels: exact arithmetic as the reference, values of any range."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.train.kmeans_sums import PRECISION, Sums, exponents

VALUES = st.one_of(
    st.floats(-100, 100, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.sampled_from([0.0, -0.0, 1e30, -1e30, 1e-30]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(VALUES, st.integers(0, 2)), min_size=1, max_size=30), st.sampled_from([2.0**-30, 1.0, 50.0]))
def test_as_close_as_promised(pairs: list[tuple[float, int]], usual: float) -> None:
    values = np.array([[value] for value, _ in pairs], np.float32)
    codes = np.array([code for _, code in pairs], np.int32)
    largest = float(np.abs(values).max())
    sums = Sums((3, 1), len(values), largest, min(usual, largest))
    sums.add(values, codes, None)
    assert sums.counts.tolist() == np.bincount(codes, minlength=3).tolist()
    for code in range(3):
        own = [Fraction(value) for value in values[codes == code, 0].tolist()]
        found = Fraction(float(sums.totals()[code, 0]))
        rounding = abs(sum(own)) * Fraction(2) ** -50  # of the float64 sums of the levels
        assert abs(found - sum(own)) <= len(own) * Fraction(PRECISION) / 2 * Fraction(min(usual, largest)) + rounding


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1.0, 1e12]))
def test_no_order_and_no_split_changes_a_bit(seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((60, 2)).astype(np.float32)
    vectors[5] *= far
    codes = rng.integers(0, 4, 60).astype(np.int32)
    largest = float(np.abs(vectors).max())
    totals = []
    for order in (np.arange(60), rng.permutation(60)):
        sums = Sums((4, 2), 60, largest, 0.7)
        for part in np.split(order, np.sort(rng.integers(0, 60, 3))):
            sums.add(vectors[part], codes[part], None)
        totals.append(sums.totals().tolist())
    assert totals[0] == totals[1]


def test_ordinary_data_takes_one_level() -> None:
    assert len(exponents(10**6, 6.0, 0.7)) == 1
    assert len(exponents(10**6, 1e6, 0.7)) == 2
    assert len(exponents(10**9, 3e38, 1e-30)) < 10
    assert len(exponents(10**6, 0.0, 0.0)) == 1
    # The finest unit that float64 allows ends it.
    assert len(exponents(100, 1e-300, 1e-320)) < 5
