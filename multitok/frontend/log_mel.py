"""Sound -> logarithms of mel energies, as nets read them.

The logarithm is made of additions, multiplications and divisions alone, which IEEE 754 defines to the bit. So a frame's
values depend neither on where it stands in an array nor on which mathematical library is installed.

Shape letters: N samples, F frames, M mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multitok.frontend.framing import FramingState
from multitok.frontend.spectrogram import MelSpectrogram

# Energies below count as this: -70 dB of a sine at full scale or so.
FLOOR = 1e-7
# The grid of the values: 1024 steps are 20 dB.
GRID = 1024
LOG10_2 = 0.30102999566398119521
# 2 / ln 10, by the odd numbers: log10((1 + s) / (1 - s)) = s * (2 / ln 10) * (1 + s^2 / 3 + s^4 / 5 + ...).
SERIES = tuple(0.86858896380650365530 / odd for odd in (1, 3, 5, 7, 9, 11))


@dataclass(frozen=True)
class LogMel:
    """(log10(energy) + 4) / 2 in each band and frame: 1 is 20 dB, speech lies between -1.5 and 2.

    Args:
        mel: Frames and bands.
    """

    mel: MelSpectrogram

    @property
    def silence(self) -> float:
        """The value of every band in silence, and the smallest there is."""
        return float(_compressed(np.zeros(1))[0])

    def initial_state(self) -> FramingState:
        """Of a stream that has not begun."""
        return self.mel.initial_state()

    def step(self, state: FramingState, samples: NDArray[np.float32]) -> tuple[FramingState, NDArray[np.float32]]:
        """The frames that these samples complete.

        Args:
            state: Where the stream stands.
            samples: [N], any number of them.

        Returns:
            Where it stands then, and [F, M], multiples of 1 / GRID.
        """
        state, energies = self.mel.step(state, samples)
        return state, _compressed(energies)

    def finish(self, state: FramingState) -> NDArray[np.float32]:
        """The frames [F, M] that silence after the stream completes: F such that all of them are ceil(N / hop)."""
        return _compressed(self.mel.finish(state))

    def run(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """[ceil(N / hop), M] of samples [N]."""
        state, frames = self.step(self.initial_state(), samples)
        return np.concatenate([frames, self.finish(state)])


def log10(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of values above 0, to within 1e-9, the same bits everywhere."""
    mantissa, exponent = np.frexp(values)
    # From [0.5, 1) to [0.75, 1.5), so that s lies within a fifth of 0.
    small = mantissa < 0.75
    mantissa = np.where(small, 2 * mantissa, mantissa)
    exponent = exponent - small
    s = (mantissa - 1) / (mantissa + 1)
    square = s * s
    total = np.full_like(s, SERIES[-1])
    for coefficient in SERIES[-2::-1]:
        total = total * square + coefficient
    logarithm: NDArray[np.float64] = total * s + exponent * LOG10_2
    return logarithm


def _compressed(energies: NDArray[np.float64]) -> NDArray[np.float32]:
    values = (log10(np.maximum(energies, FLOOR)) + 4) / 2
    return (np.rint(values * GRID) / GRID).astype(np.float32)
