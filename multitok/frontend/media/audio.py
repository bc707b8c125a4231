"""Sound files by libsndfile: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF -> `Waveform` at the file's own rate.

A file that holds fewer frames than its header announces is refused. A WAV header written by a stream, which
announces no length (0 or 0xFFFFFFFF bytes), is read to the end of the file. Ogg has no length in its header: a
recording that stops between two pages is whole as far as anyone can tell. libmpg123 may print a line of its own about
a damaged MP3.

Shape letters: C channels, N frames (samples per channel).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.source import Source, check_size, guarded
from multitok.frontend.media.whole import check_whole
from multitok.protocol import Waveform

if TYPE_CHECKING:
    import soundfile

_BLOCK_FRAMES = 1 << 16
# What libsndfile answers for the length of a stream that does not announce one.
_UNKNOWN_FRAMES = 2**62


def read_header(source: Source, format_name: str) -> tuple[int, int]:
    """Length and rate, from the header where it announces a length, else by decoding.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the sound.

    Returns:
        Frames, and frames per second.

    Raises:
        InputError: No frames, or a limit is exceeded.
        MediaError: Not such a sound file.
    """
    with source.open() as file, _opened(source, file, format_name) as sound:
        if sound.frames < _UNKNOWN_FRAMES:
            return sound.frames, sound.samplerate
        return sum(len(block) for block in _blocks(source, sound)), sound.samplerate


def decode_audio(source: Source, format_name: str) -> Waveform:
    """All channels of a sound file.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the sound.

    Returns:
        Samples [C, N] float32; integer formats scaled to [-1, 1).

    Raises:
        InputError: No frames, NaN or infinite samples, or a limit is exceeded.
        MediaError: Cut short or damaged.
    """
    with source.open() as file, _opened(source, file, format_name) as sound:
        announced = sound.frames if sound.frames < _UNKNOWN_FRAMES else None
        blocks = list(_blocks(source, sound))
        frames = np.concatenate(blocks) if blocks else np.empty((0, sound.channels), np.float32)
        if announced is not None and len(frames) != announced:
            raise MediaError(
                f"{source.name}: {format_name.upper()} audio is cut short or damaged: "
                f"{announced:,} frames announced, {len(frames):,} found"
            )
        if not len(frames):
            raise InputError(f"{source.name}: the sound has no samples")
        samples = np.ascontiguousarray(frames.T)
        _check_finite(source.name, samples)
        return Waveform(samples, sound.samplerate)


def _check_finite(name: str, samples: NDArray[np.float32]) -> None:
    bad = ~np.isfinite(samples)
    if bad.any():
        frame = int(bad.any(axis=0).argmax())
        value = samples[int(bad[:, frame].argmax()), frame]
        raise InputError(f"{name}: sample {frame:,} is {value}; {int(bad.sum()):,} of {bad.size:,} are not finite")


@contextmanager
def _opened(source: Source, file: BinaryIO, format_name: str) -> Iterator[soundfile.SoundFile]:
    with guarded(source.name, f"{format_name.upper()} audio"):
        check_whole(source.name, file, format_name)
        import soundfile

        with soundfile.SoundFile(_Seekable(file)) as sound:
            if sound.samplerate <= 0 or sound.channels < 1:
                raise InputError(f"{source.name}: a rate of {sound.samplerate} Hz and {sound.channels} channels")
            if sound.frames == 0:
                raise InputError(f"{source.name}: the sound has no samples")
            if sound.frames < _UNKNOWN_FRAMES:
                _check_length(source, sound, sound.frames)
            yield sound


def _blocks(source: Source, sound: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    total = 0
    while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        total += len(block)
        _check_length(source, sound, total)
        yield block


def _check_length(source: Source, sound: soundfile.SoundFile, num_frames: int) -> None:
    duration_s = num_frames / sound.samplerate
    if duration_s > source.limits.max_audio_s:
        raise InputError(
            f"{source.name}: {duration_s:,.1f} s of sound; the limit is max_audio_s={source.limits.max_audio_s:,.1f}"
        )
    what = f"{num_frames:,} frames of {sound.channels} channels"
    check_size(source.name, what, num_frames * sound.channels * 4, source.limits)


class _Seekable:
    """A file for libsndfile's callbacks, which cannot raise: a seek before the start of a damaged file stays put."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OverflowError, OSError):
            return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def read(self, num_bytes: int = -1) -> bytes:
        return self._file.read(num_bytes)
