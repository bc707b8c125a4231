"""The log-mel input of Whisper's encoder, for one window of sound, at one loudness.

Whisper clamps at 8 below the maximum of what it is given; here that is the window, so what lies outside of it changes
nothing. The window is also brought to one loudness: its strongest energy becomes 10^PEAK_LOG10, but nothing is made
louder than by MAX_GAIN_LOG10. So a quiet recording gives the features of a loud one. In float64, row by row, in NumPy.

Shape letters: N samples, F = N / HOP_LENGTH frames, M mel bands.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError
from multitok.frontend.spectrogram import mel_filters

SAMPLE_RATE_HZ = 16_000
HOP_LENGTH = 160
FFT_LENGTH = 400
FLOOR = 1e-10
RANGE_LOG10 = 8.0
PEAK_LOG10 = 0.75  # where the strongest energy of speech of -26 dBFS lies
MAX_GAIN_LOG10 = 4.0  # of energies: 40 dB


def whisper_log_mel(
    samples: NDArray[np.float32], num_mels: int = 80, *, one_loudness: bool = True
) -> NDArray[np.float32]:
    """Log-mel energies as Whisper's encoder takes them.

    Args:
        samples: [N] at 16 kHz, a multiple of HOP_LENGTH and more than half of FFT_LENGTH.
        num_mels: M: 80, or 128 for Whisper large-v3.
        one_loudness: Bring the window to one loudness; without it these are OpenAI's own values.

    Returns:
        [F, M], about -1 to 1.5.

    Raises:
        ShapeError: N is no such number.

    Source:
        Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision"; OpenAI whisper, `audio.py`.
    """
    if samples.ndim != 1 or samples.size % HOP_LENGTH or samples.size <= FFT_LENGTH // 2:
        raise ShapeError(
            f"samples of shape {list(samples.shape)}: give one channel, a multiple of {HOP_LENGTH} samples "
            f"and more than {FFT_LENGTH // 2}"
        )
    padded = np.pad(samples.astype(np.float64), FFT_LENGTH // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_LENGTH)[:-1:HOP_LENGTH]
    spectrum = np.fft.rfft(frames * _window())
    power = spectrum.real**2 + spectrum.imag**2
    bins, weights, starts = _sparse_filters(num_mels)
    energies = np.add.reduceat(power[:, bins] * weights, starts, axis=1)
    logs = np.log10(np.maximum(energies, FLOOR))
    if one_loudness:
        logs += PEAK_LOG10 - max(logs.max(), PEAK_LOG10 - MAX_GAIN_LOG10)
    return np.asarray((np.maximum(logs, logs.max() - RANGE_LOG10) + 4) / 4, np.float32)


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float64]:
    # Hann's window with period FFT_LENGTH.
    return np.asarray(np.sin(np.pi * np.arange(FFT_LENGTH) / FFT_LENGTH) ** 2)


@lru_cache(maxsize=2)
def _sparse_filters(num_mels: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
    # The filters' entries above 0, band by band: frequency, weight, and where each band begins.
    filters = mel_filters(SAMPLE_RATE_HZ, FFT_LENGTH, num_mels)
    bands, bins = np.nonzero(filters)
    return bins, filters[bands, bins], np.searchsorted(bands, np.arange(num_mels))
