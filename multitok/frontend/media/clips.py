"""Clips with their times: video files and animated pictures, whole or in chunks, at their own frame rate or another.

    for part in iter_frames("match.mp4", chunk=32, fps=8, start_s=60):
        part.pixels         uint8 [at most 32, H, W, 3]
        part.timestamps     (Fraction(60), Fraction(481, 8), ...): seconds from the file's first frame

One chunk is in memory at a time, and the frames are those of the whole clip, wherever the chunks begin. Which frames
a new rate takes stands in `timing.py`; how a start is found without decoding all that is before it, in `video.py`.

Shape letters: T frames, H rows, W columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media import image, video
from multitok.frontend.media.kinds import resolve
from multitok.frontend.media.source import Data, Limits, Source, as_source
from multitok.frontend.media.timing import FrameRate, Shown, as_frame_rate, resample, select
from multitok.protocol import Modality

PICTURES = ("png", "jpeg", "webp", "gif", "bmp", "tiff")
_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames in order of time.

    Args:
        pixels: [T, H, W, 3] uint8.
        timestamps: Seconds from the file's first frame, one a frame.
        durations: Seconds that each frame is shown.
        damage: What was left out so far, in words; empty where nothing was.
    """

    pixels: NDArray[np.uint8]
    timestamps: tuple[Fraction, ...]
    durations: tuple[Fraction, ...]
    damage: tuple[str, ...] = ()

    @property
    def frame_rate_hz(self) -> Fraction:
        """Frames a second, on average."""
        return len(self.durations) / sum(self.durations, Fraction(0))


def iter_frames(
    data: Data,
    name: str = "",
    *,
    chunk: int = 16,
    fps: FrameRate | None = None,
    start_s: Fraction | float = 0,
    end_s: Fraction | float | None = None,
    frames: tuple[int, int | None] | None = None,
    skip_damage: bool = False,
    limits: Limits = _DEFAULT_LIMITS,
) -> Iterator[Clip]:
    """A clip in chunks of `chunk` frames, the last one perhaps shorter.

    Args:
        data: The content, or the path to it: a video file, or an animated GIF, PNG or WebP.
        name: File name; defaults to the path's.
        chunk: Frames a chunk.
        fps: Frames a second of the output, nearest by time; None gives the stored frames.
        start_s: Where to begin, in seconds from the first frame.
        end_s: Where to end, itself left out; None for the end of the clip.
        frames: The stored frames from the first number to before the second (None: to the end), in place of times.
        skip_damage: Leave out what is damaged, up to the next key frame, and say so in `Clip.damage`.
        limits: Largest frame and file; `max_frames` and the size of the whole clip do not count here.

    Yields:
        The chunks, at least one.

    Raises:
        InputError: No frames in that stretch, arguments that do not go together, or a limit is exceeded.
        MediaError: The bytes are not a clip, cut short or damaged.
        MissingExtraError: PyAV is not installed.
    """
    source = as_source(data, name, limits)
    if chunk < 1:
        raise InputError(f"chunk={chunk}: give 1 or more frames")
    damage: list[str] | None = [] if skip_damage else None
    found, _ = resolve(source.head(), source.name, Modality.VIDEO)
    shown = _shown(source, found.name, fps, start_s, end_s, frames, damage)
    is_empty = True
    while group := list(itertools.islice(shown, chunk)):
        is_empty = False
        yield _clip(group, damage)
    if is_empty:
        lost = f"; left out as damaged: {'; '.join(damage)}" if damage else ""
        raise InputError(f"{source.name}: the video has no frames in the stretch that was asked for{lost}")


def read_clip(
    data: Data,
    name: str = "",
    *,
    fps: FrameRate | None = None,
    start_s: Fraction | float = 0,
    end_s: Fraction | float | None = None,
    frames: tuple[int, int | None] | None = None,
    skip_damage: bool = False,
    limits: Limits = _DEFAULT_LIMITS,
) -> Clip:
    """A whole clip, or a stretch of it, in memory.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        fps: As in `iter_frames`.
        start_s: As in `iter_frames`.
        end_s: As in `iter_frames`.
        frames: As in `iter_frames`.
        skip_damage: As in `iter_frames`.
        limits: How large the clip may be.

    Returns:
        The clip.

    Raises:
        InputError: As in `iter_frames`.
        MediaError: As in `iter_frames`.
        MissingExtraError: PyAV is not installed.
    """
    source = as_source(data, name, limits)
    damage: list[str] | None = [] if skip_damage else None
    found, _ = resolve(source.head(), source.name, Modality.VIDEO)
    return gather(source, _shown(source, found.name, fps, start_s, end_s, frames, damage), damage)


def whole_clip(source: Source, format_name: str, fps: Fraction | None) -> Clip:
    """A whole clip, damage refused.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the container or picture.
        fps: As in `iter_frames`.

    Returns:
        The clip.

    Raises:
        InputError: No frames, or a limit is exceeded.
        MediaError: Cut short or damaged.
        MissingExtraError: PyAV is not installed.
    """
    return gather(source, _shown(source, format_name, fps, 0, None, None, None), None)


def gather(source: Source, shown: Iterator[Shown], damage: list[str] | None) -> Clip:
    """Hold all frames at once, within the limits.

    Args:
        source: Where the bytes are.
        shown: The frames.
        damage: What is left out is added here while `shown` goes on.

    Returns:
        The clip.

    Raises:
        InputError: No frames, or a limit is exceeded.
    """
    held: list[tuple[Shown, NDArray[np.uint8]]] = []
    for frame in shown:
        pixels = frame.pixels()
        video.check_frames(source, len(held) + 1, *pixels.shape[:2])
        held.append((frame._replace(pixels=_gone), pixels))
    if not held:
        raise InputError(f"{source.name}: the video has no frames in the stretch that was asked for")
    frames = np.empty((len(held), *held[0][1].shape), np.uint8)
    for t, (_, pixels) in enumerate(held):
        frames[t] = pixels
    times, durations = zip(*((frame.time, frame.duration) for frame, _ in held), strict=True)
    return Clip(frames, times, durations, tuple(damage or ()))


def _gone() -> NDArray[np.uint8]:
    raise AssertionError("pixels are taken once")


def _clip(group: list[Shown], damage: list[str] | None) -> Clip:
    pixels = np.stack([frame.pixels() for frame in group])
    times, durations = zip(*((frame.time, frame.duration) for frame in group), strict=True)
    return Clip(pixels, times, durations, tuple(damage or ()))


def _shown(
    source: Source,
    format_name: str,
    fps: FrameRate | None,
    start_s: Fraction | float,
    end_s: Fraction | float | None,
    frames: tuple[int, int | None] | None,
    damage: list[str] | None,
) -> Iterator[Shown]:
    """The frames that the arguments ask for."""
    start, end = _seconds("start_s", start_s), None if end_s is None else _seconds("end_s", end_s)
    if end is not None and end <= start:
        raise InputError(f"start_s={start_s}, end_s={end_s}: the end lies behind the start")
    if frames is not None:
        if fps is not None or start or end is not None:
            raise InputError("frames= counts stored frames: give it without fps, start_s and end_s")
        if frames[0] < 0 or (frames[1] is not None and frames[1] <= frames[0]):
            raise InputError(f"frames={frames}: give (first, end) with 0 <= first < end, such as (0, 16)")
    if format_name in ("npy", "npz"):
        raise MediaError(f"{source.name}: an array has no times; read it with read() and slice it")
    is_picture = format_name in PICTURES
    if frames is not None and not is_picture:
        times = video.frame_times(source, format_name)
        if frames[0] >= len(times):
            raise InputError(f"{source.name}: frames={frames}, but the video has {len(times):,} frames")
        start = times[frames[0]]
        end = None if frames[1] is None or frames[1] >= len(times) else times[frames[1]]
    opened = (
        image.shown_frames(source, format_name)
        if is_picture
        else video.shown_frames(source, format_name, start, damage)
    )
    if frames is not None and is_picture:
        return itertools.islice(opened, *frames)
    if fps is not None:
        return resample(opened, as_frame_rate(fps), start, end)
    return select(opened, start, end)


def _seconds(argument: str, value: Fraction | float) -> Fraction:
    try:
        seconds = Fraction(str(value))
    except ValueError as error:
        raise InputError(f"{argument}={value!r}: give seconds, such as 1.5") from error
    if seconds < 0:
        raise InputError(f"{argument}={value}: give seconds from the first frame, 0 or more")
    return seconds
