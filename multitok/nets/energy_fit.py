"""Pull sound towards the mel energies that its codes allow: one streaming pass, the same bits for every split.

    samples -> frames -> spectrum -> energies e [F, M]
                            |           |  what brings each band into [low, high]
                            +--- gains -+  -> what that changes -> overlap-add, + samples

A code says that an energy lies in a cell. Where a vocoder's sound does, it is left as it is; where not, the band is
turned up or down just as far as the nearest end. Frames overlap, so a pass comes nearer and does not arrive; two or
three are worth their time. A pass lags by two halves of the overlap, (W - h) samples.

Shape letters: n samples and f frames of one step, M bands, S frequencies, W samples of the window, h of a hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.frontend.framing import Framing, FramingState
from multitok.frontend.spectrogram import MelSpectrogram, mel_filters
from multitok.nets.istft import InverseStft, IstftState

SMALLEST = 1e-12  # keeps divisions finite
LEAST_GAIN, MOST_GAIN = 1e-4, 1e4  # of power, in one pass

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FitState:
    """Where a stream stands; no step changes it.

    Args:
        framing: Of the frames.
        low: [f, M] of frames whose samples are not all there.
        high: [f, M] likewise.
        istft: Of the overlap-add.
        waiting: Samples whose change is not known yet.
    """

    framing: FramingState
    low: Floats
    high: Floats
    istft: IstftState
    waiting: NDArray[np.float32]


class EnergyFit:
    """One pass; immutable.

    Args:
        mel: How the energies come about.
    """

    def __init__(self, mel: MelSpectrogram) -> None:
        self._mel = mel
        self._framing = Framing(mel.hop_length, mel.window_length, mel.lead)
        squares = np.square(mel.window).reshape(-1, mel.hop_length).sum(axis=0)
        repeated = np.tile(squares, mel.window_length // mel.hop_length)
        self._istft = InverseStft(mel.window / repeated, mel.hop_length, mel.fft_length)
        filters = mel_filters(mel.sample_rate_hz, mel.fft_length, mel.num_mels)
        bands, self._bins = np.nonzero(filters)
        self._weights, self._starts = filters[bands, self._bins], np.searchsorted(bands, np.arange(mel.num_mels))
        # Triangles over two bands at most: a sum of two terms has one order.
        self._two = np.argsort(filters == 0, axis=0, kind="stable")[:2]
        shares = np.take_along_axis(filters, self._two, axis=0)
        self._covered = shares.sum(axis=0) > 0
        self._shares = shares / np.maximum(shares.sum(axis=0), SMALLEST)

    def initial_state(self) -> FitState:
        """Of a stream that has not begun."""
        none = np.zeros((0, self._mel.num_mels))
        return FitState(self._framing.initial_state(), none, none, self._istft.initial_state(), np.zeros(0, np.float32))

    def step(
        self, state: FitState, samples: NDArray[np.float32], low: Floats, high: Floats
    ) -> tuple[FitState, NDArray[np.float32]]:
        """The samples that are known now.

        Args:
            state: Where the stream stands.
            samples: [n], any n.
            low: [f, M] of the next frames, any f; those of the samples so far have to be there.
            high: [f, M].

        Returns:
            Where it stands then, and the samples.
        """
        framing, frames = self._framing.step(state.framing, samples)
        return self._take(state, framing, frames, samples, low, high)

    def finish(self, state: FitState) -> NDArray[np.float32]:
        """The samples that are left: with those before, as many as were given.

        Args:
            state: Where the stream stands.
        """
        frames, none = self._framing.finish(state.framing), np.zeros((0, self._mel.num_mels))
        after, samples = self._take(state, state.framing, frames, np.zeros(0, np.float32), none, none)
        change = self._istft.finish(after.istft)[: after.waiting.size]
        return np.concatenate([samples, after.waiting[: change.size] + change, after.waiting[change.size :]])

    def _take(
        self,
        state: FitState,
        framing: FramingState,
        frames: NDArray[np.float32],
        samples: NDArray[np.float32],
        low: Floats,
        high: Floats,
    ) -> tuple[FitState, NDArray[np.float32]]:
        low, high = np.concatenate([state.low, low]), np.concatenate([state.high, high])
        count = len(frames)
        istft, change = self._istft.step(state.istft, self._change(frames, low[:count], high[:count]))
        waiting = np.concatenate([state.waiting, samples])
        fitted = waiting[: change.size] + change[: waiting.size]
        after = FitState(framing, low[count:].copy(), high[count:].copy(), istft, waiting[change.size :].copy())
        return after, fitted

    def _change(self, frames: NDArray[np.float32], low: Floats, high: Floats) -> NDArray[Any]:
        spectra = np.fft.rfft(frames * self._mel.window, self._mel.fft_length)
        power = spectra.real**2 + spectra.imag**2
        energies = np.maximum(np.add.reduceat(power[:, self._bins] * self._weights, self._starts, axis=1), SMALLEST)
        ratio = np.clip(np.minimum(np.maximum(energies, low), high) / energies, LEAST_GAIN, MOST_GAIN)
        gains = np.sqrt(ratio[:, self._two[0]] * self._shares[0] + ratio[:, self._two[1]] * self._shares[1])
        return spectra * np.where(self._covered, gains - 1, 0)
