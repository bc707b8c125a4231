"""Small clips whose frames say which they are, written by PyAV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = (48, 64)
LOSSLESS = {"qp": "0", "threads": "1"}


def numbered(index: int) -> NDArray[np.uint8]:
    """Frame number `index`: six blocks, bright where a bit of the number is set, over noise that moves."""
    frame = np.random.default_rng(index).integers(0, 40, (*SIZE, 3)).astype(np.uint8)
    for bit in range(6):
        frame[8:24, 2 + 10 * bit : 10 + 10 * bit] = 230 if index >> bit & 1 else 60
    return frame


def number_of(frame: NDArray[np.uint8]) -> int:
    """The number that a frame shows."""
    return sum(int(frame[12:20, 4 + 10 * bit : 8 + 10 * bit].mean() > 145) << bit for bit in range(6))


def written(
    num_frames: int = 40,
    container: str = "mp4",
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    ticks: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    matrix: int | None = None,
    colour_range: int | None = None,
    frames: Sequence[Any] | None = None,
    size: tuple[int, int] = SIZE,
) -> bytes:
    """`numbered` frames, or the PyAV frames given, as a video file; `ticks` are times in 1/1000 s."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options={"threads": "1", **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        if colour_range is not None:
            stream.codec_context.color_range = colour_range
        for index in range(num_frames if frames is None else len(frames)):
            frame = av.VideoFrame.from_ndarray(numbered(index)) if frames is None else frames[index]
            if ticks is not None:
                frame.pts, frame.time_base = ticks[index], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()
