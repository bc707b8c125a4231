"""The spectrum of whole clips at another rate: resampling and filtering in one transform, with gradients.

It imports torch.

Shape letters: B clips, N samples, S frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clip_spectrum(clips: Tensor, rate_hz: int, wanted_hz: int, *, room: int) -> tuple[Tensor, int, int]:
    """Spectrum of clips and silence after them, of which irfft makes them at a lower rate.

    Args:
        clips: [B, N].
        rate_hz: Of the clips.
        wanted_hz: No higher; frequencies above half of it are left out.
        room: Silence after, in samples at wanted_hz at least: what a filter rings into.

    Returns:
        [B, S] complex; how many samples at wanted_hz the clips have; and how many with the silence.
    """
    count = math.ceil(clips.shape[1] * wanted_hz / rate_hz)
    # A whole number of samples at both rates, and an even one, that S may have half of them.
    step = 2 * wanted_hz // math.gcd(rate_hz, wanted_hz)
    length = math.ceil((count + room) / step) * step
    spectrum = torch.fft.rfft(clips, length * rate_hz // wanted_hz)[:, : length // 2 + 1]
    return spectrum * (wanted_hz / rate_hz), count, length
