"""Log-mel frames against NumPy's logarithm, and the same bits for any split."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.frontend.log_mel import GRID, LogMel, log10
from multitok.frontend.spectrogram import MelSpectrogram

LOG_MEL = LogMel(MelSpectrogram(sample_rate_hz=16_000, hop_length=160, window_length=400, fft_length=400, num_mels=80))


def noise(num_samples: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)


@given(value=st.floats(1e-300, 1e300))
def test_logarithm_is_close(value: float) -> None:
    assert abs(log10(np.array([value]))[0] - np.log10(value)) < 1e-9 + 1e-15 * abs(np.log10(value))


def test_logarithm_is_exact_at_powers_of_two_and_rises() -> None:
    assert log10(np.array([1.0]))[0] == 0
    values = np.geomspace(0.1, 10, 10_001)
    assert (np.diff(log10(values)) > 0).all()


def test_logarithm_has_the_same_bits_wherever_a_value_stands() -> None:
    values = np.random.default_rng(1).uniform(0, 1, 1003)
    whole = log10(values)
    assert np.array_equal(whole, [log10(values[i : i + 1])[0] for i in range(1003)])
    assert np.array_equal(whole[::3], log10(values[::3]))


@given(cuts=st.lists(st.integers(0, 5_000), max_size=12), num_samples=st.integers(0, 5_000))
@settings(max_examples=40, deadline=None)
def test_any_split_gives_the_same_frames(cuts: list[int], num_samples: int) -> None:
    samples = noise(num_samples)
    ends = [*sorted(min(cut, num_samples) for cut in cuts), num_samples]
    state, pieces = LOG_MEL.initial_state(), []
    for first, last in zip([0, *ends], ends, strict=False):
        state, piece = LOG_MEL.step(state, samples[first:last])
        pieces.append(piece)
    found = np.concatenate([*pieces, LOG_MEL.finish(state)])
    assert found.dtype == np.float32
    assert len(found) == -(-num_samples // 160)
    assert np.array_equal(found, LOG_MEL.run(samples))


def test_values_are_logarithms_on_a_grid() -> None:
    samples = noise(8_000)
    frames = LOG_MEL.run(samples)
    wanted = (np.log10(np.maximum(LOG_MEL.mel.energies(samples), 1e-7)) + 4) / 2
    assert np.abs(frames - wanted).max() <= 0.5 / GRID + 1e-6
    assert np.array_equal(frames * GRID, np.rint(frames * GRID))


def test_silence_is_the_least_value() -> None:
    frames = LOG_MEL.run(np.zeros(1_000, np.float32))
    assert (frames == LOG_MEL.silence).all()
    assert LOG_MEL.silence == -1.5
