"""Samples, channels and rates of sound files."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from multitok.errors import MediaError
from multitok.frontend.media import probe, read
from tests.frontend.media.samples import SAMPLE_RATE_HZ, encoded_sound, files, tone


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("float.wav", 0.0),
        ("int16.wav", 1 / 32_768),
        ("wide.wav", 1 / 32_768),
        ("sound.flac", 1 / 32_768),
        ("sound.aiff", 1 / 32_768),
    ],
)
def test_samples(name: str, tolerance: float) -> None:
    sound = read(files()[name], name)
    assert sound.sample_rate_hz == SAMPLE_RATE_HZ
    assert sound.samples.dtype == np.float32
    assert np.abs(sound.samples - tone()).max() <= tolerance


def test_16_bit_samples_are_exact_fractions() -> None:
    data = encoded_sound(np.array([[-1.0, 0.5, 0.0]], np.float32), "WAV", "PCM_16")
    assert read(data, "a.wav").samples.tolist() == [[-1.0, 0.5, 0.0]]


@pytest.mark.parametrize("name", ["vorbis.ogg", "sound.mp3"])
def test_lossy_formats_keep_rate_channels_and_most_of_the_sound(name: str) -> None:
    sound = read(files()[name], name)
    assert sound.sample_rate_hz == SAMPLE_RATE_HZ
    assert sound.samples.shape[0] == 2
    middle = sound.samples[0, 200:2_800]
    shifts = [np.corrcoef(middle, tone()[0, start : start + 2_600])[0, 1] for start in range(0, 400, 4)]
    assert max(shifts) > 0.9


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "DOUBLE", "ULAW", "ALAW"])
def test_other_encodings_of_wav(subtype: str) -> None:
    data = encoded_sound(tone(channels=1), "WAV", subtype)
    sound = read(data, "a.wav")
    assert probe(data, "a.wav").extent == (sound.samples.shape[1],)
    assert np.abs(sound.samples[:, :3_000] - tone(channels=1)).max() < 0.06


def test_a_header_written_to_a_pipe_is_read_to_the_end_of_the_file() -> None:
    data = bytearray(files()["int16.wav"])
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert np.array_equal(read(bytes(data), "a.wav").samples, read(files()["int16.wav"], "a.wav").samples)
    assert probe(bytes(data), "a.wav").extent == (3_000,)


def test_a_header_that_was_never_completed_is_refused() -> None:
    data = bytearray(files()["int16.wav"])
    data[40:44] = bytes(4)
    with pytest.raises(MediaError, match="no samples announced, but 12,000 bytes follow"):
        read(bytes(data), "a.wav")


def test_a_flac_written_to_a_pipe_is_refused() -> None:
    data = bytearray(files()["sound.flac"])
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    for function in (read, probe):
        with pytest.raises(MediaError, match="does not announce its length"):
            function(bytes(data), "a.flac")


def test_a_flac_whose_header_announces_too_much_is_refused() -> None:
    data = bytearray(files()["sound.flac"])
    data[22:26] = struct.pack(">I", 5_000)
    with pytest.raises(MediaError, match="FLAC audio"):
        read(bytes(data), "a.flac")


def test_chunks_around_the_samples_are_skipped() -> None:
    plain = files()["int16.wav"]
    odd = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    data = plain[:12] + odd + plain[12:] + odd
    assert np.array_equal(read(data, "a.wav").samples, read(plain, "a.wav").samples)
