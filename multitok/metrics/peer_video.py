"""x264 and x265 by PyAV: for clips in colour, and x265 for volumes whose slices are taken as frames.

One thread and one setting give one stream: x264 and x265 cut a picture differently for other numbers of threads.

Shape letters: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import MediaError, MissingExtraError
from multitok.metrics.peer_pictures import from_levels, to_levels

_ENCODERS = {"x264": ("libx264", "h264"), "x265": ("libx265", "hevc")}
_LEVELS_12_BIT = 2**12 - 1
# Coarsest first. Quarters, because whole steps are 12% of the rate apart.
_RATE_FACTORS = tuple(51 - step / 4 for step in range(205))
_FRAMES_PER_SECOND = 25
# ITU-R BT.709: what red, green and blue weigh in luma.
_LUMA = np.array([0.2126, 0.7152, 0.0722])
# Video range: luma 16 to 235, chroma 16 to 240.
_LUMA_SPAN, _LUMA_LOW, _CHROMA_SPAN, _CHROMA_MIDDLE = 219, 16, 224, 128
# x265 writes beyond its buffers where a side is much below its blocks of 64, and takes the process down.
_SMALLEST_SIDES = {"libx264": 2, "libx265": 64}
_NAL_START = b"\x00\x00\x01"
_H264_SEI = 6


class ClipCodec:
    """x264 or x265 for uint8 [T, H, W, 3].

    Args:
        name: "x264" or "x265".

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, name: str) -> None:
        self._encoder, self._decoder = _ENCODERS[name]
        _av()

    @property
    def settings(self) -> Sequence[float]:
        """Constant rate factors."""
        return _RATE_FACTORS

    def encode(self, raw: NDArray[Any], setting: float) -> bytes:
        """The elementary stream."""
        av = _av()
        height, width = _coded_size(raw, self._encoder)
        planes = (to_yuv420(_enlarged(pixels, height, width)) for pixels in raw)
        frames = (av.VideoFrame.from_ndarray(plane, format="yuv420p") for plane in planes)
        return _encode(self._encoder, "yuv420p", height, width, frames, setting)

    def decode(self, payload: bytes, raw: NDArray[Any]) -> NDArray[Any]:
        """uint8 frames."""
        frames = _decode(self._decoder, payload, len(raw))
        return np.stack([from_yuv420(frame.to_ndarray(), *raw.shape[1:3]) for frame in frames])


class SliceCodec:
    """x265 in 12-bit grey for float32 [Z, Y, X].

    Args:
        low: Least value of the range.
        peak: Width of the range.

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, low: float, peak: float) -> None:
        self._low, self._peak = low, peak
        _av()

    @property
    def settings(self) -> Sequence[float]:
        """Constant rate factors."""
        return _RATE_FACTORS

    def encode(self, raw: NDArray[Any], setting: float) -> bytes:
        """The elementary stream."""
        height, width = _coded_size(raw, "libx265")
        levels = (to_levels(plane, self._low, self._peak, _LEVELS_12_BIT) for plane in raw)
        frames = (_grey_frame(_enlarged(plane, height, width)) for plane in levels)
        return _encode("libx265", "gray12le", height, width, frames, setting)

    def decode(self, payload: bytes, raw: NDArray[Any]) -> NDArray[Any]:
        """float32 voxels."""
        _, height, width = raw.shape
        slices = []
        for frame in _decode("hevc", payload, len(raw)):
            plane = frame.planes[0]
            rows = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)
            slices.append(rows[:height, :width])
        return from_levels(np.stack(slices), self._low, self._peak, _LEVELS_12_BIT)


def to_yuv420(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB to BT.709 in video range, chroma the mean of 2 x 2.

    Args:
        pixels: [H, W, 3] uint8, H and W even.

    Returns:
        [3 H / 2, W] uint8: luma, then the two chroma planes.
    """
    height, width = pixels.shape[:2]
    rgb = pixels.astype(np.float64) / 255
    luma = rgb @ _LUMA
    parts = [luma * _LUMA_SPAN + _LUMA_LOW]
    for channel in (2, 0):  # blue difference, then red difference
        difference = (rgb[:, :, channel] - luma) / (2 * (1 - _LUMA[channel]))
        halved = difference.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        parts.append(halved * _CHROMA_SPAN + _CHROMA_MIDDLE)
    flat = np.concatenate([part.reshape(-1) for part in parts])
    planes: NDArray[np.uint8] = np.clip(np.rint(flat), 0, 255).astype(np.uint8).reshape(-1, width)
    return planes


def from_yuv420(planes: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The way back, chroma interpolated linearly.

    Args:
        planes: [3 H / 2, W] uint8, H and W even.
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        [height, width, 3] uint8.
    """
    rows, columns = planes.shape[0] * 2 // 3, planes.shape[1]
    flat = planes.reshape(-1).astype(np.float64)
    luma = (flat[: rows * columns].reshape(rows, columns) - _LUMA_LOW) / _LUMA_SPAN
    chroma = (flat[rows * columns :].reshape(2, rows // 2, columns // 2) - _CHROMA_MIDDLE) / _CHROMA_SPAN
    blue, red = (_doubled(_doubled(plane, 0), 1) for plane in chroma)
    rgb = np.empty((rows, columns, 3))
    rgb[:, :, 2] = luma + blue * (2 * (1 - _LUMA[2]))
    rgb[:, :, 0] = luma + red * (2 * (1 - _LUMA[0]))
    rgb[:, :, 1] = (luma - _LUMA[0] * rgb[:, :, 0] - _LUMA[2] * rgb[:, :, 2]) / _LUMA[1]
    pixels: NDArray[np.uint8] = np.clip(np.rint(rgb[:height, :width] * 255), 0, 255).astype(np.uint8)
    return pixels


def _doubled(plane: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Twice as long along one axis; samples lie in the middle of the pairs they stand for."""
    moved = np.moveaxis(plane, axis, 0)
    before = np.concatenate([moved[:1], moved[:-1]])
    behind = np.concatenate([moved[1:], moved[-1:]])
    pairs = np.stack([0.75 * moved + 0.25 * before, 0.75 * moved + 0.25 * behind], axis=1)
    return np.moveaxis(pairs.reshape(-1, *moved.shape[1:]), 0, axis)


def _coded_size(raw: NDArray[Any], encoder: str) -> tuple[int, int]:
    """Rows and columns that are encoded: even, and as many as the encoder needs."""
    height, width = (max(n + n % 2, _SMALLEST_SIDES[encoder]) for n in raw.shape[1:3])
    return height, width


def _enlarged(plane: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """A picture with its last row and column repeated."""
    missing = [(0, height - plane.shape[0]), (0, width - plane.shape[1]), (0, 0)]
    return np.pad(plane, missing[: plane.ndim], mode="edge")


def _grey_frame(levels: NDArray[np.uint16]) -> Any:
    height, width = levels.shape
    frame = _av().VideoFrame(width, height, "gray12le")
    plane = frame.planes[0]
    rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size // 2), "<u2")
    rows[:height, :width] = levels
    plane.update(rows.tobytes())
    return frame


def _encode(encoder: str, pixel_format: str, height: int, width: int, frames: Iterator[Any], factor: float) -> bytes:
    with _guarded(encoder):
        return _encoded(encoder, pixel_format, height, width, frames, factor)


def _encoded(encoder: str, pixel_format: str, height: int, width: int, frames: Iterator[Any], factor: float) -> bytes:
    context = _av().CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, height, pixel_format
    context.time_base, context.framerate = Fraction(1, _FRAMES_PER_SECOND), Fraction(_FRAMES_PER_SECOND, 1)
    context.thread_count = 1
    context.options = {"preset": "medium", "tune": "psnr", "crf": str(factor)}
    if encoder == "libx265":
        context.options = {**context.options, "x265-params": "log-level=none:info=0:pools=none:frame-threads=1"}
    packets = []
    for index, frame in enumerate(frames):
        frame.pts = index
        packets += [bytes(packet) for packet in context.encode(frame)]
    stream = b"".join([*packets, *(bytes(packet) for packet in context.encode(None))])
    return _without_h264_notes(stream) if encoder == "libx264" else stream


def _decode(decoder: str, payload: bytes, num_frames: int) -> list[Any]:
    with _guarded(decoder):
        context = _av().CodecContext.create(decoder, "r")
        context.thread_count = 1
        packets = [*context.parse(payload), *context.parse(None)]
        frames = [frame for packet in packets for frame in context.decode(packet)]
        frames += context.decode(None)
    if len(frames) != num_frames:
        raise MediaError(f"{len(frames)} frames came back of {num_frames}")
    return frames


@contextmanager
def _guarded(codec: str) -> Iterator[None]:
    try:
        yield
    except _av().error.FFmpegError as error:
        raise MediaError(f"{codec} cannot take it: {error}") from error


def _without_h264_notes(stream: bytes) -> bytes:
    """A stream without the units (SEI) that no decoder needs: x264 lists its settings there, 650 bytes a file."""
    units = stream.split(_NAL_START)
    kept = [unit for unit in units[1:] if unit[0] & 31 != _H264_SEI]
    return b"".join(_NAL_START + unit for unit in kept)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("x264 and x265 need PyAV: pip install 'multitok[eval]'", name="av") from error
    return av
