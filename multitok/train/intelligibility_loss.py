"""Lost intelligibility: 1 - STOI as a loss.

STOI correlates how loud third-octave bands are over 0.4 s, of which words are made. It hears neither levels nor fine
structure: put it beside losses that do. This module imports torch.

Shape letters: B clips, N samples, F frames, S frequencies, M = 15 bands, Y segments of 30 frames.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from multitok.errors import ShapeError, SpecError
from multitok.train.clip_spectrum import clip_spectrum

RATE_HZ = 10_000
WINDOW, HOP, FFT = 256, 128, 512
NUM_BANDS, LOWEST_HZ = 15, 150.0
SEGMENT = 30
# Frames this far below the loudest are left out.
RANGE_DB = 40.0
# What is made may be at most this many dB above what is wanted, in power against the error.
CLIP_DB = 15.0
# Full scale is 1. Power of a band, and norms, below which there is nothing to correlate.
SMALLEST_POWER, SMALLEST_NORM = 1e-8, 1e-5


class IntelligibilityLoss(nn.Module):
    """1 - STOI, 0 for equal clips to about 1; 0 too for clips with less than 0.4 s that are not silent.

    Args:
        sample_rate_hz: Of the clips, 10,000 or more; above, what lies over 5 kHz is not heard.

    Raises:
        SpecError: The rate is lower.

    Source:
        Taal, Hendriks, Heusdens, Jensen 2011, "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted
        Noisy Speech", section II.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, sample_rate_hz: int = 16_000) -> None:
        super().__init__()
        if sample_rate_hz < RATE_HZ:
            raise SpecError(f"STOI needs sound of at least {RATE_HZ} Hz, got {sample_rate_hz}; resample it")
        self._rate_hz = sample_rate_hz
        hz = np.arange(FFT // 2 + 1) * (RATE_HZ / FFT)
        edges = LOWEST_HZ * 2 ** ((2 * np.arange(NUM_BANDS + 1) - 1) / 6)
        bins = np.abs(hz - edges[:, None]).argmin(1)
        bands = np.zeros((hz.size, NUM_BANDS), np.float32)
        for band, (first, end) in enumerate(itertools.pairwise(bins)):
            bands[first:end, band] = 1
        self.register_buffer("window", torch.hann_window(WINDOW + 1, periodic=True)[1:], persistent=False)
        self.register_buffer("bands", torch.from_numpy(bands), persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Mean loss.

        Args:
            made: [B, N].
            wanted: [B, N], what it should be.

        Returns:
            A scalar.

        Raises:
            ShapeError: The shapes differ, or clips are shorter than 0.4 s.
        """
        shortest_s = (WINDOW + (SEGMENT - 1) * HOP) / RATE_HZ
        if made.shape != wanted.shape or made.ndim != 2 or made.shape[1] < shortest_s * self._rate_hz:
            raise ShapeError(
                f"expected two equal shapes [clips, samples] of at least {shortest_s} s, "
                f"got {tuple(made.shape)} and {tuple(wanted.shape)}"
            )
        frames = self._frames(wanted)
        energy = (frames.detach() ** 2).sum(-1)
        kept = energy >= energy.amax(1, keepdim=True) * 10 ** (-RANGE_DB / 10)
        # Kept frames first, in their order, so that segments run over what is not silent.
        order = (~kept).to(torch.int8).argsort(dim=1, stable=True)
        right, left = (self._segments(each, order) for each in (frames, self._frames(made)))
        left = left * (_norm(right) / _norm(left))
        left = torch.minimum(left, right * (1 + 10 ** (CLIP_DB / 20)))
        left, right = (each - each.mean(-1, keepdim=True) for each in (left, right))
        alike = (left / _norm(left) * (right / _norm(right))).sum(-1).mean(-1)
        whole = torch.arange(SEGMENT, frames.shape[1] + 1, device=made.device) <= kept.sum(1, keepdim=True)
        lost: Tensor = ((1 - alike) * whole).sum(1) / whole.sum(1).clamp(min=1)
        return lost.mean()

    def _frames(self, clips: Tensor) -> Tensor:
        """Frames [B, F, WINDOW] at 10 kHz."""
        spectrum, count, length = clip_spectrum(clips, self._rate_hz, RATE_HZ, room=WINDOW)
        samples: Tensor = torch.fft.irfft(spectrum, length)
        return samples[:, :count].unfold(1, WINDOW, HOP) * self.window

    def _segments(self, frames: Tensor, order: Tensor) -> Tensor:
        """How loud bands are, [B, Y, M, SEGMENT], of frames [B, F, WINDOW] in an order [B, F]."""
        spectrum = torch.fft.rfft(frames, FFT)
        bands = torch.sqrt((spectrum.real**2 + spectrum.imag**2) @ self.bands + SMALLEST_POWER)
        return bands.gather(1, order[..., None].expand_as(bands)).unfold(1, SEGMENT, 1)


def _norm(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return norm + SMALLEST_NORM
