"""Any rate and channel count become one channel at one rate, of exactly the stated length, whole or in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import InputError
from multitok.frontend.resample import MonoStream, num_resampled, to_mono
from multitok.protocol import Waveform


def test_mono_at_the_wanted_rate_is_passed_on_without_a_copy() -> None:
    samples = np.linspace(-1, 1, 50, dtype=np.float32)
    assert np.shares_memory(to_mono(Waveform(samples, 16_000), 16_000), samples)


def test_channels_are_averaged() -> None:
    samples = np.array([[0.5, 1.0, -1.0], [0.25, -1.0, -1.0]], np.float32)
    assert to_mono(Waveform(samples, 8_000), 8_000).tolist() == [0.375, 0.0, -1.0]


@pytest.mark.parametrize("channels", [7, 8, 9, 17])
def test_the_average_depends_on_neither_layout_nor_length(channels: int) -> None:
    # NumPy's mean would: it adds eight at a time where channels lie side by side, or where there is one sample.
    samples = np.random.default_rng(0).uniform(-1, 1, (channels, 999)).astype(np.float32)
    whole = to_mono(Waveform(samples, 16_000), 16_000)
    assert np.array_equal(whole, to_mono(Waveform(np.ascontiguousarray(samples.T).T, 16_000), 16_000))
    ones = [to_mono(Waveform(samples[:, i : i + 1], 16_000), 16_000) for i in range(999)]
    assert np.array_equal(whole, np.concatenate(ones))
    np.testing.assert_allclose(whole, samples.astype(np.float64).mean(axis=0), atol=1e-6)


RATES_HZ = [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000, 384_000]


@given(
    num_samples=st.one_of(st.integers(1, 3_000), st.integers(1, 200_000)),
    from_hz=st.one_of(st.sampled_from(RATES_HZ), st.integers(4_000, 384_000)),
    to_hz=st.sampled_from([16_000, 24_000]),
    cuts=st.lists(st.integers(0, 200_000), max_size=12),
    size=st.sampled_from([0, 1, 7, 160, 4_096]),
)
@settings(max_examples=60, deadline=None)
def test_any_split_gives_the_same_bits(num_samples: int, from_hz: int, to_hz: int, cuts: list[int], size: int) -> None:
    samples = np.random.default_rng(num_samples).uniform(-1, 1, (1, num_samples)).astype(np.float32)
    if size:  # equal small pieces from some place on
        start = max(num_samples - 300 * size, 0)
        cuts = list(range(start, num_samples, size))
    stream = MonoStream(from_hz, 1, to_hz)
    parts = [stream.push(piece) for piece in np.split(samples, sorted(cuts), axis=1)]
    assert stream.num_samples == num_resampled(num_samples, from_hz, to_hz)
    parts.append(stream.flush())
    whole = to_mono(Waveform(samples, from_hz), to_hz)
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.size == stream.num_samples


@pytest.mark.parametrize("from_hz", [8_000, 22_050, 44_100, 48_000, 384_000, 7_919])
def test_a_clip_is_resampled_as_soxr_does_the_whole_of_it(from_hz: int) -> None:
    import soxr

    samples = np.random.default_rng(0).uniform(-1, 1, 300_000).astype(np.float32)
    theirs = soxr.resample(samples, from_hz, 16_000, quality="HQ")
    ours = to_mono(Waveform(samples, from_hz), 16_000)
    assert np.array_equal(ours[: theirs.size], theirs)
    assert 0 <= ours.size - theirs.size <= 1


@given(num_samples=st.integers(1, 3_000), rate=st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000, 7_919, 96_001]))
def test_length_is_the_exact_one_rounded_up(num_samples: int, rate: int) -> None:
    resampled = to_mono(Waveform(np.ones(num_samples, np.float32), rate), 16_000)
    assert resampled.size == num_resampled(num_samples, rate, 16_000)
    assert (resampled.size - 1) * rate < num_samples * 16_000 <= resampled.size * rate
    assert resampled.dtype == np.float32
    assert np.isfinite(resampled).all()


def test_tones_below_half_the_rate_stay_and_those_above_go() -> None:
    def tone(hz: float, rate: int) -> np.ndarray:
        return np.sin(2 * np.pi * hz * np.arange(rate) / rate).astype(np.float32)

    kept = to_mono(Waveform(tone(1_000, 44_100), 44_100), 16_000)
    assert np.abs(kept - tone(1_000, 16_000))[200:-200].max() < 1e-3
    gone = to_mono(Waveform(tone(12_000, 44_100), 44_100), 16_000)
    assert np.abs(gone)[200:-200].max() < 1e-3


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 0)), r"a waveform of 2 channels and no samples: there is nothing to encode; leave it out"),
        (
            np.array([[0, 0, 0, np.nan], [0, 0, np.inf, 0]]),
            r"sample 2 of channel 1 \(at 1.000 s\) is inf: give finite samples",
        ),
        (np.array([[0, np.nan, -np.inf]]), r"sample 1 of channel 0 \(at 0.500 s\) is nan: give finite samples"),
        (np.array([[0, -32768]]), r"samples reach 32768, full scale is 1: divide integer samples by their full scale"),
    ],
)
def test_what_cannot_be_sound_is_refused(samples: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_mono(Waveform(samples.astype(np.float32), 2), 16_000)


@pytest.mark.parametrize("rate", [0, -16_000])
def test_a_rate_that_cannot_be_is_refused_by_the_waveform(rate: int) -> None:
    with pytest.raises(InputError, match=f"sample_rate_hz={rate}: a waveform needs a rate above 0"):
        Waveform(np.zeros(4, np.float32), rate)
