"""The streaming contract passes a plain tokenizer, and finds what can go wrong in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.protocol import Json, Modality, TokenizerSpec
from multitok.tokenizers._audio_stream import Analysis, Synthesis
from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer
from tests.stream_contract import check_streaming

HOP = 5


class Loudest:
    """Codes of a frame: the 128 levels of its loudest sample and of the one of the frame after it."""

    def initial_state(self) -> Any:
        return np.zeros(0, np.float32)

    def step(self, state: Any, samples: NDArray[np.float32], /) -> tuple[Any, NDArray[np.int32]]:
        known = np.concatenate([state, samples])
        count = max(known.size // HOP - 1, 0)
        return known[count * HOP :], self.codes(known[: (count + 1) * HOP], count)

    def finish(self, state: Any, /) -> NDArray[np.int32]:
        count = -(-state.size // HOP)
        return self.codes(np.pad(state, (0, (count + 1) * HOP - state.size)), count)

    def codes(self, known: NDArray[np.float32], count: int) -> NDArray[np.int32]:
        if not count:
            return np.zeros((2, 0), np.int32)
        levels = (np.abs(known.reshape(-1, HOP)).max(axis=1).clip(0, 1) * 127).astype(np.int32)
        return np.stack([levels[:count], levels[1 : count + 1]])


class Steps:
    """A frame's samples: its level."""

    def initial_state(self) -> Any:
        return ()

    def step(self, state: Any, values: NDArray[np.int32], /) -> tuple[Any, NDArray[np.float32]]:
        return state, (values[0] / np.float32(127)).repeat(HOP).astype(np.float32)

    def finish(self, state: Any, /) -> NDArray[np.float32]:
        return np.zeros(0, np.float32)


class Toy(AudioStreamTokenizer):
    """A tokenizer of two machines."""

    def __init__(self, analysis: Analysis | None = None, synthesis: Synthesis | None = None) -> None:
        self._machines = analysis or Loudest(), synthesis or Steps()

    @property
    def spec(self) -> TokenizerSpec:
        return TokenizerSpec(
            kind="toy",
            name="audio",
            modality=Modality.AUDIO,
            codebook_sizes=(128, 128),
            grid_axes=("t",),
            stride=(HOP,),
            sample_rate_hz=8_000,
        )

    def _analysis(self) -> Analysis:
        return self._machines[0]

    def _synthesis(self) -> Synthesis:
        return self._machines[1]

    def get_config(self) -> dict[str, Json]:
        return {}


def test_a_plain_tokenizer_passes() -> None:
    check_streaming(Toy(), examples=100, max_s=0.5)


class DependsOnTheSplit(Loudest):
    """Looks at what a step brings, not at what is known."""

    def step(self, state: Any, samples: NDArray[np.float32], /) -> tuple[Any, NDArray[np.int32]]:
        return super().step(state, samples / max(np.abs(samples).max(initial=0), 1e-9))


class HasStateOfItsOwn(Loudest):
    """Remembers across streams."""

    last = np.zeros(0, np.float32)

    def step(self, state: Any, samples: NDArray[np.float32], /) -> tuple[Any, NDArray[np.int32]]:
        state, codes = super().step(self.last, samples)
        self.last = state
        return state, codes

    def finish(self, state: Any, /) -> NDArray[np.int32]:
        self.last = np.zeros(0, np.float32)
        return super().finish(state)


class DropsTheEnd(Loudest):
    """Gives complete frames only."""

    def finish(self, state: Any, /) -> NDArray[np.int32]:
        return super().finish(state[: state.size // HOP * HOP])


class KeepsTheCodes(Steps):
    """Holds on to the array that was pushed and looks at it later."""

    def initial_state(self) -> Any:
        return []

    def step(self, state: Any, values: NDArray[np.int32], /) -> tuple[Any, NDArray[np.float32]]:
        state.append(values)
        return state, np.zeros(0, np.float32)

    def finish(self, state: Any, /) -> NDArray[np.float32]:
        return super().step((), np.concatenate([np.zeros((2, 0), np.int32), *state], axis=1))[1]


class SoundDependsOnTheSplit(Steps):
    """Smooths within a step."""

    def step(self, state: Any, values: NDArray[np.int32], /) -> tuple[Any, NDArray[np.float32]]:
        state, samples = super().step(state, values)
        return state, samples - samples.mean() if samples.size else samples


@pytest.mark.parametrize("broken", [DependsOnTheSplit, HasStateOfItsOwn, DropsTheEnd])
def test_a_broken_encoder_is_found(broken: type[Loudest]) -> None:
    with pytest.raises(AssertionError):
        check_streaming(Toy(broken()), examples=30, max_s=0.2)


def test_a_broken_decoder_is_found() -> None:
    with pytest.raises(AssertionError):
        check_streaming(Toy(synthesis=SoundDependsOnTheSplit()), examples=30, max_s=0.2)


def test_what_is_pushed_may_be_kept_by_a_machine() -> None:
    check_streaming(Toy(synthesis=KeepsTheCodes()), examples=30, max_s=0.2)
