"""Speech units -> sound: the log-mel energies that usually go with a unit and its neighbours, then Griffin-Lim.

Units keep what is said, not who says it: what comes back is an average voice without a melody, to check units by ear
and to hear what a model says. The energies of a frame are a sum over the units around it, each with a table of its own,
fitted by least squares (`multitok.train.semantic`); units have 50 frames a second, the energies 80.

Shape letters: V units, T units that a frame's energies depend on, F frames of units, E frames of energies, M mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.griffin_lim import GriffinLim
from multitok.frontend.spectrogram import MelSpectrogram

FRAME_LENGTH = 320
ENERGY_HOP_LENGTH = 200
GRIFFIN_LIM_ITERATIONS = 32
LOWEST_LOG10, HIGHEST_LOG10 = -8.0, 4.0
GRID = 64  # steps of log10
# A mean of logarithms lies below the logarithm of the mean: sound is made as loud again as what was trained on.
RAISED_LOG10 = 0.7


class Renderer(Protocol):
    """Mel energies [E, M], 80 a second, -> samples: Griffin-Lim or a vocoder."""

    def initial_state(self) -> Any:
        """Of a stream that has not begun."""

    def step(self, state: Any, energies: NDArray[np.float64], /) -> tuple[Any, NDArray[np.float32]]:
        """The state after these energies, and the samples that are known now."""

    def finish(self, state: Any, /) -> NDArray[np.float32]:
        """The samples that are left: with those before, E * 200 of them."""


@dataclass(frozen=True)
class _State:
    """Where a stream stands.

    Args:
        units: The units that are still needed, the first of them repeated before the beginning.
        first: Which frame `units` begins with.
        num_energies: Frames of energies given so far.
        num_samples: Samples given so far.
        renderer: Its state.
    """

    units: NDArray[np.int32]
    first: int
    num_energies: int
    num_samples: int
    renderer: Any


class UnitSound:
    """Speech units as sound.

    Args:
        table: [T, V, M], T odd: what the unit T // 2 frames before, ..., T // 2 frames after adds to log10 energies.
        renderer: What makes samples of energies; None for Griffin-Lim.

    Raises:
        SpecError: The table has another shape, or holds a value that is not finite.
    """

    def __init__(self, table: NDArray[np.floating[Any]], renderer: Renderer | None = None) -> None:
        if table.ndim != 3 or len(table) % 2 == 0 or not np.isfinite(table).all():
            raise SpecError(f"table of shape {list(table.shape)}: give finite values [T, V, M], an odd number T")
        self._table = table.astype(np.float32)
        self._reach = len(table) // 2
        griffin_lim = GriffinLim(energy_mel(table.shape[2]), GRIFFIN_LIM_ITERATIONS)
        self._renderer: Renderer = griffin_lim if renderer is None else renderer

    @property
    def num_units(self) -> int:
        """V."""
        return int(self._table.shape[1])

    def initial_state(self) -> _State:
        """Of a stream that has not begun."""
        return _State(np.empty(0, np.int32), 0, 0, 0, self._renderer.initial_state())

    def step(self, state: _State, units: NDArray[np.int32]) -> tuple[_State, NDArray[np.float32]]:
        """Where the stream stands after `units` [f], and the samples that are known now and were not before."""
        if not units.size:
            return state, np.empty(0, np.float32)
        if not state.units.size:
            state = _State(np.repeat(units[:1], self._reach), -self._reach, 0, 0, state.renderer)
        known = np.concatenate([state.units, units])
        # The last frame of energies lies between two frames of units whose neighbours are all there.
        last = state.first + len(known) - 1 - self._reach
        return self._render(state, known, _num_energies_before(last))

    def finish(self, state: _State) -> NDArray[np.float32]:
        """The samples that are left: with those before, F * 320 of them."""
        if not state.units.size:
            return np.empty(0, np.float32)
        num_samples = (state.first + len(state.units)) * FRAME_LENGTH
        known = np.concatenate([state.units, np.repeat(state.units[-1:], self._reach + 1)])
        after, samples = self._render(state, known, -(-num_samples // ENERGY_HOP_LENGTH))
        samples = np.concatenate([samples, self._renderer.finish(after.renderer)])
        return samples[: num_samples - state.num_samples]

    def log_energies(self, units: NDArray[np.int32]) -> NDArray[np.float32]:
        """[f - T + 1, M] log10 energies of those frames of units whose neighbours are all there."""
        count = max(len(units) - 2 * self._reach, 0)
        total: NDArray[np.float32] = self._table[0, units[:count]].copy()
        for place in range(1, len(self._table)):
            total += self._table[place, units[place : place + count]]
        return total

    def _render(self, state: _State, known: NDArray[np.int32], until: int) -> tuple[_State, NDArray[np.float32]]:
        # The energies from `state.num_energies` to `until`, between the frames of units that they lie between.
        until = max(until, state.num_energies)
        logs = self.log_energies(known)
        place, share = _between(np.arange(state.num_energies, until))
        low = np.maximum(place, 0) - state.first - self._reach
        high = np.maximum(place + 1, 0) - state.first - self._reach
        between = logs[low] * (1 - share)[:, None] + logs[high] * share[:, None]
        renderer, samples = self._renderer.step(state.renderer, _powers(between + np.float32(RAISED_LOG10)))
        needed = max(int(_between(np.arange(until, until + 1))[0][0]), 0) - self._reach
        kept = known[max(needed - state.first, 0) :].copy()
        first = max(needed, state.first)
        return _State(kept, first, until, state.num_samples + len(samples), renderer), samples


def energy_mel(num_mels: int) -> MelSpectrogram:
    """The energies between units and sound: 80 frames a second at 16 kHz, those of `dmel-80hz`."""
    return MelSpectrogram(16_000, ENERGY_HOP_LENGTH, 600, 1024, num_mels)


def _between(energies: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    # Middle of frame j of energies, in frames of units: ((j + 1/2) 200) / 320 - 1/2 = (10 j - 3) / 16.
    place, sixteenths = np.divmod(10 * energies - 3, 16)
    return place, (sixteenths / 16).astype(np.float32)


def _num_energies_before(frame: int) -> int:
    # How many frames of energies lie before the middle of this frame of units: place + 1 <= frame.
    return max((16 * frame + 2) // 10 + 1, 0)


def _powers(logs: NDArray[np.float32]) -> NDArray[np.float64]:
    # By a table, so that a value's bits do not depend on where it stands in an array.
    steps = np.rint(np.clip(logs, LOWEST_LOG10, HIGHEST_LOG10) * GRID).astype(np.intp)
    return _power_table()[steps - int(LOWEST_LOG10 * GRID)]


@lru_cache(maxsize=1)
def _power_table() -> NDArray[np.float64]:
    return np.asarray(10.0 ** (np.arange(int(LOWEST_LOG10 * GRID), int(HIGHEST_LOG10 * GRID) + 1) / GRID))
