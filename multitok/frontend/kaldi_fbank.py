"""Log mel energies as Kaldi computes them, which w2v-BERT was trained on; in float64, frame by frame.

Shape letters: N samples, F frames, M mel bands.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BANDS = 80
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)


def kaldi_fbank(samples: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float64]:
    """Natural logarithm of the energy in 80 bands, for windows of 25 ms every 10 ms that lie inside the clip.

    Args:
        samples: [N] on the scale of sound; Kaldi's own scale, of 16-bit integers, is made here.
        sample_rate_hz: Rate of the samples.

    Returns:
        [F, M], F = 1 + (N - window) // hop.

    Source:
        Kaldi's `compute-fbank-feats`, defaults but for 80 bands and no dither.
    """
    window_length, hop_length = sample_rate_hz * 25 // 1000, sample_rate_hz // 100
    scaled = samples.astype(np.float64) * 2.0**15
    frames = np.lib.stride_tricks.sliding_window_view(scaled, window_length)[::hop_length]
    frames = frames - frames.mean(axis=1, keepdims=True)
    # The first sample of a frame has itself before it.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = frames - PREEMPHASIS * before
    fft_length = 1 << (window_length - 1).bit_length()
    energies = np.abs(np.fft.rfft(frames * _povey_window(window_length), fft_length)) ** 2
    return np.log(np.maximum(energies @ _bands(sample_rate_hz, fft_length), FLOOR))


@cache
def _povey_window(length: int) -> NDArray[np.float64]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85


@cache
def _bands(sample_rate_hz: int, fft_length: int) -> NDArray[np.float64]:
    """[fft / 2 + 1, M] triangles, straight on the mel scale."""
    edges = np.linspace(_mel(LOWEST_HZ), _mel(sample_rate_hz / 2), NUM_BANDS + 2)
    mels = _mel(np.arange(fft_length // 2 + 1) * (sample_rate_hz / fft_length))[:, None]
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def _mel(hertz: NDArray[np.floating[Any]] | float) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))
