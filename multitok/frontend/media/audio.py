"""Sound files by libsndfile: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF -> `Waveform` at the file's own rate.

A file that holds fewer frames than its header announces is refused. A WAV header written by a stream, which
announces no length (0 or 0xFFFFFFFF bytes), is read to the end of the file. Ogg has no length in its header: a
recording that stops between two pages is whole as far as anyone can tell.

Shape letters: C channels, N frames (samples per channel).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.source import Source, check_size, guarded
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
        _CHECKS.get(format_name, _check_nothing)(source.name, file)
        file.seek(0)
        import soundfile

        with soundfile.SoundFile(file) as sound:
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


def _check_nothing(name: str, file: BinaryIO) -> None:
    """FLAC and MP3: the decoder itself tells announced from found."""


def _check_wav(name: str, file: BinaryIO) -> None:
    """Compare the data chunk with the file: libsndfile reads what is there and says nothing."""
    size_of_file = file.seek(0, 2)
    order = ">" if _read_at(file, 0, 4) == b"RIFX" else "<"
    is_rf64 = _read_at(file, 0, 4) == b"RF64"
    position = 12
    while True:
        header = _read_at(file, position, 8)
        if len(header) < 8:
            raise MediaError(f"{name}: WAV audio has no data chunk; the file ends at byte {size_of_file:,}")
        kind, size = struct.unpack(f"{order}4sI", header)
        if kind == b"fmt ":
            rate = struct.unpack(f"{order}4xI", _read_at(file, position + 8, 8))[0]
            if rate == 0:
                raise InputError(f"{name}: a sample rate of 0 Hz")
        if kind == b"data":
            break
        position += 8 + size + size % 2
    found = size_of_file - position - 8
    streamed = size in (0, 0xFFFFFFFF) or is_rf64
    if not streamed and found < size:
        raise MediaError(f"{name}: WAV audio is cut short: {size:,} bytes of samples announced, {found:,} found")


def _check_aiff(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    position = 12
    while len(header := _read_at(file, position, 8)) == 8:
        kind, size = struct.unpack(">4sI", header)
        if position + 8 + size > size_of_file:
            raise MediaError(
                f"{name}: AIFF audio is cut short: chunk {kind!r} at byte {position:,} announces {size:,} bytes, "
                f"{size_of_file - position - 8:,} are there"
            )
        position += 8 + size + size % 2


def _check_ogg(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    position = 0
    while position < size_of_file:
        header = _read_at(file, position, 27)
        lacing = _read_at(file, position + 27, header[26]) if len(header) == 27 else b""
        end = position + 27 + len(lacing) + sum(lacing)
        if header[:4] not in b"OggS":
            raise MediaError(f"{name}: Ogg audio is damaged: no page begins at byte {position:,}")
        if len(header) < 27 or len(lacing) < header[26] or end > size_of_file:
            raise MediaError(f"{name}: Ogg audio is cut short inside the page at byte {position:,}")
        position = end


def _read_at(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    file.seek(position)
    return file.read(num_bytes)


_CHECKS = {"wav": _check_wav, "aiff": _check_aiff, "ogg": _check_ogg}
