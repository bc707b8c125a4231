"""The geometry of tiles: cores cover a grid once, surroundings are those asked for, sizes keep to their bound."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from multitok.tokenizers._nd_tiles import core_sizes, spans

HALOS = st.tuples(st.integers(0, 4), st.integers(0, 4))


@given(st.integers(1, 60), st.integers(1, 70), HALOS)
def test_cores_cover_an_axis_once(length: int, size: int, halo: tuple[int, int]) -> None:
    covered = np.zeros(length, int)
    for span in spans(length, size, halo):
        covered[span.core] += 1
        assert span.core.stop - span.core.start <= size
        assert span.whole == slice(max(0, span.core.start - halo[0]), min(length, span.core.stop + halo[1]))
        steps = np.arange(length)
        assert np.array_equal(steps[span.whole][span.inside], steps[span.core])
    assert (covered == 1).all()


@given(st.tuples(*[st.integers(1, 90)] * 3), st.tuples(HALOS, HALOS, HALOS), st.integers(1, 100_000))
def test_tiles_keep_to_their_bound(grid: tuple[int, ...], halos: tuple[tuple[int, int], ...], most: int) -> None:
    sizes = core_sizes(grid, halos, most)
    assert all(1 <= size <= n for size, n in zip(sizes, grid, strict=True))
    positions = np.prod([min(n, s + sum(halo)) for n, s, halo in zip(grid, sizes, halos, strict=True)])
    assert positions <= most or sizes == (1, 1, 1)
    if np.prod(grid) <= most:
        assert sizes == grid


def test_tiles_waste_little() -> None:
    grid, around = (1, 4096, 4096), (16, 16)
    sizes = core_sizes(grid, ((0, 0), around, around), 2**16)
    computed = sum(
        (row.whole.stop - row.whole.start) * (column.whole.stop - column.whole.start)
        for row in spans(4096, sizes[1], around)
        for column in spans(4096, sizes[2], around)
    )
    # A square of 256 x 256 gives 224 x 224: 1.31.
    assert computed / 4096**2 < 1.37


def test_a_long_video_is_cut_in_time_first() -> None:
    # What memory carries over costs nothing; what overlaps is computed twice.
    assert core_sizes((90_000, 45, 80), ((0, 0), (16, 16), (16, 16)), 2**15)[1:] == (45, 80)
