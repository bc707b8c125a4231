"""Freeze a trained autoencoder: floats to the integers that tokenizers run. This module imports torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from multitok.errors import SpecError
from multitok.nets.autoencoder import INPUT_LEVELS, OUTPUT_LEVELS, VqAutoencoder
from multitok.nets.integer import (
    BASIS_SCALE,
    FEATURE_SCALE,
    LATENT_SCALE,
    NEIGHBOURS,
    NORMAL_SCALE,
    OUTPUT_UNIT,
    IntegerAutoencoder,
)
from multitok.nets.program import ACCUMULATOR_LIMIT, ACTIVATION_HIGH, INPUT_LOW
from multitok.nets.stacks import ACTIVATION_UNIT, STREAM_UNIT, Conv

LARGEST_WEIGHT = 127


def freeze(model: VqAutoencoder) -> IntegerAutoencoder:
    """The integer form of a trained autoencoder.

    Args:
        model: In floats, on the CPU; not changed.

    Returns:
        An autoencoder whose output differs from the float one's by rounding only.

    Raises:
        SpecError: A value leaves the range of its integers: its training failed.
    """
    tensors: dict[str, NDArray[Any]] = {
        "basis": _integers(model.basis.numpy() * BASIS_SCALE, np.int16, "basis"),
        "spread": model.spread.numpy().copy(),
    }
    for k in range(model.config.num_codebooks):
        rows = model.codebook(k).numpy().astype(np.float64) * LATENT_SCALE
        # 8 bits a value, in steps as large as the dimension needs: far finer than what the codebooks leave over.
        step = np.maximum(np.ceil(np.abs(rows).max((0, 1)) / LARGEST_WEIGHT), 1)
        tensors[f"codebook_step_{k}"] = _integers(step, np.int16, f"codebook {k}")
        tensors[f"codebook_{k}"] = _integers(rows / step, np.int8, f"codebook {k}")
        if k:
            centres = model.prototypes(k).numpy() * (FEATURE_SCALE * NEIGHBOURS)
            tensors[f"prototypes_{k}"] = _integers(centres, np.int32, f"prototypes {k}")
    for stack, net in _stacks(model).items():
        for name, conv in _convs(net):
            key = f"{stack}.{name}"
            unit, steps = _units(stack, name, tensors["spread"])
            weights = conv.weight.detach().float().numpy().astype(np.float64).transpose(0, 2, 3, 1)
            bias = conv.bias.detach().float().numpy().astype(np.float64)  # type: ignore[union-attr]
            step = _weight_steps(weights, bias / unit, -INPUT_LOW if name == "entry" else ACTIVATION_HIGH)
            tensors[f"{key}.weights"] = _integers(weights / step[:, None, None, None], np.int8, key)
            tensors[f"{key}.bias"] = _integers(bias / (step * unit), np.int32, f"{key}.bias")
            tensors[f"{key}.scale"] = (step * unit * steps).astype(np.float32)
    return IntegerAutoencoder(model.config, tensors)


def thaw(integer: IntegerAutoencoder) -> VqAutoencoder:
    """A trainable autoencoder that starts where a frozen one is: the inverse of `freeze` up to rounding.

    Args:
        integer: From a checkpoint.

    Returns:
        A new model.
    """
    model = VqAutoencoder(integer.config)
    tensors = integer.tensors
    with torch.no_grad():
        model.basis.copy_(torch.from_numpy(tensors["basis"] / BASIS_SCALE))
        model.spread.copy_(torch.from_numpy(tensors["spread"].copy()))
        for k in range(integer.config.num_codebooks):
            model.codebook(k).copy_(torch.from_numpy(integer.codebook(k) / LATENT_SCALE))
            if k:
                centres = tensors[f"prototypes_{k}"] / (FEATURE_SCALE * NEIGHBOURS)
                model.prototypes(k).copy_(torch.from_numpy(centres))
        for stack, net in _stacks(model).items():
            for name, conv in _convs(net):
                key = f"{stack}.{name}"
                unit, steps = _units(stack, name, tensors["spread"])
                step = tensors[f"{key}.scale"] / (unit * steps)
                weights = tensors[f"{key}.weights"].transpose(0, 3, 1, 2) * step[:, None, None, None]
                conv.weight.copy_(torch.from_numpy(weights))
                conv.bias.copy_(torch.from_numpy(tensors[f"{key}.bias"] * step * unit))  # type: ignore[union-attr]
    return model


def _stacks(model: VqAutoencoder) -> dict[str, nn.Module]:
    stacks: dict[str, nn.Module] = {"decoder": model.decoder}
    if model.encoder is not None:
        stacks["encoder"] = model.encoder
    return stacks | {f"context_{k}": context for k, context in enumerate(model.contexts, 1)}


def _convs(net: nn.Module) -> list[tuple[str, Conv]]:
    return [(name, module) for name, module in net.named_modules() if isinstance(module, Conv)]


def _units(stack: str, name: str, spread: NDArray[np.float32]) -> tuple[float, NDArray[np.float64] | float]:
    """What an input integer of a convolution stands for, and how many output integers stand for 1."""
    decoder = stack == "decoder"
    unit = ACTIVATION_UNIT
    if name == "entry":
        unit = 1 / INPUT_LEVELS if stack == "encoder" else 1 / NORMAL_SCALE
    if name == "exit":
        return unit, OUTPUT_LEVELS / OUTPUT_UNIT if decoder else spread.astype(np.float64) * LATENT_SCALE
    # What a clipped ReLU follows at once leaves in activation steps; everything else adds to a stream.
    activation = name.endswith(".first") or (stack.startswith("context") and name in ("entry", "middle"))
    return unit, 1 / ACTIVATION_UNIT if activation else 1 / STREAM_UNIT


def _weight_steps(weights: NDArray[np.float64], bias: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Step of each output's weights: 7 bits and a sign, fewer where inputs up to `most` could leave the sums' range."""
    flat = np.abs(weights).reshape(len(weights), -1)
    largest = np.where(flat.max(1) > 0, flat.max(1), 1.0)
    reach = flat.sum(1) * most + np.abs(bias)
    # Rounding may add half a step for each weight.
    room = ACCUMULATOR_LIMIT - 1 - (flat.shape[1] * most + 1) / 2
    steps: NDArray[np.float64] = np.maximum(largest / LARGEST_WEIGHT, reach / room)
    return steps


def _integers(values: NDArray[Any], dtype: type[np.signedinteger[Any]], what: str) -> NDArray[Any]:
    rounded = np.rint(values.astype(np.float64))
    limits = np.iinfo(dtype)
    if not np.isfinite(rounded).all() or rounded.min() < limits.min or rounded.max() > limits.max:
        raise SpecError(
            f"{what} reaches {np.abs(rounded).max():g}: the integer form holds up to {limits.max}; "
            "the training diverged, or its learning rate is too high"
        )
    return np.ascontiguousarray(rounded.astype(dtype))
