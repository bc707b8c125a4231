"""Sound -> mel energies: a framed STFT with an exact frame count.

Shape letters: N samples, F frames, M mel bands, S frequencies of the FFT, B frames in a block.

    samples   |  hop 0  |  hop 1  |  hop 2  |              F = ceil(N / hop), for every N
    frame 0  [      c      ]                               c: the middle of a frame is the middle of its hop
    frame 1            [      c      ]                     what lies outside of the clip counts as silence
    frame 2                      [      c      ]

Every frame is computed by itself, in float64. So its energies are the same bits whether its clip is long or short,
alone or in a batch, whole or pushed in pieces, and on any number of threads; and a long clip needs no more memory than
its samples and one block of frames. The way back stands in `griffin_lim.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import Framing, FramingState

BLOCK_FRAMES = 64  # transformed at once, so that memory stays bounded; of no effect on a frame
# Slaney's mel scale: linear with 3 mel per 200 Hz up to 1 kHz, then 27 mel for each factor of 6.4.
MEL_PER_HZ = 3 / 200
MEL_BREAK_HZ = 1_000.0
MEL_LOG_STEP = np.log(6.4) / 27


@dataclass(frozen=True)
class MelSpectrogram:
    """Mel energies of mono sound.

    Args:
        sample_rate_hz: Rate of the samples.
        hop_length: Samples from one frame to the next.
        window_length: Samples in a frame, an even number more than `hop_length`; Hann's window.
        fft_length: At least `window_length`; frames are filled up with zeros.
        num_mels: Bands, on Slaney's mel scale from 0 Hz to half the rate, each a triangle of area 1.

    Raises:
        SpecError: The lengths do not fit each other, or a band covers no frequency.
    """

    sample_rate_hz: int
    hop_length: int
    window_length: int
    fft_length: int
    num_mels: int

    def __post_init__(self) -> None:
        ordered = 0 < self.hop_length < self.window_length <= self.fft_length
        if not ordered or (self.window_length - self.hop_length) % 2:
            raise SpecError(
                f"hop_length={self.hop_length}, window_length={self.window_length}, fft_length={self.fft_length}: "
                "give 0 < hop < window <= FFT, the window longer than the hop by an even number"
            )
        if self.num_mels < 1 or not self._filters.any(axis=1).all():
            raise SpecError(
                f"num_mels={self.num_mels} with fft_length={self.fft_length} at {self.sample_rate_hz} Hz: "
                "there is no band, or one covers no frequency; take fewer bands or a longer FFT"
            )

    def num_frames(self, num_samples: int) -> int:
        """F: ceil(N / hop)."""
        return -(-num_samples // self.hop_length)

    def initial_state(self) -> FramingState:
        """Of a stream that has not begun."""
        return self._framing.initial_state()

    def step(self, state: FramingState, samples: NDArray[np.float32]) -> tuple[FramingState, NDArray[np.float64]]:
        """Energies of the frames that these samples complete.

        Args:
            state: Where the stream stands.
            samples: [N], any number of them.

        Returns:
            Where it stands then, and [F, M].
        """
        state, frames = self._framing.step(state, samples)
        return state, self.energies_of(frames)

    def finish(self, state: FramingState) -> NDArray[np.float64]:
        """Energies [F, M] of the frames that silence after the stream completes."""
        return self.energies_of(self._framing.finish(state))

    def energies(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """Energies [F, M] of samples [N]: power spectrum times mel weights."""
        state, energies = self.step(self.initial_state(), samples)
        return np.concatenate([energies, self.finish(state)])

    def energies_of(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        """Energies [F, M] of frames [F, window] that have been cut already."""
        energies = np.empty((len(frames), self.num_mels))
        bins, weights, starts = self._sparse_filters
        for first in range(0, len(frames), BLOCK_FRAMES):
            spectrum = np.fft.rfft(frames[first : first + BLOCK_FRAMES] * self.window, self.fft_length)
            power = spectrum.real**2 + spectrum.imag**2
            # Each band sums its own few frequencies: a matrix product may round by its shape and thread count.
            energies[first : first + BLOCK_FRAMES] = np.add.reduceat(power[:, bins] * weights, starts, axis=1)
        return energies

    @cached_property
    def _framing(self) -> Framing:
        return Framing(self.hop_length, self.window_length, self.lead)

    @property
    def lead(self) -> int:
        """Samples by which a frame begins before its hop, and ends after it."""
        return (self.window_length - self.hop_length) // 2

    @cached_property
    def window(self) -> NDArray[np.float64]:
        """Hann's window, symmetric."""
        return np.asarray(np.sin(np.pi * (np.arange(self.window_length) + 0.5) / self.window_length) ** 2)

    @cached_property
    def _filters(self) -> NDArray[np.float64]:
        return mel_filters(self.sample_rate_hz, self.fft_length, self.num_mels)

    @cached_property
    def _sparse_filters(self) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
        # The filters' entries above 0, band by band: frequency, weight, and where each band begins.
        bands, bins = np.nonzero(self._filters)
        return bins, self._filters[bands, bins], np.searchsorted(bands, np.arange(self.num_mels))


def mel_filters(sample_rate_hz: int, fft_length: int, num_mels: int) -> NDArray[np.float64]:
    """Weights [M, S] of triangular bands of area 1 (per Hz), evenly spaced on Slaney's mel scale.

    Source:
        Slaney 1998, "Auditory Toolbox", version 2; the scale and norm that librosa calls "slaney".
    """
    mel_break = MEL_BREAK_HZ * MEL_PER_HZ
    half_hz = sample_rate_hz / 2
    top = half_hz * MEL_PER_HZ if half_hz < MEL_BREAK_HZ else mel_break + np.log(half_hz / MEL_BREAK_HZ) / MEL_LOG_STEP
    mels = np.linspace(0.0, top, num_mels + 2)
    above = MEL_BREAK_HZ * np.exp((np.maximum(mels, mel_break) - mel_break) * MEL_LOG_STEP)
    edges_hz = np.where(mels < mel_break, mels / MEL_PER_HZ, above)
    left, middle, right = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    hz = np.arange(fft_length // 2 + 1) * (sample_rate_hz / fft_length)
    rising, falling = (hz - left) / (middle - left), (right - hz) / (right - middle)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)) * (2 / (right - left)))
