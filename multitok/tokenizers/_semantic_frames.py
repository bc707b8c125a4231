"""Features of one frame and its neighbours: from mel energies by arithmetic, or by a causal net. 50 frames a second.

    log-mel             the log energies of a frame, with those of its neighbours; a baseline
    mfcc                13 cepstral coefficients with their first and second slopes; the classical baseline
    random-projection   normalised log energies through a random matrix, at length 1: BEST-RQ
    causal-net          log energies through a frozen net that was taught the features of a larger encoder

Logarithms lie on a grid (`multitok.frontend.log_mel`), and what follows is integers or one fixed order of additions.
So features do not depend on batch, chunks, threads or machine, and a stream gives those of the whole clip.

Shape letters: F frames, R rows of mel energies (100 a second), M mel bands, D values of a feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import FramingState
from multitok.frontend.log_mel import LogMel
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.exact import CausalState, ExactCausalNet
from multitok.protocol import Json

SAMPLE_RATE_HZ = 16_000
ROWS_PER_FRAME = 2
NUM_CEPSTRA = 13
SLOPE_ROWS = 2  # a slope is taken over so many rows to either side
PROJECTION_LIMIT, PROJECTION_GRID = 127, 16  # normalised energies as int8, sixteenths

Floats = NDArray[np.float32]


def log_mel(num_mels: int) -> LogMel:
    """Rows of log-mel energies, 100 a second, over 25 ms each."""
    return LogMel(MelSpectrogram(SAMPLE_RATE_HZ, 160, 400, 400, num_mels))


@dataclass(frozen=True)
class _NeighbourState:
    """Where a stream stands.

    Args:
        mel: The state of the energies.
        num_rows: Rows so far.
        num_frames: Frames given so far.
        rows: [R, M], from the first that the next frame needs on.
    """

    mel: FramingState
    num_rows: int
    num_frames: int
    rows: Floats


class NeighbourFrontEnd(ABC):
    """Features of a frame's two rows of log energies and `context` rows before and after them.

    Args:
        num_mels: M.
        context: Rows; outside of the clip they are those of silence.
    """

    def __init__(self, num_mels: int, context: int) -> None:
        self.num_mels, self.context = num_mels, context
        self._log_mel = log_mel(num_mels)

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @abstractmethod
    def row_features(self, rows: Floats) -> Floats:
        """Features [F, D] of rows [F, context + 2 + context, M]."""

    @abstractmethod
    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild it."""

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """What was learned or drawn."""
        return {}

    @property
    def lookahead_s(self) -> float | None:
        """Sound that a frame depends on after its own end."""
        return (self._log_mel.mel.lead + self.context * self._log_mel.mel.hop_length) / SAMPLE_RATE_HZ

    def initial_state(self) -> _NeighbourState:
        """Of a stream that has not begun."""
        return _NeighbourState(self._log_mel.initial_state(), 0, 0, self._silence(self.context))

    def step(self, state: _NeighbourState, samples: Floats) -> tuple[_NeighbourState, Floats]:
        """Where the stream stands after `samples`, and the features [F, D] that are known now and were not before."""
        mel, rows = self._log_mel.step(state.mel, samples)
        state, features = self._take(state, rows)
        return _NeighbourState(mel, state.num_rows, state.num_frames, state.rows), features

    def finish(self, state: _NeighbourState) -> Floats:
        """The features that are left."""
        state, features = self._take(state, self._log_mel.finish(state.mel))
        left = -(-state.num_rows // ROWS_PER_FRAME) - state.num_frames
        _, last = self._take(state, self._silence(self.context + ROWS_PER_FRAME))
        return np.concatenate([features, last[:left]])

    def _silence(self, num_rows: int) -> Floats:
        return np.full((num_rows, self.num_mels), self._log_mel.silence, np.float32)

    def _take(self, state: _NeighbourState, logs: Floats) -> tuple[_NeighbourState, Floats]:
        known, width = np.concatenate([state.rows, logs]), 2 * self.context + ROWS_PER_FRAME
        count = max(0, (len(known) - width) // ROWS_PER_FRAME + 1)
        features = np.zeros((0, self.dim), np.float32)
        if count:
            windows = np.lib.stride_tricks.sliding_window_view(known, width, axis=0)
            features = self.row_features(windows[: count * ROWS_PER_FRAME : ROWS_PER_FRAME].transpose(0, 2, 1))
        rows = known[count * ROWS_PER_FRAME :].copy()
        return _NeighbourState(state.mel, state.num_rows + len(logs), state.num_frames + count, rows), features


class LogMelFrontEnd(NeighbourFrontEnd):
    """Log energies of pairs of rows, averaged: a frame's own and those of `frames` frames to either side.

    Args:
        num_mels: M.
        frames: Frames to either side.
    """

    def __init__(self, *, num_mels: int = 80, frames: int = 3) -> None:
        super().__init__(num_mels, frames * ROWS_PER_FRAME)
        self.frames = frames

    @property
    def dim(self) -> int:
        """M for each frame."""
        return self.num_mels * (2 * self.frames + 1)

    def row_features(self, rows: Floats) -> Floats:
        """Means of pairs, which the grid makes exact."""
        pairs = (rows[:, 0::2] + rows[:, 1::2]) / 2
        return pairs.reshape(len(rows), -1).astype(np.float32)

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments."""
        return {"num_mels": self.num_mels, "frames": self.frames}


class MfccFrontEnd(NeighbourFrontEnd):
    """Cepstral coefficients with first and second slopes, averaged over the frame's two rows: 39 values.

    Args:
        num_mels: M.

    Source:
        Davis and Mermelstein 1980, "Comparison of parametric representations"; slopes as in HTK.
    """

    def __init__(self, *, num_mels: int = 40) -> None:
        super().__init__(num_mels, 2 * SLOPE_ROWS)

    @property
    def dim(self) -> int:
        """13 coefficients, their slopes, and the slopes of these."""
        return 3 * NUM_CEPSTRA

    def row_features(self, rows: Floats) -> Floats:
        """Cepstra of each row, band after band, then differences."""
        cepstra = np.zeros((*rows.shape[:2], NUM_CEPSTRA))
        for band, weights in enumerate(self._cosines):
            cepstra += rows[:, :, band, None] * weights
        slopes = _slopes(cepstra)
        second = _slopes(slopes)
        middle, near = self.context, self.context - SLOPE_ROWS
        parts = [cepstra[:, middle : middle + 2], slopes[:, near : near + 2], second]
        return np.concatenate([(part[:, 0] + part[:, 1]) / 2 for part in parts], axis=1).astype(np.float32)

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments."""
        return {"num_mels": self.num_mels}

    @cached_property
    def _cosines(self) -> NDArray[np.float64]:
        # [M, 13]: the orthonormal cosine transform, rounded so that the additions are the same everywhere.
        angles = np.pi / self.num_mels * (np.arange(self.num_mels)[:, None] + 0.5) * np.arange(NUM_CEPSTRA)
        scale = np.where(np.arange(NUM_CEPSTRA) == 0, 1.0, np.sqrt(2.0)) / np.sqrt(self.num_mels)
        return np.asarray(np.rint(np.cos(angles) * scale * 2**20) / 2**20)


class RandomProjectionFrontEnd(NeighbourFrontEnd):
    """Normalised log energies of two rows through a random matrix, at length 1; nothing is trained.

    Args:
        mean: [2 M] float32, of the log energies.
        std: [2 M] float32, above 0.
        projection: [2 M, D] int8.

    Raises:
        SpecError: The arrays do not fit each other.

    Source:
        Chiu et al. 2022, "Self-supervised Learning with Random-projection Quantizer for Speech Recognition".
    """

    def __init__(self, *, mean: Floats, std: Floats, projection: NDArray[np.int8]) -> None:
        if projection.ndim != 2 or projection.dtype != np.int8 or not len(mean) == len(std) == len(projection):
            raise SpecError(
                f"mean {list(mean.shape)}, std {list(std.shape)}, projection {projection.dtype} "
                f"{list(projection.shape)}: give [n], [n] and int8 [n, D]"
            )
        super().__init__(len(mean) // ROWS_PER_FRAME, 0)
        self._mean, self._std, self._projection = mean, std, projection

    @property
    def dim(self) -> int:
        """Columns of the projection."""
        return int(self._projection.shape[1])

    def row_features(self, rows: Floats) -> Floats:
        """Products of integers, which are exact, divided by their length."""
        normalised = (rows.reshape(len(rows), -1) - self._mean) / self._std
        steps = np.clip(np.rint(normalised * PROJECTION_GRID), -PROJECTION_LIMIT, PROJECTION_LIMIT)
        projected = steps @ self._projection.astype(np.float64)
        length = np.sqrt(np.maximum((projected * projected).sum(axis=1, keepdims=True), 1.0))
        return np.asarray(projected / length, np.float32)

    def get_config(self) -> dict[str, Json]:
        """Nothing but tensors."""
        return {}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """`mean`, `std` and `projection`."""
        return {"mean": self._mean, "std": self._std, "projection": self._projection}


class CausalNetFrontEnd:
    """Log energies through a frozen causal net.

    Args:
        config: Shape of the net: it reads rows of log energies (`log_mel`), two joined to a frame.
        tensors: Of `ExactCausalNet`.

    Raises:
        SpecError: The net does not make one frame of two rows, or the tensors do not fit it.
    """

    def __init__(self, *, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        shape = CausalConfig(**config)
        if (shape.stack, shape.unstack) != (ROWS_PER_FRAME, 1):
            raise SpecError(
                f"stack={shape.stack}, unstack={shape.unstack}: two rows of energies are a frame, give 2, 1"
            )
        self._net = ExactCausalNet(shape, tensors)
        self._log_mel = log_mel(shape.in_dim)

    @property
    def dim(self) -> int:
        """Output values of the net."""
        return self._net.config.out_dim

    @property
    def lookahead_s(self) -> float | None:
        """Sound that a frame depends on after its own end."""
        rows = self._net.config.lookahead * ROWS_PER_FRAME
        return (self._log_mel.mel.lead + rows * self._log_mel.mel.hop_length) / SAMPLE_RATE_HZ

    def initial_state(self) -> tuple[FramingState, CausalState]:
        """Of a stream that has not begun."""
        return self._log_mel.initial_state(), self._net.initial_state()

    def step(
        self, state: tuple[FramingState, CausalState], samples: Floats
    ) -> tuple[tuple[FramingState, CausalState], Floats]:
        """Where the stream stands after `samples`, and the features [F, D] that are known now and were not before."""
        mel, rows = self._log_mel.step(state[0], samples)
        net, features = self._net.step(state[1], rows)
        return (mel, net), features

    def finish(self, state: tuple[FramingState, CausalState]) -> Floats:
        """The features that are left."""
        net, features = self._net.step(state[1], self._log_mel.finish(state[0]))
        return np.concatenate([features, self._net.finish(net, self._log_mel.silence)])

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments but the tensors."""
        return {"config": self._net.config.to_json()}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """Of the net."""
        return self._net.tensors()


def _slopes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F, R, n] -> [F, R - 2 SLOPE_ROWS, n]: the slope of a line through each row and its neighbours."""
    total, count = np.zeros((len(values), values.shape[1] - 2 * SLOPE_ROWS, values.shape[2])), values.shape[1]
    for distance in range(1, SLOPE_ROWS + 1):
        after = values[:, SLOPE_ROWS + distance : count - SLOPE_ROWS + distance]
        total += distance * (after - values[:, SLOPE_ROWS - distance : count - SLOPE_ROWS - distance])
    return total / (2 * sum(distance**2 for distance in range(1, SLOPE_ROWS + 1)))
