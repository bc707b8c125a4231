"""The shape of a causal net: what a frame sees, how wide it is, how far its answer lags.

Shape letters: T frames at the net's own rate, D input values, O output values, C channels, E hidden values of a block.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from multitok.errors import SpecError

NORM_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """A stack of causal blocks over frames.

        frames [T * stack, D] -> join `stack` of them -> linear C -> blocks -> linear O * unstack -> [T * unstack, O]

    A block adds to its input: depthwise causal convolution -> RMS norm -> linear E -> ReLU -> linear C.

    Args:
        in_dim: D, values of an input frame.
        out_dim: O, values of an output frame.
        channels: C.
        hidden: E.
        taps: Frames that a block's convolution reads, `dilation` apart, the present one the last.
        dilations: One block for each.
        stack: Input frames joined into one of the net's.
        unstack: Output frames made of one of the net's.
        lookahead: Frames of the net by which its output lags: output t has seen input up to t + lookahead.

    Raises:
        SpecError: A size is below 1, the look-ahead is below 0, or there is no block.
    """

    in_dim: int
    out_dim: int
    channels: int
    hidden: int
    taps: int
    dilations: tuple[int, ...]
    stack: int = 1
    unstack: int = 1
    lookahead: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))
        sizes = (self.in_dim, self.out_dim, self.channels, self.hidden, self.taps, self.stack, self.unstack)
        if min(sizes) < 1 or self.lookahead < 0 or not self.dilations or min(self.dilations) < 1:
            raise SpecError(f"{self}: give sizes and dilations of at least 1, one block or more, lookahead at least 0")

    @property
    def receptive_frames(self) -> int:
        """Frames of the net that one output depends on, itself included."""
        return 1 + (self.taps - 1) * sum(self.dilations)

    def to_json(self) -> dict[str, Any]:
        """JSON values that rebuild it."""
        return {**asdict(self), "dilations": list(self.dilations)}
