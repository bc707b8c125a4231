"""Sound for networks of one and of two channels."""

from __future__ import annotations

import numpy as np
import pytest

from multitok.errors import InputError
from multitok.frontend.channels import to_channels
from multitok.frontend.resample import num_resampled, to_mono
from multitok.protocol import Waveform

RNG = np.random.default_rng(0)


def noise(channels: int, num_samples: int, rate_hz: int) -> Waveform:
    return Waveform(0.1 * RNG.standard_normal((channels, num_samples)).astype(np.float32), rate_hz)


def test_one_is_given_to_all_and_all_are_averaged_for_one() -> None:
    wave = noise(1, 100, 16_000)
    assert np.array_equal(to_channels(wave, 16_000, 2), np.repeat(wave.samples, 2, axis=0))
    surround = noise(6, 100, 16_000)
    assert np.array_equal(to_channels(surround, 16_000, 1)[0], to_mono(surround, 16_000))


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_each_channel_is_resampled_as_a_clip_of_its_own(rate_hz: int) -> None:
    wave = noise(2, 1_001, rate_hz)
    made = to_channels(wave, 24_000, 2)
    assert made.shape == (2, num_resampled(1_001, rate_hz, 24_000))
    for row, channel in zip(made, wave.samples, strict=True):
        assert np.array_equal(row, to_mono(Waveform(channel, rate_hz), 24_000))


def test_other_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="a waveform of 3 channels for a network of 2: give 2 channels or one"):
        to_channels(noise(3, 10, 16_000), 16_000, 2)
    with pytest.raises(InputError, match="no samples"):
        to_channels(noise(2, 0, 16_000), 16_000, 2)
    bad = noise(2, 10, 16_000)
    bad.samples[1, 4] = np.inf
    with pytest.raises(InputError, match="sample 4 of channel 1"):
        to_channels(bad, 24_000, 2)
