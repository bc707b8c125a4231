"""Stacks as tensors and back: which convolutions a stack has, under which names, with which limits.

    encoder.entry            weights int8 [O, side, side, I], bias int32 [O], scale float32 [O]
    encoder.fine.0.first     -"-
    ...

Names follow the modules in `stacks.py`, so a frozen checkpoint reads like the trained one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.nets.autoencoder_config import AutoencoderConfig
from multitok.nets.program import ConvOp, Fold2Op, Op, Output, QuantizeOp, ResidualOp, StackProgram, Unfold2Op

Tensors = Mapping[str, NDArray[Any]]


def programs(config: AutoencoderConfig, tensors: Tensors) -> dict[str, StackProgram]:
    """All stacks of an autoencoder by name.

    Args:
        config: The autoencoder's shape.
        tensors: By name, among others.

    Raises:
        SpecError: A tensor is missing or does not fit.
    """
    found = {"decoder": decoder_program(config, tensors)}
    if config.encoder_blocks is not None:
        found["encoder"] = encoder_program(config, tensors, config.encoder_blocks)
    return found | {f"context_{k}": context_program(config, tensors, k) for k in range(1, config.num_codebooks)}


def encoder_program(config: AutoencoderConfig, tensors: Tensors, blocks: tuple[int, int]) -> StackProgram:
    """The encoder stack of `tensors`, with so many residual blocks.

    Raises:
        SpecError: A tensor is missing or does not fit.
    """
    fine, coarse, d = config.fine_width, config.coarse_width, config.latent_dim
    read = _Reader("encoder", tensors)
    ops: list[Op] = [read.conv("entry", config.patch_length // 4 * len(config.taps), fine, 3, "s16")]
    ops += read.residuals("fine", blocks[0], fine)
    ops += [QuantizeOp(), Fold2Op(), read.conv("down", 4 * fine, coarse, 1, "s16")]
    ops += read.residuals("coarse", blocks[1], coarse)
    ops += [QuantizeOp(), read.conv("exit", coarse, d, 1, "s32")]
    return read.program(ops)


def context_program(config: AutoencoderConfig, tensors: Tensors, k: int) -> StackProgram:
    """The context stack before codebook k, k >= 1.

    Raises:
        SpecError: A tensor is missing or does not fit.
    """
    width, d = config.context_width, config.latent_dim
    read = _Reader(f"context_{k}", tensors)
    return read.program(
        [
            read.conv("entry", d * len(config.taps), width, 3, "u8"),
            read.conv("middle", width, width, 3, "u8"),
            read.conv("exit", width, d, 1, "s32"),
        ]
    )


def decoder_program(config: AutoencoderConfig, tensors: Tensors) -> StackProgram:
    """The decoder stack of `tensors`.

    Raises:
        SpecError: A tensor is missing or does not fit.
    """
    fine, coarse = config.fine_width, config.coarse_width
    read = _Reader("decoder", tensors)
    ops: list[Op] = [read.conv("entry", config.latent_dim * len(config.taps), coarse, 3, "s16")]
    ops += read.residuals("coarse", config.decoder_blocks[1], coarse)
    ops += [QuantizeOp(), read.conv("up", coarse, 4 * fine, 1, "s16"), Unfold2Op()]
    ops += read.residuals("fine", config.decoder_blocks[0], fine)
    ops += [QuantizeOp(), read.conv("exit", fine, config.patch_length // 4, 3, "s32")]
    return read.program(ops)


class _Reader:
    def __init__(self, stack: str, tensors: Tensors) -> None:
        self._stack, self._tensors, self._read = stack, tensors, set[str]()

    def conv(self, name: str, inputs: int, outputs: int, side: int, output: Output) -> ConvOp:
        wanted = {
            "weights": (np.int8, (outputs, side, side, inputs)),
            "bias": (np.int32, (outputs,)),
            "scale": (np.float32, (outputs,)),
        }
        parts = {}
        for part, (dtype, shape) in wanted.items():
            key = f"{self._stack}.{name}.{part}"
            found = self._tensors.get(key)
            if found is None or found.dtype != dtype or found.shape != shape:
                given = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise SpecError(f"{key} is {given}: this configuration needs {np.dtype(dtype)} {list(shape)}")
            parts[part] = found
            self._read.add(key)
        return ConvOp(parts["weights"], parts["bias"], parts["scale"], output)

    def residuals(self, name: str, count: int, width: int) -> list[ResidualOp]:
        return [
            ResidualOp(
                self.conv(f"{name}.{index}.first", width, width, 3, "u8"),
                self.conv(f"{name}.{index}.second", width, width, 3, "s16"),
            )
            for index in range(count)
        ]

    def program(self, ops: list[Op]) -> StackProgram:
        surplus = {key for key in self._tensors if key.startswith(f"{self._stack}.")} - self._read
        if surplus:
            raise SpecError(f"unknown tensors {', '.join(sorted(surplus))}: they belong to another configuration")
        return StackProgram(tuple(ops))
