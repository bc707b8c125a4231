"""What decoded sound is trained by: spectra at several resolutions, mel spectra, and audible disturbance.

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


class PerceptualLoss(nn.Module):
    """Audible disturbance after PESQ: loudness in critical bands, small errors masked, added sound counted twice.

    It follows the standard's model of hearing, without its alignment in time, its level for each clip aside.

    Args:
        sample_rate_hz: Of the clips.
        window: In samples; 32 ms.
        num_bands: About how many critical bands.

    Source:
        ITU-T P.862 (2001), sections 10.2.5 to 10.2.11.
    """

    bands: Tensor
    threshold: Tensor
    widths: Tensor
    speech: Tensor
    emphasis: Tensor

    def __init__(self, sample_rate_hz: int = 16_000, window: int = 512, num_bands: int = 49) -> None:
        super().__init__()
        self._window = window
        hz = np.arange(window // 2 + 1) * sample_rate_hz / window
        bark, top = 6 * np.arcsinh(hz / 600), 6 * np.arcsinh(sample_rate_hz / 2 / 600)
        index = np.minimum((bark / top * num_bands).astype(int), num_bands - 1)
        bands = np.zeros((num_bands, hz.size))
        bands[index, np.arange(hz.size)] = 1
        bands[:, 0] = 0
        bands = bands[bands.any(axis=1)]
        khz = np.maximum((bands * hz).sum(axis=1) / bands.sum(axis=1), 20) / 1000
        # Threshold of hearing in dB (Terhardt 1979).
        quiet = 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
        widths = np.array([np.ptp(bark[row > 0]) + top / num_bands / 2 for row in bands])
        for name, values in (
            ("bands", bands),
            ("threshold", 10 ** (np.clip(quiet, -5, 75) / 10)),
            ("widths", widths / widths.sum() * 21),
            # Level is measured where speech is.
            ("speech", (hz > 325) & (hz < 3250)),
            ("emphasis", 1 / (1 + (200 / np.maximum(hz, 1)) ** 4)),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """A scalar from clips [B, N] each."""
        powers = []
        for clips in (made, wanted):
            spectrum = _stft(clips, self._window, self._window // 2)
            powers.append((spectrum.real**2 + spectrum.imag**2).transpose(1, 2))
        # One gain for both, so that an error of level counts.
        level = (powers[1] * self.speech).sum(-1).mean(-1)[:, None, None].detach() + 1e-6
        in_bands = [(power * self.emphasis / level * 1e7) @ self.bands.T for power in powers]
        loud = [self._loudness(power) for power in in_bands]
        error, masked = loud[0] - loud[1], 0.25 * torch.minimum(*loud)
        error = error.sign() * (error.abs() - masked).clamp(min=0)
        ratio = ((in_bands[0].detach() + 50) / (in_bands[1] + 50)) ** 1.2
        added = torch.where(ratio < 3, torch.zeros_like(ratio), ratio.clamp(max=12))
        both_ways = torch.sqrt(((error * self.widths) ** 2).sum(-1) + 21e-6)
        one_way = (error.abs() * added * self.widths).sum(-1)
        quieter = ((in_bands[1].sum(-1) + 1e5) / 1e7) ** 0.04
        # The standard takes p = 6 over 20 frames, then 2; p = 2 all the way has gradients everywhere.
        over_time = [
            torch.sqrt(((each / quieter).clamp(max=45) ** 2).mean(1) + 1e-6).mean() for each in (both_ways, one_way)
        ]
        loss: Tensor = 0.1 * over_time[0] + 0.0309 * over_time[1]
        return loss

    def _loudness(self, power: Tensor) -> Tensor:
        # Zwicker's law, with the standard's exponent.
        scale = 0.1866 * (self.threshold / 0.5) ** 0.23
        return scale * ((0.5 + 0.5 * power / self.threshold) ** 0.23 - 1).clamp(min=0)


def _stft(clips: Tensor, window: int, hop: int) -> Tensor:
    hann = torch.hann_window(window, device=clips.device)
    return torch.stft(clips, window, hop, window=hann, return_complex=True)
