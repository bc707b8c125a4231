"""Video files by PyAV (`pip install 'multitok[video]'`): MP4, MOV, Matroska, WebM, AVI, MPEG -> frames with times.

The first video stream, in presentation order; how its pixels become upright RGB stands in `colours.py`. A frame's time
is its presentation timestamp less that of the first frame, an exact fraction. Where timestamps run backwards, which
no sound file does, a frame follows the one before it. Sound is left. Decoded by one thread and strictly: what a
decoder would otherwise paint over is an error, or is left out up to the next key frame and reported.

What is seen of damage is what the codec can see: H.264, MPEG-4, MPEG-2 and MJPEG notice most of it, HEVC, VP9 and AV1
carry no checksums and show much of it as wrong pixels. Packets that come to nothing are always noticed.

Animated PNG, WebP and GIF are the matter of `image.py`. Shape letters: T frames, H rows, W columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media.colours import RgbConverter, display_matrix, is_swapping, upright
from multitok.frontend.media.source import Source, check_size, guarded
from multitok.frontend.media.timing import Shown, num_resampled
from multitok.frontend.media.whole import check_whole

# Containers whose index leads to the key frame before any time; the others are decoded from their start.
_SEEKABLE = ("iso", "matroska")
_STRICT = {"err_detect": "explode"}
_FALLBACK_RATE = Fraction(25)


def read_header(source: Source, format_name: str, fps: Fraction | None) -> tuple[int, int, int]:
    """Frames and size, upright. The frames are counted, one is decoded: what containers announce is often a duration.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the container.
        fps: Frames a second to count at; None counts the stored ones.

    Returns:
        T, H, W.

    Raises:
        InputError: No frames, or a limit is exceeded.
        MediaError: Not a video.
        MissingExtraError: PyAV is not installed.
    """
    with source.open() as file, _opened(source, file, format_name) as (container, stream):
        first = None
        times: list[tuple[Fraction, Fraction]] = []
        for packet in container.demux(stream):
            if first is None:
                first = next(iter(packet.decode()), None)
            if packet.size and not packet.is_discard:
                times.append(_packet_time(packet, stream, format_name, len(times)))
        if first is None:
            raise _no_frames(source)
        height, width = first.height, first.width
        if is_swapping(display_matrix(first)):
            height, width = width, height
        num_frames = len(times)
        if fps is not None:
            start, (last, duration) = min(times)[0], max(times)
            num_frames = num_resampled(last + duration - start, fps)
        check_frames(source, num_frames, height, width)
        return num_frames, height, width


def frame_times(source: Source, format_name: str) -> list[Fraction]:
    """Times of all stored frames, in order, from their packets: nothing is decoded.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the container.

    Returns:
        Seconds from the first frame.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not a video.
        MissingExtraError: PyAV is not installed.
    """
    with source.open() as file, _opened(source, file, format_name) as (container, stream):
        packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
        times = sorted(_packet_time(packet, stream, format_name, index)[0] for index, packet in enumerate(packets))
        return [time - times[0] for time in times]


def shown_frames(source: Source, format_name: str, start: Fraction, damage: list[str] | None) -> Iterator[Shown]:
    """The frames of a video from the key frame at or before `start` on, or from the first one.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the container.
        start: Seconds.
        damage: None refuses damage; a list takes a line for every stretch that is left out.

    Yields:
        Frames in order of time; pixels are converted when asked for.

    Raises:
        InputError: No frames, or a limit is exceeded.
        MediaError: Cut short or damaged.
        MissingExtraError: PyAV is not installed.
    """
    with source.open() as file, _opened(source, file, format_name) as (container, stream):
        frames = _Decoding(source, format_name, container, stream, damage)
        run = frames.run(is_whole=True)
        first = next(run, None)
        if first is None:
            raise _no_frames(source)
        origin = first[0]
        if start > 0 and damage is None and format_name in _SEEKABLE:
            run = _sought(frames, first, start)
        else:
            run = itertools.chain([first], run)
        pixels = _Pixels(source, first[2])
        for time, duration, frame in run:
            pixels.check(frame)
            yield Shown(time - origin, duration, cache(partial(pixels, frame)))


_Timed = tuple[Fraction, Fraction, Any]


@dataclass
class _Decoding:
    """Packets to frames with their times, and the account of what did not become a frame."""

    source: Source
    format_name: str
    container: Any
    stream: Any
    damage: list[str] | None
    waiting: list[Fraction] = field(default_factory=list)

    def run(self, *, is_whole: bool) -> Iterator[_Timed]:
        """Frames from where the container stands; `is_whole` where that is its start."""
        self.waiting = []  # times of packets whose frame has not come
        num_packets = num_frames = 0
        lost_since: Fraction | None = None
        last: tuple[Fraction, Fraction] | None = None
        for packet in self._packets():
            if packet.size and not packet.is_discard:
                self.waiting.append(self._packet_time(packet, num_packets)[0])
                num_packets += 1
            frames, reason = self._decode(packet)
            if reason:
                self._refuse(f"video packet {num_packets - 1:,} is damaged: {reason}")
                lost_since = self._end(last) if lost_since is None else lost_since
            for frame in frames:
                num_frames += 1
                time, duration = self._time(frame, last)
                if frame.is_corrupt:
                    self._refuse(f"the frame at {float(time):.3f} s is damaged")
                    lost_since = self._end(last) if lost_since is None else lost_since
                if lost_since is not None:
                    if frame.is_corrupt or not frame.key_frame:
                        continue
                    self._report(lost_since, time)
                    lost_since = None
                last = (time, duration)
                self.waiting = [each for each in self.waiting if each > time]
                yield time, duration, frame
        if lost_since is not None:
            self._report(lost_since, None)
        elif is_whole and num_frames < num_packets:
            missing = f"{num_packets:,} packets of video gave {num_frames:,} frames"
            self._refuse(f"{missing}: the others are damaged or lack the frame that they build on")
            if self.damage is not None and not self.damage:
                self.damage.append(missing)

    def _packets(self) -> Iterator[Any]:
        import av.error

        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self._refuse(f"the video ends in damage: {error.strerror}")
                assert self.damage is not None
                self.damage.append(f"the video ends in damage: {error.strerror}")
                return
            if packet is None:
                return
            yield packet

    def _decode(self, packet: Any) -> tuple[list[Any], str]:
        """The frames that a packet brings out, and why it could not be decoded."""
        import av.error

        if packet.is_corrupt:
            return [], "the container marks it so"
        try:
            return packet.decode(), ""
        except av.error.FFmpegError as error:
            return [], error.strerror or type(error).__name__

    def _time(self, frame: Any, last: tuple[Fraction, Fraction] | None) -> tuple[Fraction, Fraction]:
        base = Fraction(frame.time_base or self.stream.time_base)
        # AVI numbers its frames in the order of decoding, and its reader takes that for the order of showing.
        ticks = frame.dts if frame.pts is None or self.format_name == "avi" else frame.pts
        time = None if ticks is None else ticks * base
        if time is None or (last is not None and time <= last[0]):
            time = self._end(last)
        return time, _duration(frame.duration, base, self.stream)

    def _packet_time(self, packet: Any, index: int) -> tuple[Fraction, Fraction]:
        return _packet_time(packet, self.stream, self.format_name, index)

    def _refuse(self, reason: str) -> None:
        if self.damage is None:
            raise MediaError(f"{self.source.name}: {reason}; mend the file, or read it with skip_damage=True")

    def _report(self, start: Fraction, end: Fraction | None) -> None:
        assert self.damage is not None
        num_lost = sum(end is None or each < end for each in self.waiting)
        until = "the end" if end is None else f"the key frame at {float(end):.3f} s"
        self.damage.append(f"{num_lost:,} frames left out from {float(start):.3f} s to {until}")

    @staticmethod
    def _end(last: tuple[Fraction, Fraction] | None) -> Fraction:
        return Fraction(0) if last is None else last[0] + last[1]


class _Pixels:
    """Upright RGB of a stream's frames, all of one size."""

    def __init__(self, source: Source, first: Any) -> None:
        self._source = source
        self._size = (first.height, first.width)
        self._matrix = display_matrix(first)
        self._convert = RgbConverter(source.name)
        self._count = 0

    def check(self, frame: Any) -> None:
        """Refuse a frame of another size."""
        if (frame.height, frame.width) != self._size:
            height, width = self._size
            raise MediaError(
                f"{self._source.name}: frame {self._count} is {frame.width} x {frame.height}, not {width} x {height}"
            )
        self._count += 1

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        return upright(self._convert(frame), self._matrix)


def _sought(frames: _Decoding, first: _Timed, start: Fraction) -> Iterator[_Timed]:
    """The frames from the key frame at or before `start` on; from the first where the index leads elsewhere."""
    base = Fraction(frames.stream.time_base)
    for target in (first[0] + start, first[0]):
        frames.container.seek(int(target // base), stream=frames.stream)
        run = frames.run(is_whole=False)
        try:
            landed = next(run, None)
        except MediaError:  # what this key frame's neighbours build on lies before it
            landed = None
        if landed is not None and landed[2].key_frame and landed[0] <= target:
            return itertools.chain([landed], run)
    raise MediaError(f"{frames.source.name}: no key frame is found before {float(start):.3f} s; read it from its start")


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
        stream.codec_context.options = _STRICT
        check_frames(source, 1, stream.height, stream.width)
        yield container, stream


def check_frames(source: Source, num_frames: int, height: int, width: int) -> None:
    """Refuse what is larger than the limits.

    Args:
        source: Where the bytes are.
        num_frames: Frames that would be held at once.
        height: Rows.
        width: Columns.

    Raises:
        InputError: A limit is exceeded.
        MediaError: There are no pixels.
    """
    limits = source.limits
    if height < 1 or width < 1:
        raise MediaError(f"{source.name}: frames of {width} x {height} pixels have nothing to read")
    if height * width > limits.max_pixels:
        raise InputError(
            f"{source.name}: frames of {width:,} x {height:,} are {height * width:,} pixels; "
            f"the limit is max_pixels={limits.max_pixels:,}"
        )
    remedy = "raise it, give a lower fps, or stream with iter_frames()"
    if num_frames > limits.max_frames:
        raise InputError(
            f"{source.name}: {num_frames:,} frames or more; the limit is max_frames={limits.max_frames:,}: {remedy}"
        )
    what = f"{num_frames:,} frames of {width:,} x {height:,}"
    check_size(source.name, what, num_frames * height * width * 3, limits)


def _packet_time(packet: Any, stream: Any, format_name: str, index: int) -> tuple[Fraction, Fraction]:
    base = Fraction(packet.time_base or stream.time_base)
    duration = _duration(packet.duration, base, stream)
    ticks = packet.dts if packet.pts is None or format_name == "avi" else packet.pts
    return (index * duration if ticks is None else ticks * base), duration


def _duration(ticks: int | None, base: Fraction, stream: Any) -> Fraction:
    return ticks * base if ticks else 1 / Fraction(stream.average_rate or _FALLBACK_RATE)


def _no_frames(source: Source) -> InputError:
    return InputError(f"{source.name}: the video has no frames")
