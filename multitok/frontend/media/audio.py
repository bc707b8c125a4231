"""Sound files by libsndfile: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF -> `Waveform` at the file's own rate.

A file that holds fewer frames than its header announces is refused. A WAV header that was written to a pipe announces
0xFFFFFFFF bytes and is read to the end of the file; a FLAC of that kind is refused. Ogg has no length in its header: a
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
# libsndfile answers 2^63 - 1 for a length that the file does not announce.
_MOST_FRAMES = 2**62


def read_header(source: Source, format_name: str) -> tuple[int, int]:
    """Length and rate, from the header.

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
        return sound.frames, sound.samplerate


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
        samples = np.empty((sound.channels, sound.frames), np.float32)
        found = 0
        # In blocks: asked for all that a damaged header announces, libsndfile would fill the memory with zeros.
        while found < sound.frames and len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            samples[:, found : found + len(block)] = block.T
            found += len(block)
        if found < sound.frames:
            raise MediaError(
                f"{source.name}: {format_name.upper()} audio is cut short or damaged: "
                f"{sound.frames:,} frames announced, {found:,} found"
            )
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
            if sound.frames > _MOST_FRAMES:
                raise MediaError(
                    f"{source.name}: {format_name.upper()} audio does not announce its length, as it was written to a "
                    "pipe; write it to a file again"
                )
            if sound.samplerate <= 0:
                raise InputError(f"{source.name}: a sample rate of {sound.samplerate} Hz")
            if sound.frames == 0:
                raise InputError(f"{source.name}: the sound has no samples")
            _check_length(source, sound)
            yield sound


def _check_length(source: Source, sound: soundfile.SoundFile) -> None:
    duration_s = sound.frames / sound.samplerate
    if duration_s > source.limits.max_audio_s:
        raise InputError(
            f"{source.name}: {duration_s:,.1f} s of sound; the limit is max_audio_s={source.limits.max_audio_s:,.1f}"
        )
    what = f"{sound.frames:,} frames of {sound.channels} channels"
    check_size(source.name, what, sound.frames * sound.channels * 4, source.limits)


class _Seekable:
    """A file for libsndfile's callbacks, which cannot raise: a seek before the start of a damaged file stays put."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __repr__(self) -> str:
        return "the file"  # libsndfile's messages quote it

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OverflowError, OSError):
            return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def read(self, num_bytes: int = -1) -> bytes:
        return self._file.read(num_bytes)
