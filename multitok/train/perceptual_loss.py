"""Audible disturbance: PESQ in wide band as a loss, without its alignment in time.

Both clips are brought to one level, filtered and cut into frames of 32 ms; their power spectra become loudness in 49
critical bands. What differs in loudness, save small differences beside what is there, is disturbance; sound that was
added counts again. Norms over bands, syllables of 20 frames and time make it one number d, and 4.5 - d predicts the
raw score, before P.862.2 maps it to 1.04 ... 4.64. Package pesq gives the same to .005 where it finds no delays to take
out (noise, limits and holes of bands, rounding); over a codec at four bitrates the two correlate .99.

It does not hear levels of whole clips, and little of steady filters and of slow changes of gain, for the standard
takes these out: put it beside a loss that does. Clips near silence (-80 dB) are not brought to the level and cost
little. This module imports torch.

Shape letters: B clips, N samples, F frames, S frequencies, M = 49 bands, Y syllables.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from multitok.errors import ShapeError, SpecError
from multitok.train.clip_spectrum import clip_spectrum

RATE_HZ = 16_000
WINDOW, HOP = 512, 256
# The mean power clips are brought to, measured between 350 and 3,250 Hz: the filter's dB at the frequencies given.
LEVEL_POWER = 1e7
LEVEL_HZ, LEVEL_DB = (300.0, 350.0, 3_250.0, 3_500.0), (-500.0, 0.0, 0.0, -500.0)
# The standard pads clips by 320 ms; means over time are over these too.
PADDING = 5_120
FADE = 16
# P.862.2, input filter: a high pass at about 100 Hz.
FILTER = ((2.740826, -5.4816519, 2.740826), (1.0, -1.9444777, 0.94597794))
# Room after each clip in which the filter's ringing ends, so that filtering by the spectrum does not wrap.
RINGING = 1_024
# Full scale is 1. Clips with less power than this are as good as silent.
SMALLEST_POWER = 1e-8
# Calibration: a tone of 1 kHz at 40 dB has power 1e4 in its band, and a loudness of 1 sone.
POWER_SCALE, LOUDNESS_SCALE = 6.910853e-6, 0.1866055
LOUDNESS_POWER = 0.23
# Sums of five samples below it, at the beginning and the end, are not part of the sound.
SILENT_SAMPLES = 500.0
SILENT_FRAME, AUDIBLE_FRAME = 1e7, 5e3
SYLLABLE = 20
LARGEST = 45.0
# Keeps roots away from 0, where they have no gradient.
SMALLEST = 1e-3

# Of each band: FFT bins, width in Bark, gain for power per bin, threshold of hearing in dB.
BINS = (
    *(1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2),
    *(3, 3, 3, 3, 4, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20),
)
WIDTHS_BARK = (
    *(0.1573, 0.3180, 0.3224, 0.3269, 0.3315, 0.3361, 0.3407, 0.3454, 0.3501, 0.3549, 0.3597, 0.3646, 0.3695),
    *(0.3745, 0.3796, 0.3847, 0.3898, 0.3950, 0.4002, 0.4055, 0.4109, 0.4163, 0.4218, 0.4273, 0.4329, 0.4385),
    *(0.4442, 0.4500, 0.4558, 0.4616, 0.4676, 0.4736, 0.4796, 0.4857, 0.4919, 0.4982, 0.5045, 0.5108, 0.5172),
    *(0.5237, 0.5303, 0.5369, 0.5436, 0.5504, 0.5572, 0.5641, 0.5711, 0.5781, 0.5852),
)
GAINS = (
    *(100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 50.0, 100.0, 100.0, 100.0, 100.0, 100.0, 53.05),
    *(110.0, 117.99, 65.0, 68.76, 70.0, 71.43, 75.0, 76.84, 80.97, 88.65, 63.86, 68.16, 72.55, 75.58, 58.38),
    *(80.95, 64.14, 54.38, 73.82, 64.44, 59.18, 65.52, 61.40, 58.14, 57.0, 64.13, 54.31, 61.11, 55.08, 56.85),
    *(55.63, 53.14, 54.99, 79.55),
)
THRESHOLDS_DB = (
    *(77.1, 63.9, 48.5, 36.9, 30.7, 25.9, 20.2, 16.6, 12.5, 9.9, 6.9, 4.9, 2.8, 1.0, -0.1, -1.4, -2.5, -3.4, -4.1),
    *(-4.8, -5.3, -5.7, -5.9, -6.0, -6.0, -6.0, -6.0, -5.8, -5.4, -5.1, -4.7, -4.3, -4.0, -3.6, -3.3, -3.1, -3.0),
    *(-3.0, -2.9, -2.8, -2.8, -2.8, -2.9, -3.2, -3.7, -4.3, -4.4, -3.8, -2.7),
)


class PerceptualLoss(nn.Module):
    """Audible disturbance, 0 for equal clips to about 5: 4.5 less the raw score of PESQ in wide band.

    Args:
        sample_rate_hz: Of the clips, 16,000 or more; above, what lies over 8 kHz is not heard.

    Raises:
        SpecError: The rate is lower.

    Source:
        ITU-T P.862 (2001), sections 10.1 and 10.2; P.862.2 (2007) for the wide band.
    """

    window: Tensor
    fade: Tensor
    bands: Tensor
    threshold: Tensor
    exponent: Tensor
    widths: Tensor
    smoothing: Tensor

    def __init__(self, sample_rate_hz: int = RATE_HZ) -> None:
        super().__init__()
        if sample_rate_hz < RATE_HZ:
            raise SpecError(f"PESQ's wide band needs sound of at least {RATE_HZ} Hz, got {sample_rate_hz}; resample it")
        self._rate_hz = sample_rate_hz
        bands = np.zeros((len(BINS), WINDOW // 2 + 1))
        index = np.repeat(np.arange(len(BINS)), BINS)
        bands[index, np.arange(index.size)] = POWER_SCALE * np.array(GAINS)[index]
        bands[:, 0] = 0
        centres = np.cumsum(WIDTHS_BARK) - np.array(WIDTHS_BARK) / 2
        rise = np.arange(1, FADE) / FADE
        for name, values in (
            ("window", np.hanning(WINDOW + 1)[:-1]),
            ("fade", rise),
            ("bands", bands.T),
            ("threshold", 10 ** (np.array(THRESHOLDS_DB) / 10)),
            # Loudness grows faster at low frequencies.
            ("exponent", LOUDNESS_POWER * np.clip(6 / (centres + 2), 1, 2) ** 0.15),
            # The lowest band is not judged.
            ("widths", np.array(WIDTHS_BARK)[1:]),
            # A one-pole filter of coefficient 0.2, of which 12 taps are left.
            ("smoothing", 0.8 * 0.2 ** np.arange(12)[::-1].copy()),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Mean disturbance.

        Args:
            made: [B, N].
            wanted: [B, N], what it should be.

        Returns:
            A scalar.
        """
        return self.disturbance(made, wanted).mean()

    def disturbance(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Disturbance of each clip.

        Args:
            made: [B, N].
            wanted: [B, N], what it should be.

        Returns:
            [B].

        Raises:
            ShapeError: The shapes differ, or clips are shorter than a window of 32 ms.
        """
        if made.shape != wanted.shape or made.ndim != 2 or made.shape[1] * RATE_HZ < WINDOW * self._rate_hz:
            raise ShapeError(
                f"expected two equal shapes [clips, samples] of at least {WINDOW / RATE_HZ * 1000:g} ms, "
                f"got {tuple(made.shape)} and {tuple(wanted.shape)}"
            )
        samples, heard = self._heard(made), self._heard(wanted)
        first, last = _sounding(heard.detach())
        made_power, wanted_power = self._power(samples), self._power(heard)
        wanted_power = wanted_power * self._filtering(made_power, wanted_power, made.shape[1])
        audible = self._audible(wanted_power, 1)
        made_power = made_power * self._gain(made_power, audible)
        made_loud, wanted_loud = self._loudness(made_power), self._loudness(wanted_power)
        error = made_loud - wanted_loud
        masked = 0.25 * torch.minimum(made_loud, wanted_loud)
        error = error.sign() * (error.abs() - masked).clamp(min=0)
        asymmetry = (((made_power + 50) / (wanted_power + 50)) ** 1.2).clamp(max=12)
        added = error * asymmetry * (asymmetry >= 3)
        # Errors beside little sound count more.
        weight = ((audible + 1e5) / LEVEL_POWER) ** -0.04
        both = (((error[..., 1:] * self.widths) ** 2).sum(-1) * self.widths.sum()).clamp(min=SMALLEST**2).sqrt()
        one = (added[..., 1:].abs() * self.widths).sum(-1)
        over_time = [_over_time((each * weight).clamp(SMALLEST, LARGEST), first, last) for each in (both, one)]
        return 0.1 * over_time[0] + 0.0309 * over_time[1]

    def _heard(self, clips: Tensor) -> Tensor:
        """Clips [B, N] at one level, through the input filter, at 16 kHz."""
        middle = clips.shape[1] - 2 * (FADE - 1)
        clips = clips * torch.cat([self.fade, self.fade.new_ones(middle), self.fade.flip(0)])
        spectrum, count, length = clip_spectrum(clips, self._rate_hz, RATE_HZ, room=RINGING)
        hz = np.asarray(np.arange(length // 2 + 1) * (RATE_HZ / length), np.float64)
        level = torch.from_numpy(10 ** (np.interp(hz, LEVEL_HZ, LEVEL_DB) / 10)).to(clips)
        power = 2 * (spectrum.real**2 + spectrum.imag**2) @ level / length / (count + PADDING)
        gain = (LEVEL_POWER / power.clamp(min=SMALLEST_POWER)).sqrt()
        response = torch.from_numpy(_response(hz)).to(spectrum)
        filtered: Tensor = torch.fft.irfft(spectrum * response, length)
        return filtered[:, :count] * gain[:, None]

    def _power(self, samples: Tensor) -> Tensor:
        """Power [B, F, M] in the bands of each frame; the last frame is half in the silence after."""
        frames = functional.pad(samples, (0, WINDOW)).unfold(1, WINDOW, HOP)[:, : samples.shape[1] // HOP]
        spectrum: Tensor = torch.fft.rfft(frames * self.window)
        return (spectrum.real**2 + spectrum.imag**2) @ self.bands

    def _audible(self, power: Tensor, times: float) -> Tensor:
        """Power [B, F] in all bands that lie so many times above the threshold."""
        above: Tensor = power * (power > times * self.threshold)
        return above[..., 1:].sum(-1)

    def _filtering(self, made: Tensor, wanted: Tensor, num_samples: int) -> Tensor:
        """How much more power [B, 1, M] made has over all, which is half forgiven."""
        sounding = (self._audible(wanted, 100) >= SILENT_FRAME)[..., None]
        frames = (num_samples * RATE_HZ // self._rate_hz + PADDING) // HOP - 1
        means = [
            (power * (sounding & (power > 100 * self.threshold))).sum(1, keepdim=True) / frames
            for power in (made, wanted)
        ]
        ratio: Tensor = (means[0] + 1000) / (means[1] + 1000)
        return ratio.clamp(0.01, 100)

    def _gain(self, made: Tensor, audible: Tensor) -> Tensor:
        """What brings made to the wanted's audible power [B, F], changing slowly; [B, F, 1]."""
        ratio = (audible + AUDIBLE_FRAME) / (self._audible(made, 1) + AUDIBLE_FRAME)
        before = ratio[:, :1].expand(-1, len(self.smoothing) - 1)
        slow = functional.conv1d(torch.cat([before, ratio], 1)[:, None], self.smoothing[None, None])[:, 0]
        return slow.clamp(3e-4, 5)[..., None]

    def _loudness(self, power: Tensor) -> Tensor:
        """Zwicker's law: sone per Bark [B, F, M]."""
        ratio = torch.maximum(power / self.threshold, torch.ones_like(self.threshold))
        return LOUDNESS_SCALE * (2 * self.threshold) ** self.exponent * ((0.5 + 0.5 * ratio) ** self.exponent - 1)


def _response(hz: NDArray[np.float64]) -> NDArray[np.complex128]:
    """The input filter's gain at frequencies [S]."""
    delay = np.exp(-2j * np.pi * hz / RATE_HZ)
    above, below = (a + b * delay + c * delay**2 for a, b, c in FILTER)
    return np.asarray(above / below)


def _sounding(samples: Tensor) -> tuple[Tensor, Tensor]:
    """First and last frame [B] of what is not silence at the ends; each end keeps at least half the clip."""
    count = samples.shape[1]
    loud = samples.abs().unfold(1, 5, 1).sum(-1) >= SILENT_SAMPLES
    index = torch.arange(loud.shape[1], device=samples.device)
    first = torch.where(loud, index, count).amin(1).clamp(max=count // 2)
    end = torch.where(loud, index + 5, 0).amax(1).clamp(min=count - count // 2)
    last = (end // HOP - 1).clamp(min=0)
    return torch.minimum(first // HOP, last), last


def _over_time(frames: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Norm [B] over syllables of the norms of power 6 within them, which overlap by half, of frames [B, F]."""
    count = frames.shape[1]
    starts = torch.arange(0, count, SYLLABLE // 2, device=frames.device)
    index = first[:, None, None] + starts[:, None] + torch.arange(SYLLABLE, device=frames.device)
    inside = index <= last[:, None, None]
    found = frames.gather(1, index.flatten(1).clamp(max=count - 1)).view_as(index)
    syllables = (torch.where(inside, found, SMALLEST) ** 6).mean(-1) ** (1 / 6)
    # Past 16 s, what comes late counts more.
    growth = min(max((count - 1001) / 5500, 0), 0.5)
    weight = inside[..., 0] * (1 - growth + growth * starts / count)
    return ((weight * syllables) ** 2).sum(1).div((weight**2).sum(1)).sqrt()
