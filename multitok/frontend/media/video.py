"""Video files by PyAV (`pip install 'multitok[video]'`): MP4, MOV, Matroska, WebM, AVI, MPEG -> uint8 [T, H, W, 3].

Every frame of the first video stream, in presentation order; timing, sound and rotation flags are dropped.
Decoded by one thread, so that the frames do not depend on the machine. Animated PNG, WebP and GIF are `image.py`'s.

Shape letters: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media.source import Source, check_size, guarded


def read_header(source: Source) -> tuple[int, int, int]:
    """Frames and size: from the container where it announces them, else by counting the packets.

    Args:
        source: Where the bytes are.

    Returns:
        T, H, W.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not a video.
        MissingExtraError: PyAV is not installed.
    """
    with source.open() as file, _opened(source, file) as (container, stream):
        num_frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        _check(source, num_frames, stream.height, stream.width)
        return num_frames, stream.height, stream.width


def decode_video(source: Source) -> NDArray[np.uint8]:
    """All frames of a video.

    Args:
        source: Where the bytes are.

    Returns:
        [T, H, W, 3] uint8.

    Raises:
        InputError: No frames, or a limit is exceeded.
        MediaError: Cut short or damaged.
        MissingExtraError: PyAV is not installed.
    """
    with source.open() as file, _opened(source, file) as (container, stream):
        announced, height, width = stream.frames, stream.height, stream.width
        frames: list[NDArray[np.uint8]] = []
        for frame in container.decode(stream):
            _check(source, len(frames) + 1, frame.height, frame.width)
            if (frame.height, frame.width) != (height, width):
                raise MediaError(
                    f"{source.name}: frame {len(frames)} is {frame.width} x {frame.height}, not {width} x {height}"
                )
            frames.append(frame.to_ndarray(format="rgb24"))
        if len(frames) < announced:
            raise MediaError(
                f"{source.name}: video is cut short or damaged: {announced:,} frames announced, {len(frames):,} found"
            )
        if not frames:
            raise InputError(f"{source.name}: the video has no frames")
        return np.stack(frames)


@contextmanager
def _opened(source: Source, file: BinaryIO) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError(
            f"{source.name}: video files need PyAV: pip install 'multitok[video]'", name="av"
        ) from error
    with guarded(source.name, "video"), av.open(file, metadata_errors="replace") as container:
        if not container.streams.video:
            raise MediaError(f"{source.name}: the file has no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        _check(source, stream.frames, stream.height, stream.width)
        yield container, stream


def _check(source: Source, num_frames: int, height: int, width: int) -> None:
    limits = source.limits
    if height < 1 or width < 1:
        raise MediaError(f"{source.name}: frames of {width} x {height} pixels have nothing to read")
    if height * width > limits.max_pixels:
        raise InputError(
            f"{source.name}: frames of {width:,} x {height:,} are {height * width:,} pixels; "
            f"the limit is max_pixels={limits.max_pixels:,}"
        )
    if num_frames > limits.max_frames:
        raise InputError(f"{source.name}: {num_frames:,} frames or more; the limit is max_frames={limits.max_frames:,}")
    what = f"{num_frames:,} frames of {width:,} x {height:,}"
    check_size(source.name, what, num_frames * height * width * 3, limits)
