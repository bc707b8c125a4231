"""Sound that libsndfile does not read, by PyAV (`pip install 'multitok[video]'`): AAC and ALAC in M4A, AAC, WMA, AMR,
G.722, and the sound track of a video.

The first sound track, its samples one after the other: times are not looked at, so a gap in them is not filled. What an
encoder put before the first sample is left out where the file says how much it was (MP4, Matroska, WebM); the padding
behind the last one stays. Decoded by one thread and strictly: what a player would bridge is an error. G.722 has no
header, no checksums and no length: it is what its name says it is, one channel at 16 kHz.

Shape letters: C channels, n frames (samples per channel) of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media.audio import check_duration, check_finite
from multitok.frontend.media.source import Source, guarded
from multitok.frontend.media.whole import check_whole
from multitok.protocol import Waveform

FORMATS = ("iso", "matroska", "avi", "mpeg", "mpegts", "asf", "aac", "amr", "g722")

_STRICT = {"err_detect": "explode"}
# Full scale of integer samples, and their zero.
_INTEGERS = {"u8": (128, 128), "s16": (1 << 15, 0), "s32": (1 << 31, 0)}


def decode_blocks(source: Source, format_name: str) -> Iterator[Waveform]:
    """All channels of a sound track, some frames at a time.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the file.

    Yields:
        Samples [C, n] float32; integers scaled to [-1, 1).

    Raises:
        InputError: No sound, NaN or infinite samples, or it lasts too long.
        MediaError: Cut short or damaged, which may show at the end only; rate or channels change; no sound track.
        MissingExtraError: PyAV is not installed.
    """
    num_frames = 0
    first: Waveform | None = None
    for block in _decoded(source, format_name):
        first = first or block
        if (block.sample_rate_hz, len(block.samples)) != (first.sample_rate_hz, len(first.samples)):
            raise MediaError(
                f"{source.name}: after {num_frames:,} frames at {first.sample_rate_hz} Hz, {len(first.samples)} "
                f"channels, the sound goes on at {block.sample_rate_hz} Hz, {len(block.samples)} channels; split it"
            )
        check_finite(source.name, block.samples, num_frames)
        num_frames += block.samples.shape[1]
        check_duration(source, num_frames, block.sample_rate_hz)
        yield block
    if not num_frames:
        raise InputError(f"{source.name}: the sound has no samples")


def _decoded(source: Source, format_name: str) -> Iterator[Waveform]:
    label = f"{format_name.upper()} sound"
    with source.open() as file:
        with guarded(source.name, label):
            check_whole(source.name, file, format_name)
        try:
            import av
            import av.error
        except ImportError as error:
            raise MissingExtraError(
                f"{source.name}: {label} needs PyAV: pip install 'multitok[video]'", name="av"
            ) from error
        known = format_name if format_name in ("g722", "aac", "amr", "asf") else None
        with (
            guarded(source.name, label),
            av.open(file, format=known, metadata_errors="replace") as container,
        ):
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                raise MediaError(f"{source.name}: the file has no sound track that can be read")
            track = container.streams.audio[0]
            track.thread_type = "NONE"
            track.codec_context.options = _STRICT
            for index, packet in enumerate(container.demux(track)):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    raise MediaError(f"{source.name}: sound packet {index:,} is damaged: {error.strerror}") from error
                if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
                    raise MediaError(f"{source.name}: sound packet {index:,} is cut short or damaged")
                for frame in frames:
                    yield Waveform(_samples(source, frame), frame.sample_rate)


def _samples(source: Source, frame: Any) -> NDArray[np.float32]:
    # [C, n], full scale 1.
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    name = frame.format.name.removesuffix("p")
    if name in _INTEGERS:
        full, zero = _INTEGERS[name]
        return np.asarray((samples.astype(np.float64) - zero) / full, np.float32)
    if name not in ("flt", "dbl"):
        raise MediaError(f"{source.name}: samples of the type {name!r} are not read; convert the file to WAV or FLAC")
    return np.ascontiguousarray(samples, np.float32)
