"""Integer convolution stacks as plain data: what `integer.py` builds and every engine runs to the same integers.

A stack reads int16 [N, H, W, I] and gives int32 [N, H', W', O], channels last. Between its operations lie

    u8   activations 0 to 255
    s16  a residual stream, clamped to 16 bits; 16 stream steps are one activation step

    ConvOp      acc = bias + sum of weights * values, zeros outside the frame; |acc| < 2^24 whatever the values;
                y = rint(float32(acc) * scale), one float32 product, ties to even;
                to u8: clamp(y, 0, 255); to s16: clamp(y, -32768, 32767); to s32, the last operation only: y
    QuantizeOp  s16 to u8: clamp((s + 8) >> 4, 0, 255)
    ResidualOp  s16 to s16: clamp16(s + second(first(quantize(s))))
    Fold2Op     u8 [2h, 2w, C] to [h, w, 4C], channels (row, column, C)
    Unfold2Op   s16 [h, w, 4C] to [2h, 2w, C], its inverse

Because |acc| < 2^24 holds for every partial sum as well, float32 carries it without rounding in any order. This module
says what is computed and checks that it can be; it computes nothing. It imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError

Output = Literal["u8", "s16", "s32"]

# What a stack reads.
INPUT_LOW, INPUT_HIGH = -1024, 1023
ACTIVATION_HIGH = 255
STREAM_LOW, STREAM_HIGH = -(2**15), 2**15 - 1
STREAM_SHIFT = 4
# Accumulators stay below this, where float32 still holds every integer.
ACCUMULATOR_LIMIT = 2**24


@dataclass(frozen=True, eq=False)
class ConvOp:
    """Convolution of side 1 or 3 that keeps height and width.

    Args:
        weights: [O, side, side, I] int8, copied.
        bias: [O] int32, copied.
        scale: [O] float32, finite, copied.
        output: What it gives.

    Raises:
        SpecError: An array has another dtype or shape, or a scale is not finite.
    """

    weights: NDArray[np.int8]
    bias: NDArray[np.int32]
    scale: NDArray[np.float32]
    output: Output

    def __post_init__(self) -> None:
        for name, dtype in (("weights", np.int8), ("bias", np.int32), ("scale", np.float32)):
            given = np.asarray(getattr(self, name))
            if given.dtype != dtype:
                raise SpecError(f"{name} of dtype {given.dtype}: give {np.dtype(dtype)}")
            kept = np.array(given, order="C")
            kept.setflags(write=False)
            object.__setattr__(self, name, kept)
        shape = self.weights.shape
        if len(shape) != 4 or shape[1:3] not in ((1, 1), (3, 3)) or 0 in shape:
            raise SpecError(f"weights of shape {shape}: give [O, side, side, I], side 1 or 3")
        if self.bias.shape != shape[:1] or self.scale.shape != shape[:1]:
            raise SpecError(f"bias {self.bias.shape} and scale {self.scale.shape}: give {shape[:1]}, one an output")
        if not np.isfinite(self.scale).all():
            raise SpecError("scale holds a NaN or an infinity: give finite values")
        if self.output not in ("u8", "s16", "s32"):
            raise SpecError(f"output={self.output!r}: give 'u8', 's16' or 's32'")

    @property
    def side(self) -> int:
        """1 or 3."""
        return int(self.weights.shape[1])

    @property
    def inputs(self) -> int:
        """I."""
        return int(self.weights.shape[3])

    @property
    def outputs(self) -> int:
        """O."""
        return int(self.weights.shape[0])

    def accumulator_bound(self, low: int, high: int) -> NDArray[np.int64]:
        """Largest |partial sum| that values in [low, high] can reach, whatever the order of the terms: [O] int64.

        Args:
            low: Not positive.
            high: Not negative.
        """
        weights = self.weights.reshape(self.outputs, -1).astype(np.int64)
        positive, negative = np.maximum(weights, 0).sum(1), np.maximum(-weights, 0).sum(1)
        largest = np.maximum(positive * high - negative * low, negative * high - positive * low)
        bound: NDArray[np.int64] = np.abs(self.bias.astype(np.int64)) + largest
        return bound


@dataclass(frozen=True, eq=False)
class ResidualOp:
    """What two convolutions say, added to the stream.

    Args:
        first: Reads the quantised stream, gives u8.
        second: Gives s16 of as many channels as the stream has.

    Raises:
        SpecError: The convolutions do not fit together.
    """

    first: ConvOp
    second: ConvOp

    def __post_init__(self) -> None:
        if (self.first.output, self.second.output) != ("u8", "s16"):
            raise SpecError(f"outputs {self.first.output}, {self.second.output} of a residual block: give u8, s16")
        if self.first.outputs != self.second.inputs or self.first.inputs != self.second.outputs:
            raise SpecError(
                f"a residual block of {self.first.inputs} -> {self.first.outputs} and {self.second.inputs} -> "
                f"{self.second.outputs} channels: give C -> M and M -> C"
            )


@dataclass(frozen=True)
class QuantizeOp:
    """Stream to activations."""


@dataclass(frozen=True)
class Fold2Op:
    """2 x 2 activations to channels."""


@dataclass(frozen=True)
class Unfold2Op:
    """Channels to 2 x 2 positions of the stream."""


Op = ConvOp | ResidualOp | QuantizeOp | Fold2Op | Unfold2Op


@dataclass(frozen=True, eq=False)
class StackProgram:
    """Operations in order: the first a ConvOp, which reads int16, the last a ConvOp to s32.

    Args:
        ops: At least two.

    Raises:
        SpecError: Operations do not fit together, or sums may reach 2^24.
    """

    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        ops = tuple(self.ops)
        object.__setattr__(self, "ops", ops)
        if len(ops) < 2 or not isinstance(ops[0], ConvOp) or not isinstance(ops[-1], ConvOp):
            names = ", ".join(type(op).__name__ for op in ops)
            raise SpecError(f"ops ({names}): give at least two, the first and the last a ConvOp")
        kind, channels = "input", ops[0].inputs
        for index, op in enumerate(ops):
            try:
                kind, channels = _after(op, kind, channels, last=index == len(ops) - 1)
            except SpecError as error:
                raise SpecError(f"op {index}, {type(op).__name__}: {error}") from None

    @property
    def inputs(self) -> int:
        """I."""
        first = self.ops[0]
        assert isinstance(first, ConvOp)
        return first.inputs

    @property
    def outputs(self) -> int:
        """O."""
        last = self.ops[-1]
        assert isinstance(last, ConvOp)
        return last.outputs

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Shape [N, H', W', O] that values of this shape become.

        Args:
            shape: [N, H, W, I].

        Raises:
            ShapeError: Not four axes or another number of channels, a side below 1, or one that does not fold.
        """
        if len(shape) != 4 or shape[3] != self.inputs or min(shape[1:3]) < 1:
            raise ShapeError(f"values of shape {shape}: give [N, H, W, {self.inputs}], H and W at least 1")
        h, w = shape[1:3]
        for op in self.ops:
            if isinstance(op, Fold2Op):
                if h % 2 or w % 2:
                    raise ShapeError(f"values of shape {shape} fold to {h} x {w}, which is odd: give even sizes there")
                h, w = h // 2, w // 2
            elif isinstance(op, Unfold2Op):
                h, w = 2 * h, 2 * w
        return shape[0], h, w, self.outputs

    def multiply_adds(self, h: int, w: int) -> int:
        """Products of weights and values for one frame.

        Args:
            h: H, one that folds.
            w: W, one that folds.
        """
        total = 0
        for op in self.ops:
            if isinstance(op, Fold2Op):
                h, w = h // 2, w // 2
            elif isinstance(op, Unfold2Op):
                h, w = 2 * h, 2 * w
            elif isinstance(op, ResidualOp):
                total += h * w * (op.first.weights.size + op.second.weights.size)
            elif isinstance(op, ConvOp):
                total += h * w * op.weights.size
        return total


def _after(op: Op, kind: str, channels: int, *, last: bool) -> tuple[str, int]:
    """What lies behind an operation that is given `channels` of `kind`."""
    if isinstance(op, ConvOp):
        _check_conv(op, kind, channels)
        if (op.output == "s32") != last:
            raise SpecError(f"gives {op.output}: the last operation, and no other, gives s32")
        return op.output, op.outputs
    if not isinstance(op, (ResidualOp, QuantizeOp, Fold2Op, Unfold2Op)):
        raise SpecError("not an operation of a stack")
    takes = "u8" if isinstance(op, Fold2Op) else "s16"
    if kind != takes:
        raise SpecError(f"takes {takes}, is given {kind}")
    if isinstance(op, ResidualOp):
        _check_conv(op.first, "u8", channels)
        _check_conv(op.second, "u8", op.first.outputs)
        return "s16", channels
    if isinstance(op, QuantizeOp):
        return "u8", channels
    if isinstance(op, Fold2Op):
        return "u8", 4 * channels
    if channels % 4:
        raise SpecError(f"takes a multiple of 4 channels, is given {channels}")
    return "s16", channels // 4


def _check_conv(op: ConvOp, kind: str, channels: int) -> None:
    if kind == "s16":
        raise SpecError("takes u8, is given s16: put a QuantizeOp before it")
    if op.inputs != channels:
        raise SpecError(f"takes {op.inputs} channels, is given {channels}")
    low, high = (INPUT_LOW, INPUT_HIGH) if kind == "input" else (0, ACTIVATION_HIGH)
    bound = op.accumulator_bound(low, high)
    worst = int(bound.argmax())
    if bound[worst] >= ACCUMULATOR_LIMIT:
        raise SpecError(
            f"sums of output {worst} may reach {bound[worst]}, and must stay below 2^24 = {ACCUMULATOR_LIMIT}: give it "
            "smaller weights or a smaller bias, and a larger scale"
        )
    if op.output == "s32" and float((bound * np.abs(op.scale.astype(np.float64))).max()) >= 2**31 - 128:
        raise SpecError("values may leave 32 bits: give a smaller scale")
