"""dMel codes count edges, do not depend on how sound is cut or on threads, and decode to close sound."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import multitok
from multitok.errors import ShapeError, SpecError
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.protocol import Codes, Waveform
from multitok.tokenizers.audio_dmel import AudioDMel

SOUNDS = Path(__file__).parents[2] / "examples/data/sounds"
MEL = MelSpectrogram(sample_rate_hz=16_000, hop_length=200, window_length=600, fft_length=1024, num_mels=80)


@pytest.fixture(scope="module")
def dmel() -> Any:
    return multitok.load("dmel-80hz")


def read(name: str) -> Waveform:
    samples, rate = soundfile.read(SOUNDS / name, dtype="float32", always_2d=True)
    return Waveform(samples.T, rate)


def noise(num_samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)


def test_a_code_is_the_number_of_edges_at_or_below_the_energy(dmel: AudioDMel) -> None:
    wave = read("speech-russian-1.wav")
    edges, energies = dmel.get_tensors()["edges"], MEL.energies(wave.samples[0])
    expected = [[int(np.searchsorted(edges[k], e, side="right")) for e in energies[:, k]] for k in range(80)]
    assert dmel.encode(wave).values.tolist() == expected


def test_silence_is_the_lowest_code_and_louder_is_never_lower(dmel: AudioDMel) -> None:
    assert not dmel.encode(Waveform(np.zeros(999, np.float32), 16_000)).values.any()
    wave = read("speech-russian-2.wav")
    codes = [dmel.encode(Waveform(wave.samples * gain, 16_000)).values for gain in (0.01, 0.1, 1, 10)]
    assert all((quiet <= loud).all() for quiet, loud in pairwise(codes))
    assert np.median(codes[1]) >= 1  # 20 dB down, most codes still tell something
    assert (codes[2] == 15).mean() < 0.02


@given(num_samples=st.integers(1, 2_000), channels=st.integers(1, 3), rate=st.sampled_from([16_000, 44_100, 8_000]))
@settings(max_examples=20, deadline=None)
def test_extent_and_frames_are_exact(dmel: AudioDMel, num_samples: int, channels: int, rate: int) -> None:
    codes = dmel.encode(Waveform(np.tile(noise(num_samples), (channels, 1)), rate))
    num_resampled = -(-num_samples * 16_000 // rate)
    assert codes.extent == (num_resampled,)
    assert codes.grid == (-(-num_resampled // 200),)
    assert dmel.num_tokens(codes.extent) == codes.num_tokens
    back = dmel.decode(codes)
    assert (back.samples.shape, back.samples.dtype, back.sample_rate_hz) == ((1, num_resampled), np.float32, 16_000)


def test_rate_and_channels_hardly_matter(dmel: AudioDMel) -> None:
    import soxr

    wave = read("speech-russian-1.wav")
    up = soxr.resample(wave.samples[0], 16_000, 48_000, quality="VHQ")
    codes = dmel.encode(wave).values
    # The resampler's filter ends at 7.3 kHz: the two bands above are left out.
    same = codes[:78] == dmel.encode(Waveform(np.stack([up, up]), 48_000)).values[:78]
    assert same.mean() > 0.98


def test_codes_do_not_depend_on_where_the_clip_ends(dmel: AudioDMel) -> None:
    samples = noise(100 * 200)
    whole = dmel.encode(Waveform(samples, 16_000)).values
    for frames in (1, 63, 64, 65, 99):
        part = dmel.encode(Waveform(samples[: frames * 200], 16_000)).values
        assert np.array_equal(part[:, :-2], whole[:, : max(frames - 2, 0)])


CODES_DIGEST = """
import hashlib, sys, numpy as np, multitok
samples = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 200_000)).astype(np.float32)
codes = multitok.load("dmel-80hz").encode(multitok.Waveform(samples, 44_100))
assert not {"torch", "librosa", "scipy"} & set(sys.modules), "encode loaded a framework"
print(hashlib.sha256(codes.values.tobytes()).hexdigest())
"""


def test_codes_do_not_depend_on_the_number_of_threads(dmel: AudioDMel) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 200_000)).astype(np.float32)
    here = hashlib.sha256(dmel.encode(Waveform(samples, 44_100)).values.tobytes()).hexdigest()
    for threads in ("1", "2"):
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", CODES_DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == here


def test_a_long_clip_needs_little_more_memory_than_its_codes(dmel: AudioDMel) -> None:
    wave = Waveform(np.tile(noise(16_000), 600), 16_000)  # 10 minutes
    tracemalloc.start()
    codes = dmel.encode(wave)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < codes.values.nbytes + 4e6


@pytest.mark.parametrize("name", ["speech-russian-1.wav", "guitar.flac"])
def test_real_sound_comes_back_close(dmel: AudioDMel, name: str) -> None:
    wave = read(name)
    mono = dmel.decode(dmel.encode(wave)).samples[0]
    codes, again = dmel.encode(wave).values, dmel.encode(Waveform(mono, 16_000)).values
    assert (np.abs(codes - again) <= 1).mean() > 0.95
    levels = 10 * np.log10(np.maximum(dmel.get_tensors()["levels"], 1e-5))
    bands = np.arange(80)[:, None]
    assert np.sqrt(((levels[bands, codes] - levels[bands, again]) ** 2).mean()) < 2.5  # dB


def test_decode_refuses_a_grid_that_does_not_fit_the_extent(dmel: AudioDMel) -> None:
    with pytest.raises(ShapeError, match="3 frames of codes for 601 samples: at 200 samples a frame, 4 belong to them"):
        dmel.decode(Codes(np.zeros((80, 3), np.int32), (601,)))


@pytest.mark.parametrize(
    ("edges", "levels", "message"),
    [
        ([[1.0]], [[0.5]], r"edges \[1, 1\] and levels \[1, 1\]: give \[bands, levels - 1\]"),
        ([[1.0, 2.0]], [[0.5, 1.5]], r"edges \[1, 2\] and levels \[1, 2\]"),
        ([[]], [[1.0]], "two levels or more"),
        ([[2.0, 1.0]], [[0.5, 1.5, 2.5]], "each level is to lie between its edges"),
        ([[1.0, 2.0]], [[0.5, 2.5, 3.0]], "each level is to lie between its edges"),
        ([[1.0]], [[0.5, np.nan]], "all finite"),
        ([[0.0]], [[-1.0, 1.0]], "edges are to lie above 0"),
    ],
)
def test_levels_that_cannot_be_are_refused(edges: list[Any], levels: list[Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        AudioDMel(edges=np.array(edges), levels=np.array(levels))
