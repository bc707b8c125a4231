"""Sound at any rate -> as many channels as a network takes, at its rate.

    given          wanted 1         wanted C > 1
    1 channel      itself           itself, C times
    C channels     their mean       themselves, each resampled as a mono clip would be
    others         their mean       refused: how to mix them is the caller's choice

Shape letters: C channels, N samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend.resample import check_not_empty, check_samples, to_mono
from multitok.protocol import Waveform


def to_channels(wave: Waveform, sample_rate_hz: int, channels: int) -> NDArray[np.float32]:
    """The wanted number of channels at `sample_rate_hz`.

    Args:
        wave: Any rate; one channel or the wanted number, any number where one is wanted.
        sample_rate_hz: The wanted rate.
        channels: The wanted number of channels.

    Returns:
        [channels, num_resampled(N)] float32.

    Raises:
        InputError: Another number of channels, no sample, a sample that is not finite, or samples far beyond full
            scale.
    """
    given = len(wave.samples)
    if channels > 1 and given not in (1, channels):
        raise InputError(
            f"a waveform of {given} channels for a network of {channels}: give {channels} channels or one; "
            "mix the others down first"
        )
    check_not_empty(wave.samples)
    check_samples(wave.samples, wave.sample_rate_hz)
    if channels == 1:
        return to_mono(wave, sample_rate_hz)[None]
    rows = [to_mono(Waveform(row, wave.sample_rate_hz), sample_rate_hz) for row in wave.samples]
    return np.stack(rows * (channels // given))
