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
        _check_size(source, sound)
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
        _check_size(source, sound)
        samples = np.empty((sound.channels, sound.frames), np.float32)
        filled = 0
        for block in _blocks(source, sound, format_name):
            samples[:, filled : filled + len(block)] = block.T
            filled += len(block)
        return Waveform(samples, sound.samplerate)


def decode_blocks(source: Source, format_name: str) -> Iterator[Waveform]:
    """All channels of a sound file, some frames at a time.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the sound.

    Yields:
        The samples that `decode_audio` gives at once.

    Raises:
        InputError: No frames, NaN or infinite samples, or it lasts too long.
        MediaError: Cut short or damaged, which may show at the end only.
    """
    with source.open() as file, _opened(source, file, format_name) as sound:
        for block in _blocks(source, sound, format_name):
            yield Waveform(np.ascontiguousarray(block.T), sound.samplerate)


def check_finite(name: str, samples: NDArray[np.float32], first: int) -> None:
    """Refuse NaN and infinity.

    Args:
        name: The file's name.
        samples: [C, n].
        first: Place of the first frame in the file.

    Raises:
        InputError: A sample is not finite.
    """
    bad = ~np.isfinite(samples)
    if bad.any():
        frame = int(bad.any(axis=0).argmax())
        value = samples[int(bad[:, frame].argmax()), frame]
        raise InputError(f"{name}: sample {first + frame:,} is {value}: cut the sound there, or mend the file")


def check_duration(source: Source, num_frames: int, sample_rate_hz: int) -> None:
    """Refuse sound that lasts too long.

    Args:
        source: Where the bytes are.
        num_frames: N.
        sample_rate_hz: Frames a second.

    Raises:
        InputError: It lasts longer than `limits.max_audio_s`.
    """
    duration_s = num_frames / sample_rate_hz
    if duration_s > source.limits.max_audio_s:
        raise InputError(
            f"{source.name}: {duration_s:,.1f} s of sound; the limit is max_audio_s={source.limits.max_audio_s:,.1f}"
        )


def _blocks(source: Source, sound: soundfile.SoundFile, format_name: str) -> Iterator[NDArray[np.float32]]:
    # [n, C]. In blocks: asked for all that a damaged header announces, libsndfile would fill the memory with zeros.
    found = 0
    while found < sound.frames and len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        check_finite(source.name, block.T, found)
        found += len(block)
        yield block
    if found < sound.frames:
        raise MediaError(
            f"{source.name}: {format_name.upper()} audio is cut short or damaged: "
            f"{sound.frames:,} frames announced, {found:,} found"
        )


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
            check_duration(source, sound.frames, sound.samplerate)
            yield sound


def _check_size(source: Source, sound: soundfile.SoundFile) -> None:
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
