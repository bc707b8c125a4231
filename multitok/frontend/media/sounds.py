"""Sound files and sound tracks of videos, whole or in chunks; by libsndfile where it can, by PyAV where not.

    for chunk in iter_audio("podcast.m4a"):
        chunk.samples, chunk.sample_rate_hz      float32 [C, one second], at the file's own rate

One chunk is in memory at a time, and the chunks, joined, are what `read` gives, wherever they end.

Shape letters: C channels, N frames (samples per channel).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend.media import audio, sound_tracks
from multitok.frontend.media.kinds import resolve
from multitok.frontend.media.source import Data, Limits, Source, as_source, check_size
from multitok.protocol import Modality, Waveform

_DEFAULT_LIMITS = Limits()


def iter_audio(
    data: Data, name: str = "", *, chunk_s: float = 1.0, limits: Limits = _DEFAULT_LIMITS
) -> Iterator[Waveform]:
    """A sound file in chunks, the last one perhaps shorter.

    Args:
        data: The content, or the path to it: sound, or a video with a sound track.
        name: File name; defaults to the path's.
        chunk_s: Seconds of a chunk.
        limits: Largest file and longest sound; the size of the whole decoded sound does not count here.

    Yields:
        The chunks, at least one, all at the file's own rate.

    Raises:
        InputError: No sample, a sample that is not finite, or a limit is exceeded.
        MediaError: The bytes are not sound, cut short or damaged; some damage shows only where it is reached.
        MissingExtraError: The format needs PyAV, which is not installed.
    """
    if not chunk_s > 0:
        raise InputError(f"chunk_s={chunk_s}: give seconds above 0")
    source = as_source(data, name, limits)
    found, _ = resolve(source.head(), source.name, Modality.AUDIO)
    blocks: list[NDArray[np.float32]] = []
    num_held = 0
    for block in _blocks(source, found.name):
        rate_hz = block.sample_rate_hz
        size = max(round(chunk_s * rate_hz), 1)
        blocks.append(block.samples)
        num_held += block.samples.shape[1]
        if num_held < size:
            continue
        held = np.concatenate(blocks, axis=1)
        whole = num_held - num_held % size
        for start in range(0, whole, size):
            yield Waveform(held[:, start : start + size], rate_hz)
        blocks, num_held = [held[:, whole:]], num_held - whole
    if num_held:
        yield Waveform(np.concatenate(blocks, axis=1), rate_hz)


def decode_audio(source: Source, format_name: str) -> Waveform:
    """All channels of a sound file or track.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the file.

    Returns:
        Samples [C, N] float32 at the file's own rate.

    Raises:
        InputError: No sample, a sample that is not finite, or a limit is exceeded.
        MediaError: Cut short or damaged, or there is no sound in it.
        MissingExtraError: The format needs PyAV, which is not installed.
    """
    if format_name not in sound_tracks.FORMATS:
        return audio.decode_audio(source, format_name)
    parts = []
    num_bytes = 0
    for block in sound_tracks.decode_blocks(source, format_name):
        num_bytes += block.samples.nbytes
        check_size(source.name, "the sound", num_bytes, source.limits)
        parts.append(block)
    return Waveform(np.concatenate([part.samples for part in parts], axis=1), parts[0].sample_rate_hz)


def read_header(source: Source, format_name: str) -> tuple[int, int]:
    """Length and rate: from the header, or by decoding where that tells a duration only (all that PyAV reads).

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the file.

    Returns:
        Frames, and frames per second.

    Raises:
        InputError: No frames, or a limit is exceeded.
        MediaError: Not such a sound file.
        MissingExtraError: The format needs PyAV, which is not installed.
    """
    if format_name not in sound_tracks.FORMATS:
        return audio.read_header(source, format_name)
    num_frames = rate_hz = 0
    for block in sound_tracks.decode_blocks(source, format_name):
        num_frames, rate_hz = num_frames + block.samples.shape[1], block.sample_rate_hz
    return num_frames, rate_hz


def _blocks(source: Source, format_name: str) -> Iterator[Waveform]:
    if format_name in sound_tracks.FORMATS:
        return sound_tracks.decode_blocks(source, format_name)
    return audio.decode_blocks(source, format_name)
