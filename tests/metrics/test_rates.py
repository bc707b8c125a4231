"""What codes cost, against counting by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitok.errors import InputError
from multitok.metrics import CodeCounts
from multitok.quantize import perplexity, usage

CODES = st.lists(st.integers(0, 20), min_size=1, max_size=60)


def reference_entropy_bits(codes: list[int]) -> float:
    """The definition, code by code."""
    counts = Counter(codes)
    return math.fsum(-math.log2(counts[code] / len(codes)) for code in codes) / len(codes)


@given(codes=CODES)
def test_entropy_is_its_definition_and_agrees_with_perplexity(codes: list[int]) -> None:
    counts = CodeCounts.of(np.array(codes))
    assert counts.entropy_bits == pytest.approx(reference_entropy_bits(codes), abs=1e-12)
    assert counts.perplexity == pytest.approx(perplexity(np.array(codes), 21))
    assert counts.usage(21) == usage(np.array(codes), 21)


@given(first=CODES, second=CODES)
def test_items_add_up_to_the_entropy_of_all(first: list[int], second: list[int]) -> None:
    parts = [CodeCounts.of(np.array(codes)) for codes in (first, second)]
    whole = CodeCounts.joined(parts)
    assert whole.entropy_bits == pytest.approx(reference_entropy_bits(first + second), abs=1e-12)
    bits = sum(part.bits_under(whole) for part in parts)
    assert bits == pytest.approx(whole.entropy_bits * len(first + second), abs=1e-9)
    # A table of one's own is never worse (Gibbs).
    assert all(part.bits_under(part) <= part.bits_under(whole) + 1e-9 for part in parts)


def test_known_values() -> None:
    assert CodeCounts.of(np.zeros(9, np.int32)).entropy_bits == 0
    assert CodeCounts.of(np.arange(1024)).entropy_bits == 10
    huge = CodeCounts.of(np.array([2**31 - 2, 5]))
    assert (huge.entropy_bits, huge.perplexity, huge.usage(2**31 - 1)) == (1, 2, 2 / (2**31 - 1))


@pytest.mark.parametrize("code", [3, 99])
def test_a_code_that_the_table_lacks_is_refused(code: int) -> None:
    table = CodeCounts.of(np.array([1, 2, 2, 7]))
    with pytest.raises(InputError, match="does not hold"):
        CodeCounts.of(np.array([1, code])).bits_under(table)
