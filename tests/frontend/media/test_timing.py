"""Which frames a new rate takes, against the rule written out."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitok.errors import InputError
from multitok.frontend.media.timing import Shown, as_frame_rate, num_resampled, resample, select

rates = st.fractions(min_value=Fraction(1, 4), max_value=120, max_denominator=1001)
durations = st.lists(st.integers(1, 400), min_size=1, max_size=30)


def shown(ticks: list[int]) -> list[Shown]:
    """Frames that last so many milliseconds; the pixels of frame k are k."""
    times = np.cumsum([0, *ticks]).tolist()
    return [
        Shown(Fraction(time, 1000), Fraction(tick, 1000), lambda k=k: np.full((1, 1, 3), k, np.uint8))  # type: ignore[misc]
        for k, (time, tick) in enumerate(zip(times[:-1], ticks, strict=True))
    ]


def numbers(frames: Iterator[Shown]) -> list[tuple[Fraction, int]]:
    return [(frame.time, int(frame.pixels()[0, 0, 0])) for frame in frames]


def slow_resample(
    frames: list[Shown], fps: Fraction, start: Fraction, end: Fraction | None
) -> list[tuple[Fraction, int]]:
    """Every moment, every frame: the nearest, the first of equals."""
    stop = frames[-1].time + frames[-1].duration
    stop = stop if end is None else min(stop, end)
    taken = []
    k = 0
    while start + k / fps < stop:
        moment = start + k / fps
        distances = [abs(frame.time - moment) for frame in frames]
        taken.append((moment, distances.index(min(distances))))
        k += 1
    return taken


@given(durations, rates, st.integers(0, 2000), st.none() | st.integers(1, 4000))
def test_resample_is_the_rule(ticks: list[int], fps: Fraction, start: int, length: int | None) -> None:
    frames = shown(ticks)
    begin = Fraction(start, 1000)
    end = None if length is None else begin + Fraction(length, 1000)
    assert numbers(resample(iter(frames), fps, begin, end)) == slow_resample(frames, fps, begin, end)


@given(durations, rates)
def test_the_count_is_known_beforehand(ticks: list[int], fps: Fraction) -> None:
    taken = list(resample(iter(shown(ticks)), fps, Fraction(0), None))
    assert len(taken) == num_resampled(Fraction(sum(ticks), 1000), fps)


@given(durations, st.integers(0, 2000), st.none() | st.integers(1, 4000))
def test_select_takes_frames_by_their_own_time(ticks: list[int], start: int, length: int | None) -> None:
    frames = shown(ticks)
    begin = Fraction(start, 1000)
    end = None if length is None else begin + Fraction(length, 1000)
    kept = [frame for frame in frames if frame.time >= begin and (end is None or frame.time < end)]
    assert list(select(iter(frames), begin, end)) == kept


def test_equal_rates_keep_every_frame_and_time_does_not_drift() -> None:
    fps = Fraction(30_000, 1001)
    many = 600 * 30
    frames = (Shown(k / fps, 1 / fps, lambda: np.empty(0, np.uint8)) for k in range(many))
    count = 0
    for k, frame in enumerate(resample(frames, fps, Fraction(0), None)):
        assert frame.time == k / fps
        count += 1
    assert count == many


@pytest.mark.parametrize(
    ("given_", "expected"),
    [(25, "25"), ("30000/1001", "30000/1001"), (29.97, "2997/100"), (0.5, "1/2"), (Fraction(24), "24"), (" 8 ", "8")],
)
def test_a_rate_is_what_it_says(given_: float | str | Fraction, expected: str) -> None:
    assert str(as_frame_rate(given_)) == expected


@pytest.mark.parametrize("wrong", [0, -1, "fast", "1/0", float("nan"), float("inf"), 1001, ""])
def test_what_is_no_rate(wrong: float | str) -> None:
    with pytest.raises(InputError, match="fps="):
        as_frame_rate(wrong)
