"""Descriptions of integer stacks: what is refused, and that no value can leave its range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import ShapeError, SpecError
from multitok.nets.program import ConvOp, Fold2Op, Op, QuantizeOp, ResidualOp, StackProgram, Unfold2Op
from tests.nets import stack_reference

RANDOM = np.random.default_rng(0)


def conv(inputs: int, outputs: int, output: Any, side: int = 1, weight: int = 1) -> ConvOp:
    weights = np.full((outputs, side, side, inputs), weight, np.int8)
    return ConvOp(weights, np.zeros(outputs, np.int32), np.ones(outputs, np.float32), output)


class TestConvOp:
    def test_arrays_are_copied_and_read_only(self) -> None:
        weights = np.ones((2, 3, 3, 4), np.int8)
        op = ConvOp(weights, np.zeros(2, np.int32), np.ones(2, np.float32), "u8")
        weights[:] = 7
        assert op.weights.max() == 1
        assert (op.inputs, op.outputs, op.side) == (4, 2, 3)
        with pytest.raises(ValueError, match="read-only"):
            op.bias[0] = 1

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"weights": np.ones((2, 3, 3, 4), np.int16)}, "weights of dtype int16: give int8"),
            ({"weights": np.ones((2, 5, 5, 4), np.int8)}, r"\(2, 5, 5, 4\): give \[O, side, side, I\]"),
            ({"weights": np.ones((2, 3, 1, 4), np.int8)}, "side 1 or 3"),
            ({"weights": np.ones((2, 1, 1, 0), np.int8)}, "side 1 or 3"),
            ({"bias": np.zeros(3, np.int32)}, r"bias \(3,\) and scale \(2,\): give \(2,\)"),
            ({"bias": np.zeros(2)}, "bias of dtype float64: give int32"),
            ({"scale": np.array([1, np.nan], np.float32)}, "scale holds a NaN or an infinity"),
            ({"scale": np.ones(2)}, "scale of dtype float64: give float32"),
            ({"output": "s8"}, "output='s8': give 'u8', 's16' or 's32'"),
        ],
    )
    def test_what_cannot_be(self, changed: dict[str, Any], message: str) -> None:
        given = {
            "weights": np.ones((2, 1, 1, 4), np.int8),
            "bias": np.zeros(2, np.int32),
            "scale": np.ones(2, np.float32),
            "output": "u8",
        }
        with pytest.raises(SpecError, match=message):
            ConvOp(**{**given, **changed})

    @settings(deadline=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([(0, 255), (-1024, 1023)]))
    def test_the_bound_is_what_the_worst_values_reach(self, seed: int, ends: tuple[int, int]) -> None:
        random = np.random.default_rng(seed)
        op = ConvOp(
            random.integers(-128, 128, (1, 1, 1, 9)).astype(np.int8),
            random.integers(-1000, 1000, 1).astype(np.int32),
            np.ones(1, np.float32),
            "s32",
        )
        products = np.sort(np.outer(op.weights.ravel().astype(np.int64), ends).max(1))[::-1].clip(0).cumsum()
        others = np.sort(np.outer(op.weights.ravel().astype(np.int64), ends).min(1)).clip(None, 0).cumsum()
        worst = abs(int(op.bias[0])) + max(products[-1], -others[-1])
        assert op.accumulator_bound(*ends) == [worst]


class TestStackProgram:
    @pytest.mark.parametrize(
        ("ops", "message"),
        [
            ((), "at least two"),
            ((conv(3, 4, "s32"),), r"ops \(ConvOp\): give at least two"),
            ((QuantizeOp(), conv(3, 4, "s32")), "the first and the last a ConvOp"),
            ((conv(3, 4, "u8"), QuantizeOp()), "the first and the last a ConvOp"),
            ((conv(3, 4, "u8"), conv(5, 4, "s32")), "op 1, ConvOp: takes 5 channels, is given 4"),
            ((conv(3, 4, "s16"), conv(4, 4, "s32")), "op 1, ConvOp: takes u8, is given s16: put a QuantizeOp"),
            ((conv(3, 4, "s32"), conv(4, 4, "s32")), "op 0, ConvOp: gives s32"),
            ((conv(3, 4, "u8"), conv(4, 4, "u8")), "op 1, ConvOp: gives u8: the last operation"),
            ((conv(3, 4, "u8"), QuantizeOp(), conv(4, 4, "s32")), "op 1, QuantizeOp: takes s16, is given u8"),
            ((conv(3, 4, "s16"), Fold2Op(), conv(16, 4, "s32")), "op 1, Fold2Op: takes u8, is given s16"),
            ((conv(3, 8, "u8"), Unfold2Op(), conv(2, 4, "s32")), "op 1, Unfold2Op: takes s16, is given u8"),
            ((conv(3, 6, "s16"), Unfold2Op(), QuantizeOp(), conv(1, 4, "s32")), "multiple of 4 channels, is given 6"),
            ((conv(130, 4, "u8", weight=127), conv(4, 4, "s32")), "may reach 16906240, and must stay below 2"),
            ((conv(3, 4, "u8", 3), conv(4, 4, "u8", 3), "fold", conv(4, 1, "s32")), "not an operation"),
        ],
    )
    def test_what_cannot_be(self, ops: tuple[Op, ...], message: str) -> None:
        with pytest.raises(SpecError, match=message):
            StackProgram(ops)

    def test_values_that_may_leave_32_bits(self) -> None:
        last = ConvOp(np.ones((1, 1, 1, 4), np.int8), np.zeros(1, np.int32), np.full(1, 3e6, np.float32), "s32")
        with pytest.raises(SpecError, match="op 1, ConvOp: values may leave 32 bits: give a smaller scale"):
            StackProgram((conv(3, 4, "u8"), last))

    def test_residual_blocks_that_do_not_fit(self) -> None:
        with pytest.raises(SpecError, match=r"4 -> 5 and 6 -> 4 channels: give C -> M and M -> C"):
            ResidualOp(conv(4, 5, "u8"), conv(6, 4, "s16"))
        with pytest.raises(SpecError, match=r"outputs u8, u8 of a residual block: give u8, s16"):
            ResidualOp(conv(4, 5, "u8"), conv(5, 4, "u8"))
        residual = ResidualOp(conv(4, 5, "u8"), conv(5, 4, "s16"))
        with pytest.raises(SpecError, match="op 1, ResidualOp: takes 4 channels, is given 3"):
            StackProgram((conv(2, 3, "s16"), residual, QuantizeOp(), conv(3, 1, "s32")))

    @pytest.mark.parametrize(("kind", "sides"), [("encoder", (3, 4)), ("decoder", (12, 16)), ("context", (6, 8))])
    def test_shapes_and_work(self, kind: str, sides: tuple[int, int]) -> None:
        program = stack_reference.program(RANDOM, kind, (3, 4, 5, 6), 1)
        shape = program.output_shape((2, 6, 8, 3))
        values = RANDOM.integers(-1024, 1024, (2, 6, 8, 3)).astype(np.int16)
        assert shape == (2, *sides, 6) == stack_reference.run(program, values).shape
        first, last = program.ops[0], program.ops[-1]
        assert isinstance(first, ConvOp)
        assert isinstance(last, ConvOp)
        ends = 6 * 8 * first.weights.size + sides[0] * sides[1] * last.weights.size
        assert program.multiply_adds(6, 8) > ends

    @pytest.mark.parametrize("shape", [(1, 6, 7, 3), (1, 5, 8, 3), (1, 6, 8, 4), (6, 8, 3), (1, 0, 8, 3)])
    def test_shapes_that_cannot_be(self, shape: tuple[int, ...]) -> None:
        program = stack_reference.program(RANDOM, "encoder", (3, 4, 5, 6), 0)
        with pytest.raises(ShapeError, match="give"):
            program.output_shape(shape)
