"""Integer stacks run slowly and plainly in int64: what every engine has to give, and random programs to give it for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.nets.program import (
    ConvOp,
    Fold2Op,
    Op,
    Output,
    QuantizeOp,
    ResidualOp,
    StackProgram,
    Unfold2Op,
)

Ints = NDArray[np.int64]


def run(program: StackProgram, values: NDArray[np.int16]) -> NDArray[np.int32]:
    """What the program gives for values [N, H, W, I]."""
    now = values.astype(np.int64)
    for op in program.ops:
        now = apply(op, now)
    return now.astype(np.int32)


def apply(op: Op, x: Ints) -> Ints:
    """What one operation gives."""
    if isinstance(op, ConvOp):
        return _conv(op, x)
    if isinstance(op, QuantizeOp):
        return np.clip((x + 8) >> 4, 0, 255)
    if isinstance(op, ResidualOp):
        update = _conv(op.second, _conv(op.first, np.clip((x + 8) >> 4, 0, 255)))
        return np.clip(x + update, -32768, 32767)
    n, h, w, c = x.shape
    if isinstance(op, Fold2Op):
        out = np.empty((n, h // 2, w // 2, 4 * c), np.int64)
        for row in range(2):
            for column in range(2):
                first = (2 * row + column) * c
                out[..., first : first + c] = x[:, row::2, column::2]
        return out
    out = np.empty((n, 2 * h, 2 * w, c // 4), np.int64)
    for row in range(2):
        for column in range(2):
            first = (2 * row + column) * (c // 4)
            out[:, row::2, column::2] = x[..., first : first + c // 4]
    return out


def _conv(op: ConvOp, x: Ints) -> Ints:
    n, h, w, _ = x.shape
    reach = op.side // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    acc = np.zeros((n, h, w, op.outputs), np.int64) + op.bias
    for row in range(op.side):
        for column in range(op.side):
            acc += padded[:, row : row + h, column : column + w] @ op.weights[:, row, column].astype(np.int64).T
    assert np.abs(acc).max(initial=0) < 2**24
    with np.errstate(over="ignore"):
        y = np.rint(acc.astype(np.float32) * op.scale).astype(np.float64)
    low, high = {"u8": (0, 255), "s16": (-32768, 32767), "s32": (-(2**31), 2**31 - 1)}[op.output]
    return np.clip(y, low, high).astype(np.int64)


def conv(
    random: np.random.Generator, inputs: int, outputs: int, side: int, output: Output, *, reads_input: bool = False
) -> ConvOp:
    """Random weights, some at the ends of their range; scales at which every value, and both clamps, turn up."""
    largest = (1023 if reads_input else 255) * side * side * inputs
    reach = int(random.integers(1, 1 + min(128, 2**24 // (2 * largest) + 1)))
    weights = random.integers(-reach, reach, (outputs, side, side, inputs), endpoint=True).clip(-128, 127)
    weights = weights.astype(np.int8)
    bias = random.integers(-(2**16), 2**16, outputs, dtype=np.int32)
    spread = np.sqrt(largest) * reach * 16
    wanted = {"u8": 100.0, "s16": 2000.0 if random.random() < 0.7 else 60000.0, "s32": 2.0**18}[output]
    scale = (wanted / spread * random.uniform(0.5, 2, outputs)).astype(np.float32)
    special = random.random(outputs)
    scale = np.where(special < 0.1, 0.5, np.where(special < 0.15, -scale, scale)).astype(np.float32)
    op = ConvOp(weights, bias, scale, output)
    bound = op.accumulator_bound(*((-1024, 1023) if reads_input else (0, 255)))
    shrunk = (weights // (1 + bound // 2**23)[:, None, None, None]).astype(np.int8)
    return ConvOp(shrunk, bias, scale, output)


def program(random: np.random.Generator, kind: str, widths: tuple[int, int, int, int], blocks: int) -> StackProgram:
    """A random stack of the kinds that tokenizers have: "encoder", "decoder", "context" or "plain"."""
    inputs, fine, coarse, outputs = widths
    if kind == "context":
        ops: list[Op] = [conv(random, inputs, fine, 3, "u8", reads_input=True), conv(random, fine, coarse, 3, "u8")]
        return StackProgram((*ops, conv(random, coarse, outputs, 1, "s32")))
    if kind == "plain":
        ops = [
            conv(random, inputs, fine, 1, "u8", reads_input=True),
            Fold2Op(),
            conv(random, 4 * fine, coarse, 3, "u8"),
        ]
        return StackProgram((*ops, conv(random, coarse, outputs, 3, "s32")))

    def residuals(channels: int) -> list[Op]:
        inner = int(random.integers(1, 2 * channels))
        return [
            ResidualOp(conv(random, channels, inner, 3, "u8"), conv(random, inner, channels, 3, "s16"))
            for _ in range(blocks)
        ]

    if kind == "encoder":
        ops = [conv(random, inputs, fine, 3, "s16", reads_input=True), *residuals(fine), QuantizeOp(), Fold2Op()]
        ops += [conv(random, 4 * fine, coarse, 1, "s16"), *residuals(coarse), QuantizeOp()]
        return StackProgram((*ops, conv(random, coarse, outputs, 1, "s32")))
    ops = [conv(random, inputs, coarse, 3, "s16", reads_input=True), *residuals(coarse), QuantizeOp()]
    ops += [conv(random, coarse, 4 * fine, 1, "s16"), Unfold2Op(), *residuals(fine), QuantizeOp()]
    return StackProgram((*ops, conv(random, fine, outputs, 3, "s32")))
