"""What turns sound into the features that speech units are clusters of: the interface, and the front ends by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.protocol import Json
from multitok.tokenizers._semantic_frames import (
    CausalNetFrontEnd,
    LogMelFrontEnd,
    MfccFrontEnd,
    RandomProjectionFrontEnd,
)
from multitok.tokenizers._semantic_transformers import TransformersFrontEnd
from multitok.tokenizers._semantic_windows import WhisperFrontEnd

Arrays = Mapping[str, NDArray[Any]]


class FrontEnd(Protocol):
    """Mono samples at 16 kHz -> features [F, D], one frame for 320 samples. Immutable, with explicit state.

    F = ceil(N / 320) for N samples, and the split into steps does not show.
    """

    @property
    def dim(self) -> int:
        """D."""

    @property
    def lookahead_s(self) -> float | None:
        """Sound after a frame's own end that it may depend on."""

    def initial_state(self) -> Any:
        """Of a stream that has not begun."""

    def step(self, state: Any, samples: NDArray[np.float32], /) -> tuple[Any, NDArray[np.float32]]:
        """The state after `samples` [n], any n, and the features [f, D] that are known now and were not before."""

    def finish(self, state: Any, /) -> NDArray[np.float32]:
        """The features that are left."""

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild it."""

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """What was learned."""


_MAKERS: dict[str, tuple[type[Any], Callable[..., Any]]] = {
    "whisper": (WhisperFrontEnd, lambda config, tensors: WhisperFrontEnd(**config, tensors=tensors)),
    "transformers": (TransformersFrontEnd, lambda config, tensors: TransformersFrontEnd(**config, tensors=tensors)),
    "causal-net": (CausalNetFrontEnd, lambda config, tensors: CausalNetFrontEnd(**config, tensors=tensors)),
    "log-mel": (LogMelFrontEnd, lambda config, tensors: LogMelFrontEnd(**config, **tensors)),
    "mfcc": (MfccFrontEnd, lambda config, tensors: MfccFrontEnd(**config, **tensors)),
    "random-projection": (
        RandomProjectionFrontEnd,
        lambda config, tensors: RandomProjectionFrontEnd(**config, **tensors),
    ),
}


def make_front_end(config: Mapping[str, Any], tensors: Arrays) -> FrontEnd:
    """The front end of a configuration.

    Args:
        config: What `front_end_config` returned.
        tensors: Its tensors.

    Raises:
        SpecError: There is no front end of that type.
    """
    kind = config.get("type")
    if kind not in _MAKERS:
        raise SpecError(f"front end of type {kind!r}: known are {', '.join(_MAKERS)}")
    front_end: FrontEnd = _MAKERS[kind][1]({key: value for key, value in config.items() if key != "type"}, tensors)
    return front_end


def front_end_config(front_end: FrontEnd) -> dict[str, Json]:
    """A front end's configuration with its type."""
    kind = next(kind for kind, (cls, _) in _MAKERS.items() if isinstance(front_end, cls))
    return {"type": kind, **front_end.get_config()}
