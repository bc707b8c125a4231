"""Freeze a trained causal net, and thaw a frozen one.

Frozen, float weights are int8 with one scale per output, and activations integers.
Where a linear map reads an RMS norm, its input is bounded by the norm and needs no calibration. A hidden unit's scale
is free, as the next map divides by it; each is chosen so that its row of weights fills int8. Only the inputs' ranges
are taken from data.
This module imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.nets.causal.bounds import EXACT_FLOAT32, NORM_STEPS, largest_input, largest_sum_after_hidden, norm_length
from multitok.nets.causal.exact import ExactCausalNet
from multitok.nets.causal.module import CausalNet

LARGEST_WEIGHT = 127
# Inputs beyond what calibration showed are cut off this far above it.
INPUT_MARGIN = 1.5
# A hidden unit's bias may be this many steps at most; it sets the unit's scale where there are no weights to speak of.
LARGEST_BIAS = 2.0**20


def freeze(net: CausalNet, calibration: Iterable[torch.Tensor]) -> ExactCausalNet:
    """The exact net that computes what `net` does, to within the rounding of its weights and activations.

    Args:
        net: Trained.
        calibration: Typical inputs, [B, T, D] or [T, D]: they say how far each input value reaches.

    Returns:
        The exact net.

    Raises:
        SpecError: A weight is not finite, or the calibration holds no input above 0.
    """
    config = net.config
    held = {key: value.detach().cpu().double().numpy() for key, value in net.state_dict().items()}
    for key, value in held.items():
        if not np.isfinite(value).all():
            raise SpecError(f"{key} holds a value that is not finite: the training failed")
    ranges = np.tile(_input_ranges(calibration, config.in_dim), config.stack)
    tensors: dict[str, NDArray[Any]] = {}
    enter, step = _to_int8(held["enter.weight"] * ranges)
    limit = largest_input(enter)
    tensors |= {"enter": enter, "enter_gain": limit / ranges, "enter_scale": step / limit}
    tensors |= {"enter_bias": held["enter.bias"]}
    for b in range(len(config.dilations)):
        own = {key.partition(f"blocks.{b}.")[2]: value for key, value in held.items() if f"blocks.{b}." in key}
        tensors |= {f"{key}_{b}": value for key, value in _block(own).items()}
    leave, step = _to_int8(held["leave.weight"], _after_norm(config.channels))
    tensors |= {"leave": leave, "leave_scale": step / NORM_STEPS, "leave_bias": held["leave.bias"]}
    kept = {key: value.astype(np.float32) if value.dtype == np.float64 else value for key, value in tensors.items()}
    return ExactCausalNet(config, kept)


def thaw(exact: ExactCausalNet) -> CausalNet:
    """The differentiable net that computes what `exact` does, but for the rounding of activations.

    Args:
        exact: Stays as it is.

    Returns:
        A net of the same shape; in each block what goes into a hidden unit is as long as what comes out.
    """
    config, held = exact.config, {key: value.astype(np.float64) for key, value in exact.tensors().items()}
    state = {f"{name}.bias": held[f"{name}_bias"] for name in ("enter", "leave")}
    state |= {"enter.weight": held["enter"] * held["enter_scale"][:, None] * held["enter_gain"]}
    state |= {"leave.weight": held["leave"] * held["leave_scale"][:, None] * NORM_STEPS}
    for b in range(len(config.dilations)):
        expand = held[f"expand_{b}"] * (NORM_STEPS * 2.0 ** -held[f"shift_{b}"])
        contract = held[f"contract_{b}"] * held[f"contract_scale_{b}"][:, None]
        lengths = np.sqrt((expand**2).sum(1)), np.sqrt((contract**2).sum(0))
        used = (lengths[0] > 0) & (lengths[1] > 0)
        unit = np.sqrt(np.divide(lengths[1], lengths[0], where=used, out=np.ones_like(lengths[0])))
        state |= {
            f"blocks.{b}.conv.weight": held[f"taps_{b}"].T[:, None],
            f"blocks.{b}.conv.bias": held[f"taps_bias_{b}"],
            f"blocks.{b}.expand.weight": expand * unit[:, None],
            f"blocks.{b}.expand.bias": held[f"expand_bias_{b}"] * unit,
            f"blocks.{b}.contract.weight": contract / unit,
            f"blocks.{b}.contract.bias": held[f"contract_bias_{b}"],
        }
    net = CausalNet(config)
    net.load_state_dict({key: torch.from_numpy(np.ascontiguousarray(value)).float() for key, value in state.items()})
    return net


def _block(own: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
    weights, bias = own["expand.weight"], own["expand.bias"]
    floor = np.abs(bias) * NORM_STEPS / LARGEST_BIAS
    expand, step = _to_int8(weights, _after_norm(weights.shape[1]), floor)
    unit = step / NORM_STEPS
    # The finest steps of the hidden units that keep the sums of the next map exact.
    for shift in range(64):
        scaled_bias = (bias / unit * 2.0**-shift).astype(np.float32)
        contract, contract_step = _to_int8(own["contract.weight"] * (unit * 2.0**shift))
        if largest_sum_after_hidden(expand, shift, scaled_bias, contract) < EXACT_FLOAT32:
            break
    return {
        "taps": np.ascontiguousarray(own["conv.weight"][:, 0].T),
        "taps_bias": own["conv.bias"],
        "expand": expand,
        "expand_bias": scaled_bias,
        "shift": np.array([shift], np.int32),
        "contract": contract,
        "contract_scale": contract_step,
        "contract_bias": own["contract.bias"],
    }


def _after_norm(channels: int) -> float:
    """The longest row of weights whose sums are exact after a norm."""
    return (EXACT_FLOAT32 - 1) / norm_length(channels)


def _to_int8(
    rows: NDArray[np.float64], longest: float = np.inf, floor: NDArray[np.float64] | float = 0.0
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Integers and the step of each row, at least `floor`; 127 is a row's largest, or less if too long so."""
    step = np.maximum(np.abs(rows).max(1) / LARGEST_WEIGHT, floor)
    # Rounding lengthens a row by at most half a step for each weight.
    room = longest - 0.5 * np.sqrt(rows.shape[1])
    step = np.maximum(step, np.sqrt((rows**2).sum(1)) / room)
    step[step == 0] = 1.0
    return np.rint(rows / step[:, None]).astype(np.int8), step


def _input_ranges(calibration: Iterable[torch.Tensor], in_dim: int) -> NDArray[np.float64]:
    """[D] how far each input may reach."""
    seen = np.zeros(in_dim)
    for frames in calibration:
        seen = np.maximum(seen, frames.detach().abs().reshape(-1, in_dim).amax(0).cpu().double().numpy())
    if not (np.isfinite(seen).all() and seen.max() > 0):
        raise SpecError("calibration holds no input above 0, or one that is not finite: give typical inputs")
    # A value that is always 0 there may still take one of a thousandth of the others' range.
    ranges: NDArray[np.float64] = INPUT_MARGIN * np.maximum(seen, 1e-3 * seen.max())
    return ranges
