"""What decoded sound is trained by: spectra at several resolutions, mel spectra, audible disturbance, lost words.

Shape letters: B clips, N samples, S frequencies, F frames, M bands. All losses are means over clips; sound is best
scaled to one loudness before, so that quiet clips count. This module imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from multitok.frontend.spectrogram import mel_filters
from multitok.train.intelligibility_loss import IntelligibilityLoss
from multitok.train.perceptual_loss import PerceptualLoss

__all__ = ["IntelligibilityLoss", "MultiScaleMelLoss", "PerceptualLoss", "multi_resolution_loss"]

# Windows and hops, samples at 16 kHz: 20, 40 and 80 ms.
RESOLUTIONS = ((320, 80), (640, 160), (1280, 320))
# Magnitudes are compared after this power: about how loud they are.
LOUDNESS_POWER = 0.3
SMALLEST_POWER = 1e-9


def multi_resolution_loss(
    made: Tensor, wanted: Tensor, *, resolutions: Sequence[tuple[int, int]] = RESOLUTIONS, phase: float = 0.0
) -> Tensor:
    """Absolute and squared difference of compressed magnitudes, summed over resolutions.

    Args:
        made: [B, N].
        wanted: [B, N].
        resolutions: (window, hop) in samples of each.
        phase: Weight of the difference of the compressed complex spectra at the middle resolution.

    Returns:
        A scalar.

    Source:
        Yamamoto, Song, Kim 2020, "Parallel WaveGAN", section 2.2; with compressed magnitudes in place of logs.
    """
    loss = torch.zeros((), device=made.device)
    middle = resolutions[len(resolutions) // 2]
    for window, hop in resolutions:
        spectra = [_stft(clips, window, hop) for clips in (made, wanted)]
        sizes = [torch.sqrt(s.real**2 + s.imag**2 + SMALLEST_POWER) for s in spectra]
        loud = [size**LOUDNESS_POWER for size in sizes]
        loss = loss + functional.l1_loss(loud[0], loud[1]) + functional.mse_loss(loud[0], loud[1])
        if phase and (window, hop) == middle:
            turned = [s * (each / size) for s, each, size in zip(spectra, loud, sizes, strict=True)]
            error = turned[0] - turned[1]
            loss = loss + phase * (error.real.abs() + error.imag.abs()).mean()
    return loss


class MultiScaleMelLoss(nn.Module):
    """Absolute difference of log mel energies, mean over scales.

    Args:
        sample_rate_hz: Of the clips.
        windows: In samples; hops are a quarter of them.
        bands: M of each scale.

    Source:
        Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN", section 3.4.
    """

    def __init__(
        self,
        sample_rate_hz: int = 16_000,
        windows: Sequence[int] = (128, 256, 512, 1024, 2048),
        bands: Sequence[int] = (10, 20, 40, 80, 160),
    ) -> None:
        super().__init__()
        self._windows = tuple(windows)
        for index, (window, count) in enumerate(zip(windows, bands, strict=True)):
            filters = torch.from_numpy(mel_filters(sample_rate_hz, window, count).astype(np.float32))
            self.register_buffer(f"filters{index}", filters, persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """A scalar from clips [B, N] each."""
        loss = torch.zeros((), device=made.device)
        for index, window in enumerate(self._windows):
            filters: Tensor = self.get_buffer(f"filters{index}")
            logs = []
            for clips in (made, wanted):
                spectrum = _stft(clips, window, window // 4)
                power = spectrum.real**2 + spectrum.imag**2
                logs.append(torch.log10((filters @ power).clamp(min=1e-7)))
            loss = loss + functional.l1_loss(logs[0], logs[1])
        return loss / len(self._windows)


def _stft(clips: Tensor, window: int, hop: int) -> Tensor:
    hann = torch.hann_window(window, device=clips.device)
    return torch.stft(clips, window, hop, window=hann, return_complex=True)
