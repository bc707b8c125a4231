"""Sound at any rate and channel count -> one channel at one rate.

Channels are averaged, then resampled by soxr's band-limited filter over the whole clip at once, so the result
depends on the clip and nothing else. A clip that has the wanted form already is passed on without a copy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.protocol import Waveform

# 60 dB above full scale: what lies higher are integers that were never divided by their full scale.
MAX_PEAK = 1_000.0


def num_resampled(num_samples: int, from_hz: int, to_hz: int) -> int:
    """Samples that `num_samples` at `from_hz` become at `to_hz`: the exact length rounded up."""
    return -(-num_samples * to_hz // from_hz)


def to_mono(wave: Waveform, sample_rate_hz: int) -> NDArray[np.float32]:
    """One channel at `sample_rate_hz`.

    Args:
        wave: Any number of channels, any rate.
        sample_rate_hz: The wanted rate.

    Returns:
        [num_resampled(N)] float32.

    Raises:
        InputError: No sample, a sample that is not finite, or samples far beyond full scale.
    """
    check_samples(wave)
    samples = wave.samples
    mono: NDArray[np.float32] = samples[0] if samples.shape[0] == 1 else samples.mean(axis=0)
    if wave.sample_rate_hz == sample_rate_hz:
        return mono
    import soxr

    wanted = num_resampled(mono.size, wave.sample_rate_hz, sample_rate_hz)
    resampled = soxr.resample(mono, wave.sample_rate_hz, sample_rate_hz, quality="HQ")
    # soxr rounds the length its own way; the last sample of a clip is within a sample of silence.
    exact = np.zeros(wanted, np.float32)
    exact[: min(wanted, resampled.size)] = resampled[:wanted]
    return exact


def check_samples(wave: Waveform) -> None:
    """Raise unless every sample is finite and on the scale of sound.

    Args:
        wave: What to look at.

    Raises:
        InputError: No sample, a sample that is not finite, or samples far beyond full scale.
    """
    samples = wave.samples
    if samples.shape[1] == 0:
        raise InputError(
            f"a waveform of {samples.shape[0]} channels and no samples: there is nothing to encode; leave it out"
        )
    low, high = samples.min(), samples.max()  # both propagate NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        index = int((~np.isfinite(samples)).any(axis=0).argmax())
        channel = int((~np.isfinite(samples[:, index])).argmax())
        raise InputError(
            f"sample {index} of channel {channel} (at {index / wave.sample_rate_hz:.3f} s) is "
            f"{samples[channel, index]}: give finite samples; cut the clip there, or use np.nan_to_num"
        )
    peak = max(-float(low), float(high))
    if peak > MAX_PEAK:
        raise InputError(
            f"samples reach {peak:.0f}, full scale is 1: divide integer samples by their full scale "
            "(32768 for 16 bits) before making a Waveform"
        )
