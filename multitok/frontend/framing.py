"""A stream of samples cut into overlapping frames, the same frames however the stream is split.

Shape letters: N samples, F frames, W samples in a frame.

    samples   |  hop 0  |  hop 1  |  hop 2  |              F = ceil(N / hop), for every N
    frame 0  [ lead                ]                       it begins `lead` samples before its hop
    frame 1            [ lead                ]             what lies outside of the stream counts as silence
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError


@dataclass(frozen=True)
class FramingState:
    """Where a stream stands.

    Args:
        num_samples: Samples taken so far.
        num_frames: Frames given so far.
        pending: The samples from the beginning of the next frame on; silence before the stream among them.
    """

    num_samples: int
    num_frames: int
    pending: NDArray[np.float32]


@dataclass(frozen=True)
class Framing:
    """Where frames begin and how long they are.

    Args:
        hop_length: Samples from one frame to the next.
        window_length: W, samples in a frame, at least a hop.
        lead: Samples by which a frame begins before its hop; the rest of it lies after.

    Raises:
        SpecError: The lengths do not fit each other.
    """

    hop_length: int
    window_length: int
    lead: int

    def __post_init__(self) -> None:
        if not (0 < self.hop_length <= self.window_length and 0 <= self.lead < self.window_length):
            raise SpecError(
                f"hop_length={self.hop_length}, window_length={self.window_length}, lead={self.lead}: "
                "give 0 < hop <= window and 0 <= lead < window"
            )

    def num_frames(self, num_samples: int) -> int:
        """F: ceil(N / hop)."""
        return -(-num_samples // self.hop_length)

    def initial_state(self) -> FramingState:
        """Of a stream that has not begun."""
        return FramingState(0, 0, np.zeros(self.lead, np.float32))

    def step(self, state: FramingState, samples: NDArray[Any]) -> tuple[FramingState, NDArray[np.float32]]:
        """The frames that these samples complete.

        Args:
            state: Where the stream stands.
            samples: [N], any number of them.

        Returns:
            Where it stands then, and [F, W], which is not to be written to.

        Raises:
            ShapeError: The samples are not one channel.
        """
        if samples.ndim != 1:
            raise ShapeError(f"samples of shape {list(samples.shape)}: give one channel, [N]")
        known = np.concatenate([state.pending, samples.astype(np.float32, copy=False)])
        count = max(0, (known.size - self.window_length) // self.hop_length + 1)
        # A copy, so that the state does not keep a long push alive.
        pending = known[count * self.hop_length :].copy()
        after = FramingState(state.num_samples + samples.size, state.num_frames + count, pending)
        return after, self._cut(known, count)

    def finish(self, state: FramingState) -> NDArray[np.float32]:
        """The frames that silence after the stream completes: [F, W], F such that all of them are ceil(N / hop)."""
        count = self.num_frames(state.num_samples) - state.num_frames
        known = np.zeros(max(0, count - 1) * self.hop_length + self.window_length, np.float32)
        # Where no frame is left, what is pending belongs to none.
        taken = state.pending[: known.size]
        known[: taken.size] = taken
        return self._cut(known, count)

    def _cut(self, known: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        if not count:
            return np.zeros((0, self.window_length), np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(known, self.window_length)
        return frames[: count * self.hop_length : self.hop_length]
