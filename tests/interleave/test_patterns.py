"""Flatten patterns against slow loops, their exact inverses, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import PatternError
from multitok.interleave import Pattern, Plan, grid_of
from multitok.interleave.plans import EMPTY, FRAME, ROW
from tests.interleave import reference

MARKS = {".": EMPTY, "R": ROW, "F": FRAME}


@st.composite
def patterns(draw: st.DrawFn) -> tuple[Pattern, int, tuple[int, ...]]:
    """A pattern that fits the number of codebooks and the grid drawn with it."""
    num_codebooks = draw(st.integers(1, 5))
    grid = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    codebooks = draw(st.sampled_from(["flat", "parallel", "delay", "coarse-first"]))
    numbers: tuple[int, ...] = ()
    if codebooks == "delay" and draw(st.booleans()):
        numbers = tuple(draw(st.lists(st.integers(0, 6), min_size=num_codebooks, max_size=num_codebooks)))
    if codebooks == "coarse-first" and draw(st.booleans()):
        cuts = sorted(draw(st.sets(st.integers(1, num_codebooks - 1)))) if num_codebooks > 1 else []
        numbers = tuple(np.diff([0, *cuts, num_codebooks]).tolist())
    separators = len(grid) > 1 and codebooks in ("flat", "coarse-first")
    pattern = Pattern(
        positions=draw(st.sampled_from(["raster", "column"])),
        codebooks=codebooks,
        numbers=numbers,
        row=separators and draw(st.booleans()),
        frame=separators and draw(st.booleans()),
    )
    return pattern, num_codebooks, grid


def values_of(num_codebooks: int, grid: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.arange(num_codebooks * int(np.prod(grid)), dtype=np.int32).reshape(num_codebooks, *grid)


@given(patterns())
@settings(max_examples=400, deadline=None)
def test_plans_do_what_the_loops_do(drawn: tuple[Pattern, int, tuple[int, ...]]) -> None:
    pattern, num_codebooks, grid = drawn
    plan, values = Plan.of(pattern, num_codebooks, grid), values_of(num_codebooks, grid)
    expected = reference.flatten(
        values,
        order=pattern.positions,
        codebooks=pattern.codebooks,
        numbers=pattern.numbers,
        row=pattern.row,
        frame=pattern.frame,
    )
    stream = plan.flatten(values)
    assert stream.tolist() == [MARKS.get(token, token) for token in expected]
    assert plan.length == len(expected)
    assert plan.sources().tolist() == stream.tolist()
    assert stream.dtype == values.dtype
    np.testing.assert_array_equal(plan.unflatten(stream), values)


@given(patterns())
@settings(max_examples=200, deadline=None)
def test_the_string_rebuilds_the_plan(drawn: tuple[Pattern, int, tuple[int, ...]]) -> None:
    pattern, num_codebooks, grid = drawn
    assert Pattern.parse(str(pattern)) == pattern
    plan = Plan.of(pattern, num_codebooks, grid)
    assert Plan.of(str(plan.pattern), num_codebooks, grid) is plan


@given(patterns())
@settings(max_examples=200, deadline=None)
def test_streams_hold_one_codebook_each(drawn: tuple[Pattern, int, tuple[int, ...]]) -> None:
    pattern, num_codebooks, grid = drawn
    plan, values = Plan.of(pattern, num_codebooks, grid), values_of(num_codebooks, grid)
    streams = plan.streams(plan.flatten(values))
    assert streams.shape == (plan.num_streams, plan.num_steps)
    if pattern.codebooks in ("parallel", "delay"):
        flat = np.asarray(reference.positions_of(grid, pattern.positions), np.int64).reshape(-1, len(grid)).T
        for k in range(num_codebooks):
            assert streams[k][streams[k] >= 0].tolist() == values[(k, *flat)].tolist()


@given(patterns(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_stream_is_refused(drawn: tuple[Pattern, int, tuple[int, ...]], data: st.DataObject) -> None:
    pattern, num_codebooks, grid = drawn
    plan = Plan.of(pattern, num_codebooks, grid)
    stream = plan.flatten(values_of(num_codebooks, grid))
    with pytest.raises(PatternError, match=f"a stream of {plan.length + 1} tokens .* takes {plan.length}"):
        plan.unflatten(np.append(stream, 0))
    marks = np.flatnonzero(stream < 0)
    if marks.size:
        place = data.draw(st.sampled_from(marks.tolist()))
        damaged = stream.copy()
        damaged[place] = 77
        word = {EMPTY: "empty", ROW: "row", FRAME: "frame"}[int(stream[place])]
        with pytest.raises(PatternError, match=f"77 where the {word} token .* is due, at token {place} of the stream"):
            plan.unflatten(damaged)


@given(patterns())
@settings(max_examples=300, deadline=None)
def test_grids_are_read_off_streams_that_tell_them(drawn: tuple[Pattern, int, tuple[int, ...]]) -> None:
    pattern, num_codebooks, grid = drawn
    stream = Plan.of(pattern, num_codebooks, grid).flatten(values_of(num_codebooks, grid))
    told = {1: True, 2: pattern.row, 3: pattern.row and pattern.frame}[len(grid)]
    if not told:
        with pytest.raises(PatternError, match=f"does not tell the size of a grid of {len(grid)} axes"):
            grid_of(pattern, stream, num_codebooks, len(grid))
        return
    found = grid_of(pattern, stream, num_codebooks, len(grid))
    # With no positions a zero may stand on more than one axis; the stream is the same.
    again = Plan.of(pattern, num_codebooks, found).flatten(values_of(num_codebooks, found))
    np.testing.assert_array_equal(again, stream)
    if stream.size and min(grid) > 0:
        assert found == grid


def test_one_codebook_on_a_grid() -> None:
    values = values_of(1, (2, 3))

    def stream(pattern: str) -> list[int]:
        return Plan.of(pattern, 1, (2, 3)).flatten(values, row=70, frame=71).tolist()

    assert stream("raster") == [0, 1, 2, 3, 4, 5]
    assert stream("column") == [0, 3, 1, 4, 2, 5]
    assert stream("raster+row+frame") == [0, 1, 2, 70, 3, 4, 5, 70, 71]
    assert stream("column+row") == [0, 3, 70, 1, 4, 70, 2, 5, 70]


def test_three_codebooks_in_a_line() -> None:
    """The drawing in the module's docstring, with a0 = 0, b0 = 1, ..., a1 = 4, ..."""
    values = values_of(3, (4,))

    def steps(pattern: str) -> list[list[int]]:
        plan = Plan.of(pattern, 3, (4,))
        return plan.streams(plan.flatten(values, empty=99)).tolist()

    assert steps("parallel") == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert steps("delay") == [[0, 1, 2, 3, 99, 99], [99, 4, 5, 6, 7, 99], [99, 99, 8, 9, 10, 11]]
    assert steps("delay:0,1,1") == [[0, 1, 2, 3, 99], [99, 4, 5, 6, 7], [99, 8, 9, 10, 11]]
    assert steps("flat") == [[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]]
    assert steps("coarse-first") == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]
    assert steps("coarse-first:1,2") == [[0, 1, 2, 3, 4, 8, 5, 9, 6, 10, 7, 11]]


def test_plans_are_made_once() -> None:
    assert Plan.of("delay", 3, (4,)) is Plan.of("delay:0,1,2", 3, [np.int64(4)])
    with pytest.raises(AttributeError):
        Plan.of("raster", 1, (4,)).grid = (5,)  # type: ignore[misc]


def test_flatten_into_a_given_array() -> None:
    out = np.zeros(10, np.int64)
    plan = Plan.of("raster", 1, (3,))
    plan.flatten(values_of(1, (3,)) + 5, out=out[4:7])
    assert out.tolist() == [0, 0, 0, 0, 5, 6, 7, 0, 0, 0]
    with pytest.raises(PatternError, match=r"out of shape \[4\]: give a contiguous array of 3 tokens"):
        plan.flatten(values_of(1, (3,)), out=out[:4])
    with pytest.raises(PatternError, match="give a contiguous array"):
        plan.flatten(values_of(1, (3,)), out=out[:6:2])
    with pytest.raises(PatternError, match=r"values of shape \[1, 4\] for a plan of 1 codebooks over \(3,\)"):
        plan.flatten(values_of(1, (4,)))
    with pytest.raises(PatternError, match="a stream of 4 tokens for raster, which takes 3"):
        plan.streams(out[:4])


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("raster", "raster"),
        ("flat", "raster"),
        ("row+frame+flat", "raster+row+frame"),
        ("parallel", "parallel"),
        ("raster+delay:0,2,1", "delay:0,2,1"),
        ("coarse-first:1,3+column+row", "column+coarse-first:1,3+row"),
    ],
)
def test_canonical_strings(text: str, canonical: str) -> None:
    assert str(Pattern.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pattern '': '' is none of raster, column, flat, parallel, delay, coarse-first, row, frame"),
        ("Raster", "'Raster' is none of"),
        ("delay:", "'delay:' is none of"),
        ("delay:0,-1", "'delay:0,-1' is none of"),
        ("row:1", "'row:1' is none of"),
        ("raster+column", "gives its positions twice"),
        ("raster+raster", "gives its positions twice"),
        ("row+row", "gives its row twice"),
        ("flat:1", "numbers (1,) for 'flat': only delay"),
        ("coarse-first:0,1", "numbers (0, 1) for 'coarse-first'"),
        ("delay:9999999", "up to 1048576"),
        ("delay+row", "row and frame tokens inside 'delay'"),
        ("parallel+frame", "row and frame tokens inside 'parallel'"),
    ],
)
def test_strings_that_are_no_pattern(text: str, message: str) -> None:
    with pytest.raises(PatternError, match=re.escape(message)):
        Pattern.parse(text)


def test_patterns_that_do_not_fit() -> None:
    with pytest.raises(PatternError, match="delay:0,1: 2 delays for 3 codebooks; give one for each"):
        Plan.of("delay:0,1", 3, (4,))
    with pytest.raises(PatternError, match="coarse-first:1,3: groups of 4 codebooks in all, there are 3"):
        Plan.of("coarse-first:1,3", 3, (4,))
    with pytest.raises(PatternError, match=r"raster\+row over the grid \(4,\): row and frame tokens need two axes"):
        Plan.of("raster+row", 1, (4,))
    for num_codebooks, grid in ((0, (4,)), (1, ()), (1, (-1,))):
        with pytest.raises(PatternError, match="give at least one codebook and axis"):
            Plan.of("raster", num_codebooks, grid)
    with pytest.raises(PatternError, match="resolve the pattern for 3 codebooks first"):
        Plan(Pattern.parse("delay"), 3, (4,))
    with pytest.raises(PatternError, match="no grid of 1 axes and 2 codebooks makes that with delay:0,3"):
        grid_of(Pattern.parse("delay:0,3"), np.zeros(4, np.int32), 2, 1)
    with pytest.raises(PatternError, match="a stream of 4 tokens with 1 row and 0 frame tokens: no grid of 2 axes"):
        grid_of(Pattern.parse("raster+row"), np.asarray([1, 2, 3, ROW]), 2, 2)
