"""Video files by PyAV (`pip install 'multitok[video]'`): MP4, MOV, Matroska, WebM, AVI, MPEG -> uint8 [T, H, W, 3].

Every stored frame of the first video stream, in presentation order; timing (so the repeats of a variable frame rate),
sound and rotation flags are dropped. Decoded by one thread, so that the frames do not depend on the machine. Animated
PNG, WebP and GIF are the matter of `image.py`.

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
from multitok.frontend.media.whole import check_whole


def read_header(source: Source, format_name: str) -> tuple[int, int, int]:
    """Frames and size. The frames are counted, not decoded: what containers announce is often a duration.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the container.

    Returns:
        T, H, W.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not a video.
        MissingExtraError: PyAV is not installed.
    """
    with source.open() as file, _opened(source, file, format_name) as (container, stream):
        num_frames = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
        _check(source, num_frames, stream.height, stream.width)
        return num_frames, stream.height, stream.width


def decode_video(source: Source, format_name: str) -> NDArray[np.uint8]:
    """All frames of a video.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the container.

    Returns:
        [T, H, W, 3] uint8.

    Raises:
        InputError: No frames, or a limit is exceeded.
        MediaError: Cut short or damaged.
        MissingExtraError: PyAV is not installed.
    """
    with source.open() as file, _opened(source, file, format_name) as (container, stream):
        height, width = stream.height, stream.width
        frames: list[NDArray[np.uint8]] = []
        for frame in container.decode(stream):
            _check(source, len(frames) + 1, frame.height, frame.width)
            if (frame.height, frame.width) != (height, width):
                raise MediaError(
                    f"{source.name}: frame {len(frames)} is {frame.width} x {frame.height}, not {width} x {height}"
                )
            frames.append(frame.to_ndarray(format="rgb24"))
        if not frames:
            raise InputError(f"{source.name}: the video has no frames")
        return np.stack(frames)


@contextmanager
def _opened(source: Source, file: BinaryIO, format_name: str) -> Iterator[tuple[Any, Any]]:
    with guarded(source.name, "video"):
        check_whole(source.name, file, format_name)
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
