"""Patches against index loops, and the round trip for any number of axes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import InputError, ShapeError
from multitok.frontend.patches import from_patches, patch_grid, to_patches

axes = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 4)), min_size=1, max_size=4)


def raw_array(extent: tuple[int, ...], channels: int) -> np.ndarray:
    return np.arange(int(np.prod(extent)) * channels, dtype=np.int32).reshape(*extent, channels)


@settings(deadline=None, max_examples=80)
@given(axes, st.integers(1, 3))
def test_equals_index_loops(sizes: list[tuple[int, int]], channels: int) -> None:
    extent, patch = tuple(n for n, _ in sizes), tuple(step for _, step in sizes)
    raw = raw_array(extent, channels)
    expected = []
    for cell in itertools.product(*map(range, patch_grid(extent, patch))):
        values: list[int] = []
        for inner in itertools.product(*map(range, patch)):
            position = [min(c * step + i, n - 1) for c, i, step, n in zip(cell, inner, patch, extent, strict=True)]
            values += raw[tuple(position)].tolist()
        expected.append(values)
    assert to_patches(raw, patch).tolist() == expected


@settings(deadline=None, max_examples=80)
@given(axes, st.integers(1, 3))
def test_round_trip(sizes: list[tuple[int, int]], channels: int) -> None:
    extent, patch = tuple(n for n, _ in sizes), tuple(step for _, step in sizes)
    raw = raw_array(extent, channels)
    back = from_patches(to_patches(raw, patch), patch, extent)
    assert back.dtype == raw.dtype
    assert np.array_equal(back, raw)


def test_the_drawing_in_the_docstring() -> None:
    rows = ["aaabbb", "aaabbb", "cccddd", "cccddd", "eeefff"]
    raw = np.array([list(row) for row in rows])[..., None]
    assert ["".join(patch) for patch in to_patches(raw, (2, 3))] == [letter * 6 for letter in "abcdef"]


def test_does_not_change_or_share_its_input() -> None:
    raw = raw_array((4, 4), 1)
    patches = to_patches(raw, (4, 4))
    patches[:] = 0
    assert raw.any()


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match="give one patch size for each axis"):
        to_patches(np.ones((4, 4, 3)), (2, 2, 2))
    with pytest.raises(InputError, match="nothing to cut"):
        to_patches(np.ones((0, 4, 3)), (2, 2))
    with pytest.raises(ShapeError, match=r"give \[4, 4 \* channels\]"):
        from_patches(np.ones((3, 4)), (2, 2), (4, 4))
    with pytest.raises(ShapeError, match=r"give \[4, 4 \* channels\]"):
        from_patches(np.ones((4, 5)), (2, 2), (4, 4))
