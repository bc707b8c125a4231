"""Frames against a slow cut of the padded stream; the same however it is split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import ShapeError, SpecError
from multitok.frontend.framing import Framing


@st.composite
def framings(draw: st.DrawFn) -> Framing:
    hop = draw(st.integers(1, 6))
    window = draw(st.integers(hop, 20))
    return Framing(hop, window, draw(st.integers(0, window - 1)))


@given(framing=framings(), lengths=st.lists(st.integers(0, 30), max_size=10))
@settings(max_examples=200, deadline=None)
def test_any_split_gives_the_frames_of_the_padded_stream(framing: Framing, lengths: list[int]) -> None:
    samples = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    state, frames = framing.initial_state(), []
    for first, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        before = state.pending.copy()
        after, found = framing.step(state, samples[first : first + length])
        assert np.array_equal(before, state.pending)
        state, frames = after, [*frames, *found]
    frames += list(framing.finish(state))
    assert len(frames) == framing.num_frames(samples.size) == -(-samples.size // framing.hop_length)
    padded = np.pad(samples, (framing.lead, framing.window_length))
    for t, frame in enumerate(frames):
        start = t * framing.hop_length
        assert np.array_equal(frame, padded[start : start + framing.window_length])


@pytest.mark.parametrize("lengths", [(0, 4, 0), (4, 3, 0), (2, 4, 4), (2, 4, -1)])
def test_lengths_that_cannot_be_are_refused(lengths: tuple[int, int, int]) -> None:
    with pytest.raises(SpecError, match="give 0 < hop <= window and 0 <= lead < window"):
        Framing(*lengths)


def test_several_channels_are_refused() -> None:
    framing = Framing(2, 4, 1)
    with pytest.raises(ShapeError, match=r"samples of shape \[2, 8\]: give one channel"):
        framing.step(framing.initial_state(), np.zeros((2, 8), np.float32))
