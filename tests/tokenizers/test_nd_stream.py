"""Video in pieces, however it is cut: codes and frames of the whole clip."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError
from multitok.protocol import Codes
from multitok.tokenizers import _nd_codec
from multitok.tokenizers.video_vq import VideoVq
from tests.tokenizers.nd_models import config, pixels, random_net

VIDEO = VideoVq(random_net(config((4, 2, 4), taps=(-1, 0))))
FRAMES = VideoVq(random_net(config((3, 2, 2), codebook_sizes=(7, 5), tables=1)))
tokenizers = st.sampled_from([VIDEO, FRAMES])
examples = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pieces(raw: NDArray[np.uint8], cuts: list[int]) -> Iterator[NDArray[np.uint8]]:
    for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        yield raw[start:stop]


@examples
@given(tokenizers, st.integers(1, 22), st.lists(st.integers(0, 22), max_size=6), st.integers(200, 1500))
def test_a_stream_equals_the_clip(
    monkeypatch: pytest.MonkeyPatch, tokenizer: VideoVq, length: int, cuts: list[int], tile: int
) -> None:
    raw = pixels((length, 22, 61))
    cuts = sorted(min(cut, length) for cut in cuts)
    whole = tokenizer.encode(raw)
    monkeypatch.setattr(_nd_codec, "TILE_POSITIONS", tile)
    stream = tokenizer.stream()
    parts = [stream.push(part) for part in pieces(raw, cuts)]
    # What is complete comes at once: a step waits for its own frames only.
    assert sum(part.grid[0] for part in parts) == length // tokenizer.spec.stride[0]
    parts.append(stream.flush())
    assert Codes.join(parts) == whole
    decoder = tokenizer.decode_stream()
    frames = np.concatenate([decoder.push(part) for part in parts])
    monkeypatch.undo()
    assert np.array_equal(frames, tokenizer.decode(whole))


@examples
@given(tokenizers, st.integers(1, 13), st.integers(1, 2))
def test_frame_by_frame(tokenizer: VideoVq, length: int, num_codebooks: int) -> None:
    raw = pixels((length, 5, 9))
    whole = tokenizer.encode(raw)
    parts = list(tokenizer.encode_frames(raw[i : i + 1] for i in range(length)))
    assert Codes.join(parts) == whole
    assert all(part.grid[0] == 1 for part in parts)
    decoded = list(tokenizer.decode_frames(parts, num_codebooks=num_codebooks))
    assert [len(frames) for frames in decoded] == [part.extent[0] for part in parts]
    assert np.array_equal(np.concatenate(decoded), tokenizer.decode(whole, num_codebooks=num_codebooks))


@examples
@given(st.lists(st.integers(0, 5), max_size=4))
def test_decoding_may_be_cut_elsewhere(cuts: list[int]) -> None:
    raw = pixels((18, 6, 10))
    whole = VIDEO.encode(raw)
    steps = [0, *sorted(cuts), whole.grid[0]]
    stream, frames = VIDEO.decode_stream(), []
    for start, stop in pairwise(steps):
        length = min(stop * 4, 18) - min(start * 4, 18)
        frames.append(stream.push(Codes(whole.values[:, start:stop], (length, 6, 10))))
    assert np.array_equal(np.concatenate(frames), VIDEO.decode(whole))


def test_streams_keep_their_clips_apart() -> None:
    one, other = pixels((8, 6, 8), 1), pixels((8, 6, 8), 2)
    streams = [VIDEO.stream(), VIDEO.stream()]
    parts: list[list[Codes]] = [[], []]
    for i in range(0, 8, 4):
        for stream, raw, found in zip(streams, (one, other), parts, strict=True):
            found.append(stream.push(raw[i : i + 4]))
    assert Codes.join(parts[0]) == VIDEO.encode(one)
    assert Codes.join(parts[1]) == VIDEO.encode(other)


def test_a_stream_keeps_no_frames_of_the_caller() -> None:
    raw = pixels((6, 6, 8))
    stream, buffer = VIDEO.stream(), np.empty((1, 6, 8, 3), np.uint8)
    parts = []
    for frame in raw:
        buffer[0] = frame
        parts.append(stream.push(buffer))
    assert Codes.join([*parts, stream.flush()]) == VIDEO.encode(raw)


def test_what_a_stream_refuses() -> None:
    stream = VIDEO.stream()
    with pytest.raises(InputError, match="push frames"):
        stream.flush()
    with pytest.raises(InputError, match="height and width"):
        stream.push(np.zeros((2, 0, 4, 3), np.uint8))
    with pytest.raises(ShapeError, match=r"give uint8 \[T, H, W, 3\]"):
        stream.push(np.zeros((4, 4, 3), np.uint8))
    stream.push(pixels((3, 6, 8)))
    with pytest.raises(ShapeError, match="6 x 10 pixels after some of 6 x 8"):
        stream.push(pixels((1, 6, 10)))
    assert stream.flush().extent == (3, 6, 8)
    for use in (stream.flush, lambda: stream.push(pixels((1, 6, 8)))):
        with pytest.raises(InputError, match="flush"):
            use()
    with pytest.raises(InputError, match="push frames"):
        list(VIDEO.encode_frames([]))
    with pytest.raises(InputError, match="no parts"):
        Codes.join([])


def test_what_a_decoding_stream_refuses() -> None:
    codes = VIDEO.encode(pixels((6, 6, 8)))
    stream = VIDEO.decode_stream()
    with pytest.raises(CodeRangeError):
        stream.push(Codes(codes.values + 16, codes.extent))
    with pytest.raises(ShapeError, match="make a grid"):
        stream.push(Codes(codes.values, (9, 6, 8)))
    assert len(stream.push(Codes(codes.values[:, :0], (0, 6, 8)))) == 0
    assert len(stream.push(Codes(codes.values[:, :1], (4, 6, 8)))) == 4
    with pytest.raises(ShapeError, match="a clip has one size"):
        stream.push(Codes(codes.values[:, 1:], (2, 5, 8)))
    assert len(stream.push(Codes(codes.values[:, 1:], (2, 6, 8)))) == 2
    with pytest.raises(ShapeError, match="a clip ends there"):
        stream.push(Codes(codes.values[:, 1:], (2, 6, 8)))
    with pytest.raises(SpecError, match="1 to 3"):
        VIDEO.decode_stream(num_codebooks=4)
