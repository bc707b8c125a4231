"""Spectra to samples, frame by frame: inverse FFT, window, overlap-add. The same bits however the frames are split.

Shape letters: f frames of one step, S frequencies, W samples of the window, h samples of a hop, H = W / h.

    frame 0  |   0   |   1   |   2   |   3   |               a frame is H hops of h samples
    frame 1          |   0   |   1   |   2   |   3   |
    frame 2                  |   0   |   1   |   2   |   3   |
    samples      x   |  hop 0        .                       x: (W - h) / 2 samples before the clip, dropped

A hop of samples is the sum of the windowed frames over it, the earliest added first; it is ready once the last of them
is there, so the answer lags by (W - h) / 2 samples. Frames outside of the clip count as silence. All of it is in
float64, and one row of the FFT at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError


@dataclass(frozen=True)
class IstftState:
    """What frames given so far leave to the next step; never changed in place.

    Args:
        sums: [H - 1, h] samples that further frames will be added to.
        skip: Samples before the clip that are still to be dropped.
    """

    sums: NDArray[np.float64]
    skip: int


class InverseStft:
    """Spectra [F, S] of frames to samples [F * h], streaming.

    Args:
        window: [W], by which each frame is multiplied before it is added. Where frames are to give back the clip that
            they were analysed from, it holds what makes the sum of both windows' products 1.
        hop_length: h, a divisor of W; W - h is even.
        fft_length: Samples of the Fourier transform, of which the first W are taken; None for W.

    Raises:
        SpecError: The lengths do not fit each other.
    """

    def __init__(self, window: NDArray[Any], hop_length: int, fft_length: int | None = None) -> None:
        self._window = np.array(window, np.float64)
        self._fft_length = len(self._window) if fft_length is None else fft_length
        length = len(self._window)
        if hop_length < 1 or length % hop_length or (length - hop_length) % 2:
            raise SpecError(
                f"window of {length} samples with hop_length={hop_length}: give a multiple of the hop, "
                "and an even number longer"
            )
        self.hop_length = hop_length
        self._overlap, self._lead = length // hop_length - 1, (length - hop_length) // 2

    def initial_state(self) -> IstftState:
        """Before the first frame."""
        return IstftState(np.zeros((self._overlap, self.hop_length)), self._lead)

    def step(self, state: IstftState, spectra: NDArray[Any]) -> tuple[IstftState, NDArray[np.float32]]:
        """Add frames.

        Args:
            state: Of the frames before.
            spectra: [f, S] complex, S = fft_length // 2 + 1; f may be 0.

        Returns:
            The state after, and the samples that are ready: f * h once the first (W - h) / 2 are dropped.
        """
        count, length = len(spectra), len(self._window)
        if not count:
            return state, np.zeros(0, np.float32)
        frames = np.fft.irfft(spectra.astype(np.complex128), self._fft_length)[:, :length] * self._window
        frames = frames.reshape(count, -1, self.hop_length)
        sums = np.zeros((count + self._overlap, self.hop_length))
        sums[: self._overlap] = state.sums
        # The last hop of a frame first: so that of the frames over a hop the earliest is added first.
        for part in reversed(range(self._overlap + 1)):
            sums[part : part + count] += frames[:, part]
        ready = sums[:count].astype(np.float32).reshape(-1)
        skip = min(state.skip, ready.size)
        return IstftState(sums[count:], state.skip - skip), ready[skip:]

    def finish(self, state: IstftState) -> NDArray[np.float32]:
        """The samples that wait for frames after the last: so there are F * h in all.

        Args:
            state: After the last frame.
        """
        return state.sums.astype(np.float32).reshape(-1)[state.skip : self._lead]
