"""Mel energies against a slow reference and librosa; the same bits however sound is cut."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import SpecError
from multitok.frontend.spectrogram import BLOCK_FRAMES, MelSpectrogram, mel_filters

MEL = MelSpectrogram(sample_rate_hz=16_000, hop_length=200, window_length=600, fft_length=1024, num_mels=80)
SMALL = MelSpectrogram(sample_rate_hz=800, hop_length=4, window_length=12, fft_length=16, num_mels=3)


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, num_samples).astype(np.float32)


def slow_energies(mel: MelSpectrogram, samples: np.ndarray) -> np.ndarray:
    """Straight from the definition: every frame cut out around the middle of its hop, every frequency summed."""
    rows = []
    for frame in range(-(-samples.size // mel.hop_length)):
        start = frame * mel.hop_length + mel.hop_length // 2 - mel.window_length // 2
        spectrum = np.zeros(mel.fft_length // 2 + 1, complex)
        for i in range(mel.window_length):
            if 0 <= start + i < samples.size:
                hann = 0.5 - 0.5 * np.cos(2 * np.pi * (i + 0.5) / mel.window_length)
                turns = np.arange(spectrum.size) * i / mel.fft_length
                spectrum += float(samples[start + i]) * hann * np.exp(-2j * np.pi * turns)
        rows.append(mel_filters(mel.sample_rate_hz, mel.fft_length, mel.num_mels) @ np.abs(spectrum) ** 2)
    return np.array(rows)


@given(num_samples=st.integers(1, 4 * BLOCK_FRAMES + 40), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_energies_match_the_definition(num_samples: int, seed: int) -> None:
    samples = noise(num_samples, seed)
    found = SMALL.energies(samples)
    assert found.shape == (SMALL.num_frames(num_samples), 3)
    np.testing.assert_allclose(found, slow_energies(SMALL, samples), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("rate", "fft", "bands"), [(16_000, 1024, 80), (44_100, 2048, 128), (1_600, 512, 10)])
def test_filters_are_those_of_librosa(rate: int, fft: int, bands: int) -> None:
    theirs = librosa.filters.mel(sr=rate, n_fft=fft, n_mels=bands, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(rate, fft, bands), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("num_samples", "num_frames"), [(1, 1), (199, 1), (200, 1), (201, 2), (16_000, 80)])
def test_frame_count_is_exact(num_samples: int, num_frames: int) -> None:
    assert MEL.num_frames(num_samples) == num_frames
    assert len(MEL.energies(noise(num_samples))) == num_frames


@given(hops=st.integers(1, 3 * BLOCK_FRAMES))
@settings(max_examples=20, deadline=None)
def test_a_frame_has_the_same_bits_wherever_its_clip_begins_and_ends(hops: int) -> None:
    samples = noise(4 * BLOCK_FRAMES * MEL.hop_length + 77)
    whole, margin = MEL.energies(samples), 2
    tail = MEL.energies(samples[hops * MEL.hop_length :])
    assert np.array_equal(tail[margin:], whole[hops + margin :])
    head = MEL.energies(samples[: hops * MEL.hop_length])
    assert np.array_equal(head[:-margin], whole[: hops - margin] if hops > margin else head[:0])


@given(cuts=st.lists(st.integers(0, 9_000), max_size=12), num_samples=st.integers(0, 9_000))
@settings(max_examples=40, deadline=None)
def test_pushed_in_pieces_energies_are_those_of_the_whole(cuts: list[int], num_samples: int) -> None:
    samples = noise(num_samples)
    ends = [*sorted(min(cut, num_samples) for cut in cuts), num_samples]
    state, pieces = MEL.initial_state(), []
    for first, last in zip([0, *ends], ends, strict=False):
        state, piece = MEL.step(state, samples[first:last])
        pieces.append(piece)
    found = np.concatenate([*pieces, MEL.finish(state)])
    assert np.array_equal(found, MEL.energies(samples))
    assert len(found) == MEL.num_frames(num_samples)


@pytest.mark.parametrize("lengths", [(0, 600, 1024), (200, 200, 1024), (200, 501, 1024), (200, 600, 512), (5, 10, 16)])
def test_lengths_that_cannot_be_are_refused(lengths: tuple[int, int, int]) -> None:
    with pytest.raises(SpecError, match="give 0 < hop < window <= FFT"):
        MelSpectrogram(16_000, *lengths, num_mels=20)


@pytest.mark.parametrize("num_mels", [0, 600])
def test_bands_that_cannot_be_are_refused(num_mels: int) -> None:
    with pytest.raises(SpecError, match="there is no band, or one covers no frequency"):
        MelSpectrogram(16_000, 200, 600, 1024, num_mels)
