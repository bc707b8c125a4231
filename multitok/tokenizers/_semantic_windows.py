"""Features of encoders that look to both sides, from overlapping windows of which only the centre is kept.

    sound     |        kept 0        |        kept 1        |        kept 2        |
    window 0  [ margin                 margin ]
    window 1                   [ margin                 margin ]

Windows lie at fixed places of the clip and have one length; each goes through the encoder alone. So the features of a
place depend on the sound of its window and on nothing else: not on batch, chunks or what comes after, and a stream
gives those of the whole clip, a window later. What lies outside of the clip is silence.

Shape letters: N samples, W samples of a window, F frames of FRAME_LENGTH samples, D values of a feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import Framing, FramingState
from multitok.frontend.whisper_mel import whisper_log_mel
from multitok.protocol import Json

if TYPE_CHECKING:
    from multitok.nets.whisper import WhisperEncoder

FRAME_LENGTH = 320
SAMPLE_RATE_HZ = 16_000
WINDOW_S, KEPT_S = 10.0, 8.0


class WindowedFrontEnd(ABC):
    """Samples -> features of kept centres of windows.

    Args:
        window_s: Length of a window.
        kept_s: Length of its centre.
        extra_samples: Samples that the encoder wants beyond its frames: half before the window, half after.
        later_samples: By how much windows lie later, so that the encoder's frames lie in the middle of ours.

    Raises:
        SpecError: The centre is as long as the window, or a margin is no whole number of frames.
    """

    def __init__(self, window_s: float, kept_s: float, *, extra_samples: int = 0, later_samples: int = 0) -> None:
        window, kept = round(window_s * SAMPLE_RATE_HZ), round(kept_s * SAMPLE_RATE_HZ)
        if not 0 < kept < window or kept % FRAME_LENGTH or (window - kept) % (2 * FRAME_LENGTH):
            raise SpecError(
                f"window_s={window_s}, kept_s={kept_s}: give 0 < kept < window, with whole frames of 20 ms in the "
                "centre and in each margin"
            )
        self.window_s, self.kept_s = float(window_s), float(kept_s)
        margin = (window - kept) // 2
        self._first, self._count = margin // FRAME_LENGTH, kept // FRAME_LENGTH
        lead = margin + extra_samples // 2 - later_samples
        self._framing = Framing(kept, window + extra_samples, lead)
        self._later_s = later_samples / SAMPLE_RATE_HZ

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @abstractmethod
    def window_features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features [F, D] of one window."""

    @abstractmethod
    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild it."""

    @abstractmethod
    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The encoder's weights."""

    @property
    def lookahead_s(self) -> float | None:
        """Sound that a frame depends on after its own end, at most."""
        return (self.window_s + self.kept_s) / 2 + self._later_s

    def initial_state(self) -> FramingState:
        """Of a stream that has not begun."""
        return self._framing.initial_state()

    def step(self, state: FramingState, samples: NDArray[np.float32]) -> tuple[FramingState, NDArray[np.float32]]:
        """Where the stream stands after `samples`, and the features [F, D] of the windows that they complete."""
        state, windows = self._framing.step(state, samples)
        return state, self._features(windows)

    def finish(self, state: FramingState) -> NDArray[np.float32]:
        """The features that are left."""
        total = -(-state.num_samples // FRAME_LENGTH)
        return self._features(self._framing.finish(state))[: total - state.num_frames * self._count]

    def _features(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        kept = [self.window_features(window)[self._first : self._first + self._count] for window in windows]
        return np.concatenate([np.zeros((0, self.dim), np.float32), *kept])


class WhisperFrontEnd(WindowedFrontEnd):
    """Hidden states of a Whisper encoder after one of its layers.

    Args:
        width: Channels of the encoder.
        heads: Its attention heads.
        layers: Layers that are run.
        num_mels: Its mel bands.
        tensors: Its weights, see `multitok.nets.whisper`.
        window_s: As for `WindowedFrontEnd`.
        kept_s: As for `WindowedFrontEnd`.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        layers: int,
        num_mels: int,
        tensors: Mapping[str, NDArray[Any]],
        window_s: float = WINDOW_S,
        kept_s: float = KEPT_S,
    ) -> None:
        # Whisper's frame t is centred on sample 320 t of its window.
        super().__init__(window_s, kept_s, later_samples=FRAME_LENGTH // 2)
        self._shape = {"width": width, "heads": heads, "layers": layers, "num_mels": num_mels}
        self._held = dict(tensors)

    @property
    def dim(self) -> int:
        """Channels of the encoder."""
        return self._shape["width"]

    def window_features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hidden states [F, D] of one window, brought to one loudness."""
        return self._encoder.hidden_states(whisper_log_mel(samples, self._shape["num_mels"]))

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments but the tensors."""
        return {**self._shape, "window_s": self.window_s, "kept_s": self.kept_s}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The encoder's weights."""
        return dict(self._held)

    @cached_property
    def _encoder(self) -> WhisperEncoder:
        # Made when first used: a tokenizer that is only listed or that decodes needs no torch.
        from multitok.nets.whisper import WhisperConfig, WhisperEncoder

        return WhisperEncoder(WhisperConfig(**self._shape), self._held)
