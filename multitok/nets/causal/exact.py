"""The causal net that tokenizers run: the same bits for every way to split a stream, in NumPy alone.

Three kinds of arithmetic, none of which depends on how many frames are computed at once, on threads or on a library:

- Linear maps multiply int8 weights with activations that are integers too. No sum reaches 2^24 (`bounds`), so float32
  carries it exactly in any order of summation.
- Convolutions over time and RMS norms add float32 in one fixed order: tap after tap, and halves of the channels
  folded onto each other. Each is a pass of one elementwise operation over an array.
- The rest is elementwise: products, sums, quotients, square roots and roundings that IEEE 754 defines to the bit.

So a stream is computed by `step` alone: what a file gives whole, it gives in pieces of one frame too.

Shape letters: T frames of the net, D input values, O output values, C channels, E hidden values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError
from multitok.nets.causal.bounds import (
    EXACT_FLOAT32,
    NORM_STEPS,
    largest_input,
    largest_sum_after_hidden,
    largest_sum_after_norm,
)
from multitok.nets.causal.config import NORM_EPSILON, CausalConfig

TILE_FRAMES = 256  # computed at once: what lies between two products stays in a core's cache
FEW_FRAMES = 3  # up to here a product of a matrix with each frame is faster than one of two matrices

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CausalState:
    """Where a stream stands; no step changes it.

    Args:
        num_frames: T, frames of the net taken so far.
        partial: [0 to stack - 1, D] input frames that wait to be joined.
        past: What each block's convolution has yet to see again: [(taps - 1) * dilation, C] for each.
    """

    num_frames: int
    partial: Floats
    past: tuple[Floats, ...]


class _Linear(NamedTuple):
    weights: Floats  # [I, O], integers, possibly divided by a power of two
    scale: Floats  # [O]
    bias: Floats  # [O]


class _Block(NamedTuple):
    dilation: int
    taps: Floats  # [taps, C]
    taps_bias: Floats  # [C]
    expand: Floats  # [C, E], integers divided by a power of two
    expand_bias: Floats  # [E]
    contract: _Linear


class ExactCausalNet:
    """A frozen causal net; immutable, so threads may share it.

    Args:
        config: Its shape.
        tensors: What `freeze` made. "enter_gain" float32 [D * stack], the integer steps in a unit of each input.
            int8 weights "enter" [C, D * stack] and "leave" [O * unstack, C]; for block b "expand_b" [E, C] and
            "contract_b" [C, E]; beside each a float32 "..._bias" and, but for "expand_b", "..._scale". "shift_b"
            int32 [1]: the sums of "expand_b" are divided by 2^shift. float32 "taps_b" [taps, C], "taps_bias_b" [C].

    Raises:
        SpecError: A tensor is missing, left over, of another shape or dtype or not finite, or a sum could reach 2^24.
    """

    def __init__(self, config: CausalConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        self._tensors = {key: np.array(tensors[key]) for key in sorted(tensors)}
        _check(config, self._tensors)
        held = self._tensors
        self._gain = held["enter_gain"]
        # Inputs are cut off where their steps would make sums inexact.
        self._reach = np.float32(largest_input(held["enter"])) / self._gain
        self._enter, self._leave = _linear(held, "enter"), _linear(held, "leave")
        self._blocks = [
            _Block(
                dilation,
                held[f"taps_{b}"],
                held[f"taps_bias_{b}"],
                np.ascontiguousarray(held[f"expand_{b}"].T) * np.float32(2.0 ** -int(held[f"shift_{b}"][0])),
                held[f"expand_bias_{b}"],
                _linear(held, "contract", f"_{b}"),
            )
            for b, dilation in enumerate(config.dilations)
        ]
        self._past = [(config.taps - 1) * dilation for dilation in config.dilations]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What rebuilds it: copies."""
        return {key: value.copy() for key, value in self._tensors.items()}

    def initial_state(self) -> CausalState:
        """Of a stream that has not begun: zeros lie before it."""
        config = self.config
        past = tuple(np.zeros((length, config.channels), np.float32) for length in self._past)
        return CausalState(0, np.zeros((0, config.in_dim), np.float32), past)

    def step(self, state: CausalState, frames: NDArray[Any]) -> tuple[CausalState, Floats]:
        """The outputs that these frames complete; the first `lookahead` frames of the net complete none.

        Args:
            state: Where the stream stands.
            frames: [n, D], any number of them, finite.

        Returns:
            Where it stands then, and [m, O].

        Raises:
            ShapeError: Frames are not of D values.
        """
        config = self.config
        if frames.ndim != 2 or frames.shape[1] != config.in_dim:
            raise ShapeError(f"frames of shape {list(frames.shape)}: this net reads [n, {config.in_dim}]")
        waiting = np.concatenate([state.partial, frames], dtype=np.float32)
        whole = len(waiting) // config.stack * config.stack
        joined = waiting[:whole].reshape(-1, config.in_dim * config.stack)
        outputs = np.empty((len(joined), config.out_dim * config.unstack), np.float32)
        past = state.past
        for first in range(0, len(joined), TILE_FRAMES):
            tile = slice(first, first + TILE_FRAMES)
            past = self._tile(past, joined[tile], outputs[tile])
        dropped = min(max(config.lookahead - state.num_frames, 0), len(joined))
        after = CausalState(state.num_frames + len(joined), waiting[whole:].copy(), past)
        return after, outputs[dropped:].reshape(-1, config.out_dim)

    def finish(self, state: CausalState, silence: float = 0.0) -> Floats:
        """The outputs that are left: m such that all of them are ceil(n / stack) * unstack.

        Args:
            state: Where the stream stands.
            silence: The input values that stand for what lies after the stream.

        Returns:
            [m, O].
        """
        config = self.config
        if not state.num_frames and not len(state.partial):
            return np.zeros((0, config.out_dim), np.float32)
        missing = -len(state.partial) % config.stack + config.lookahead * config.stack
        return self.step(state, np.full((missing, config.in_dim), silence, np.float32))[1]

    def run(self, frames: NDArray[Any], silence: float = 0.0) -> Floats:
        """All outputs of a whole stream.

        Args:
            frames: [n, D].
            silence: As in `finish`.

        Returns:
            [ceil(n / stack) * unstack, O].
        """
        state, outputs = self.step(self.initial_state(), frames)
        return np.concatenate([outputs, self.finish(state, silence)])

    def _tile(self, past: tuple[Floats, ...], joined: Floats, outputs: Floats) -> tuple[Floats, ...]:
        """Fill outputs [T, O * unstack] from inputs [T, D * stack]; the past that the next tile needs."""
        count, channels = len(joined), self.config.channels
        steps = np.clip(joined, -self._reach, self._reach)
        np.multiply(steps, self._gain, out=steps)
        np.rint(steps, out=steps)
        # The stream of all blocks, with room before it for the longest past.
        room = max(self._past)
        line = np.empty((room + count, channels), np.float32)
        x = line[room:]
        mixed, other = np.empty((2, count, channels), np.float32)
        hidden = np.empty((count, self.config.hidden), np.float32)
        _apply(self._enter, steps, out=x)
        kept = []
        for block, before in zip(self._blocks, past, strict=True):
            line[room - len(before) : room] = before
            kept.append(line[room + count - len(before) :].copy())
            first = room - len(before)
            np.multiply(line[first : first + count], block.taps[0], out=mixed)
            for tap in block.taps[1:]:
                first += block.dilation
                np.multiply(line[first : first + count], tap, out=other)
                np.add(mixed, other, out=mixed)
            np.add(mixed, block.taps_bias, out=mixed)
            _normalize(mixed, other)
            _product(mixed, block.expand, out=hidden)
            np.add(hidden, block.expand_bias, out=hidden)
            np.maximum(hidden, 0, out=hidden)
            np.rint(hidden, out=hidden)
            _apply(block.contract, hidden, out=other)
            np.add(x, other, out=x)
        _normalize(x, other)
        _apply(self._leave, x, out=outputs)
        return tuple(kept)


def _product(left: Floats, right: Floats, out: Floats) -> None:
    """Exact for integers whose sums stay below 2^24, so it may take either way."""
    if len(left) <= FEW_FRAMES:
        np.matmul(left[:, None], right, out=out[:, None])
    else:
        np.matmul(left, right, out=out)


def _apply(linear: _Linear, steps: Floats, out: Floats) -> None:
    _product(steps, linear.weights, out)
    np.multiply(out, linear.scale, out=out)
    np.add(out, linear.bias, out=out)


def _normalize(x: Floats, spare: Floats) -> None:
    """x [T, C] becomes rint(NORM_STEPS * x / sqrt(mean of squares)), in place; `spare` is overwritten."""
    np.multiply(x, x, out=spare)
    folded = spare
    while folded.shape[1] % 2 == 0:
        half = folded.shape[1] // 2
        folded = np.add(folded[:, :half], folded[:, half:])
    total = folded[:, :1]
    for column in range(1, folded.shape[1]):
        total = total + folded[:, column : column + 1]
    mean = total * np.float32(1 / x.shape[1])
    np.multiply(x, np.float32(NORM_STEPS) / np.sqrt(mean + np.float32(NORM_EPSILON)), out=x)
    np.rint(x, out=x)


def _linear(held: Mapping[str, NDArray[Any]], name: str, block: str = "") -> _Linear:
    weights = np.ascontiguousarray(held[f"{name}{block}"].T).astype(np.float32)
    return _Linear(weights, held[f"{name}_scale{block}"], held[f"{name}_bias{block}"])


def _check(config: CausalConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
    wanted = tensor_forms(config)
    for key, (dtype, shape) in wanted.items():
        found = tensors.get(key)
        if found is None or found.dtype != dtype or found.shape != shape:
            given = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise SpecError(f"{key} is {given}: this configuration needs {np.dtype(dtype)} {list(shape)}")
        if not np.isfinite(found).all():
            raise SpecError(f"{key} holds a value that is not finite: its training failed")
    if not (tensors["enter_gain"] > 0).all():
        raise SpecError("enter_gain holds a value that is not above 0: these tensors were not made by `freeze`")
    if surplus := tensors.keys() - wanted.keys():
        raise SpecError(f"unknown tensors {', '.join(sorted(surplus))}: they belong to another configuration")
    sums = {"leave": largest_sum_after_norm(tensors["leave"])}
    for b in range(len(config.dilations)):
        expand, shift, bias = tensors[f"expand_{b}"], int(tensors[f"shift_{b}"][0]), tensors[f"expand_bias_{b}"]
        sums[f"expand_{b}"] = largest_sum_after_norm(expand)
        sums[f"contract_{b}"] = largest_sum_after_hidden(expand, shift, bias, tensors[f"contract_{b}"])
    for key, largest in sums.items():
        if largest >= EXACT_FLOAT32:
            raise SpecError(
                f"{key}: a sum could reach {largest:.3g}, and float32 is exact up to 2^24 = {EXACT_FLOAT32:.3g}; "
                "freeze the trained net again, these weights were not made by `freeze`"
            )


def tensor_forms(config: CausalConfig) -> dict[str, tuple[type[Any], tuple[int, ...]]]:
    """Dtype and shape of every tensor of a net of this shape."""
    c, e, joined, out = config.channels, config.hidden, config.in_dim * config.stack, config.out_dim * config.unstack
    forms: dict[str, tuple[type[Any], tuple[int, ...]]] = {"enter_gain": (np.float32, (joined,))}
    for name, rows, columns in (("enter", c, joined), ("leave", out, c)):
        forms |= {name: (np.int8, (rows, columns))}
        forms |= {f"{name}_scale": (np.float32, (rows,)), f"{name}_bias": (np.float32, (rows,))}
    for b in range(len(config.dilations)):
        forms |= {f"taps_{b}": (np.float32, (config.taps, c)), f"taps_bias_{b}": (np.float32, (c,))}
        forms |= {f"expand_{b}": (np.int8, (e, c)), f"expand_bias_{b}": (np.float32, (e,))}
        forms |= {f"shift_{b}": (np.int32, (1,)), f"contract_{b}": (np.int8, (c, e))}
        forms |= {f"contract_scale_{b}": (np.float32, (c,)), f"contract_bias_{b}": (np.float32, (c,))}
    return forms
