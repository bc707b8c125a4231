"""The linear map and the exponential of fixed bits: rows by themselves, slow references, limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitok.errors import SpecError
from multitok.nets.exact_linear import ExactLinear, exp, linear_tensors

RNG = np.random.default_rng(0)
WEIGHTS, CENTRE, BIAS = RNG.normal(size=(5, 7)), RNG.normal(size=7), RNG.normal(size=5)
LINEAR = ExactLinear(7, 5, 1024, linear_tensors(WEIGHTS, 1024, centre=CENTRE, bias=BIAS))


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.floats(0.1, 30))
def test_rows_do_not_know_of_each_other(seed: int, count: int, spread: float) -> None:
    x = np.random.default_rng(seed).normal(0, spread, (count, 7)).astype(np.float32)
    found = LINEAR(x)
    assert found.shape == (count, 5)
    for row, made in zip(x, found, strict=True):
        assert np.array_equal(LINEAR(row[None])[0], made)
    wanted = (x - CENTRE) @ WEIGHTS.T + BIAS
    assert np.abs(found - wanted).max(initial=0) < 0.01 + 1e-3 * spread


def test_sums_are_integers_and_exact() -> None:
    x = np.full((1, 7), 1e9, np.float32)
    held = LINEAR.tensors()
    total = sum(2**20 * int(each) for each in held["weights"][0])
    wanted = np.float32(float(total) * float(held["scale"][0]) + float(held["bias"][0]))
    assert LINEAR(x)[0, 0] == wanted


def test_a_row_of_zeros() -> None:
    linear = ExactLinear(3, 2, 16, linear_tensors(np.zeros((2, 3)), 16))
    assert linear(np.ones((4, 3), np.float32)).tolist() == [[0, 0]] * 4


def test_floats_give_the_same_map() -> None:
    weights, centre, bias = LINEAR.floats()
    assert np.abs(weights - WEIGHTS).max() < 1e-4
    again = linear_tensors(weights, 1024, centre=centre, bias=bias)
    assert all(np.array_equal(again[key], value) for key, value in LINEAR.tensors().items() if key != "scale")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match="not finite"):
        linear_tensors(np.array([[np.nan]]), 16)
    with pytest.raises(SpecError, match="unknown tensors more"):
        ExactLinear(7, 5, 1024, {**LINEAR.tensors(), "more": BIAS})
    with pytest.raises(SpecError, match=r"needs int16 \[4, 7\]"):
        ExactLinear(7, 4, 1024, LINEAR.tensors())


def test_the_exponential() -> None:
    values = np.linspace(-40, 40, 100_001)
    assert np.abs(exp(values) / np.exp(values) - 1).max() < 1e-12
    assert exp(np.zeros(3)).tolist() == [1.0, 1.0, 1.0]
