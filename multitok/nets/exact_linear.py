"""A linear map and an exponential whose bits do not depend on how many rows there are, on threads or on a library.

Shape letters: n rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError

LARGEST_WEIGHT = 2**15 - 1
# Grid steps that an input may be away from 0: with 2^15 for weights, float64 adds 2^18 products exactly.
LARGEST_INPUT = 2**20
# ln 2 in two parts, the first with so few bits that its small multiples are exact.
LN_2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
# 1 / n! from the 11th on down: within half of ln 2 the series is right to 1e-13.
EXP_SERIES = (
    2.5052108385441720e-08, 2.7557319223985893e-07, 2.7557319223985888e-06, 2.4801587301587302e-05,
    1.9841269841269841e-04, 1.3888888888888889e-03, 8.3333333333333332e-03, 4.1666666666666664e-02,
    1.6666666666666666e-01, 0.5, 1.0, 1.0,
)  # fmt: skip


class ExactLinear:
    """x [n, I] -> W (x - centre) + bias [n, O], with integer weights and x on a grid: float64 adds integers exactly.

    Args:
        num_inputs: I.
        num_outputs: O.
        grid: Steps of the grid in a unit of x.
        tensors: "weights" int16 [O, I], "scale" float32 [O], what a step of the weights times one of x counts;
            "centre" int32 [I], in steps of x; "bias" float32 [O].

    Raises:
        SpecError: A tensor is missing, left over, of another shape or dtype, or not finite.
    """

    def __init__(self, num_inputs: int, num_outputs: int, grid: int, tensors: Mapping[str, NDArray[Any]]) -> None:
        wanted: dict[str, tuple[type[Any], tuple[int, ...]]] = {
            "weights": (np.int16, (num_outputs, num_inputs)),
            "scale": (np.float32, (num_outputs,)),
            "centre": (np.int32, (num_inputs,)),
            "bias": (np.float32, (num_outputs,)),
        }
        for key, (dtype, shape) in wanted.items():
            found = tensors.get(key)
            if found is None or found.dtype != dtype or found.shape != shape:
                given = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise SpecError(f"{key} of a linear map is {given}: this one needs {np.dtype(dtype)} {list(shape)}")
            if not np.isfinite(found).all():
                raise SpecError(f"{key} of a linear map holds a value that is not finite: its training failed")
        if surplus := tensors.keys() - wanted.keys():
            raise SpecError(f"unknown tensors {', '.join(sorted(surplus))}: they belong to another configuration")
        self._tensors = {key: np.array(tensors[key]) for key in wanted}
        self._weights = np.ascontiguousarray(self._tensors["weights"].T).astype(np.float64)
        self._scale = self._tensors["scale"].astype(np.float64)
        self._grid = grid

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, O] of x [n, I], which is rounded to the grid."""
        steps = np.rint(x.astype(np.float64) * self._grid) - self._tensors["centre"]
        np.clip(steps, -LARGEST_INPUT, LARGEST_INPUT, out=steps)
        made: NDArray[np.float64] = (steps @ self._weights) * self._scale + self._tensors["bias"]
        return made.astype(np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What rebuilds it: copies."""
        return {key: value.copy() for key, value in self._tensors.items()}

    def floats(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Weights [O, I], centre [I] and bias [O] as numbers."""
        held = self._tensors
        weights = held["weights"] * held["scale"].astype(np.float64)[:, None] * self._grid
        return weights, held["centre"] / self._grid, held["bias"].astype(np.float64)


def linear_tensors(
    weights: NDArray[Any], grid: int, *, centre: NDArray[Any] | None = None, bias: NDArray[Any] | None = None
) -> dict[str, NDArray[Any]]:
    """What an `ExactLinear` takes, to within the rounding of weights to 16 bits and of the centre to the grid.

    Args:
        weights: [O, I].
        grid: Steps of the grid in a unit of an input.
        centre: [I]; None for 0.
        bias: [O]; None for 0.

    Returns:
        The tensors.

    Raises:
        SpecError: A value is not finite.
    """
    rows = np.asarray(weights, np.float64)
    if not all(np.isfinite(each).all() for each in (rows, centre, bias) if each is not None):
        raise SpecError("a linear map holds a value that is not finite: its training failed")
    step = np.abs(rows).max(axis=1) / LARGEST_WEIGHT
    step[step == 0] = 1.0
    return {
        "weights": np.rint(rows / step[:, None]).astype(np.int16),
        "scale": (step / grid).astype(np.float32),
        "centre": np.rint(np.zeros(rows.shape[1]) if centre is None else np.asarray(centre) * grid).astype(np.int32),
        "bias": (np.zeros(len(rows)) if bias is None else np.asarray(bias)).astype(np.float32),
    }


def exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """e to the power of moderate values, to within 1e-12 of it, the same bits everywhere.

    Args:
        values: Of any shape, between -700 and 700.
    """
    twos = np.rint(values * (1 / (LN_2[0] + LN_2[1])))
    rest = (values - twos * LN_2[0]) - twos * LN_2[1]
    total = np.full_like(rest, EXP_SERIES[0])
    for coefficient in EXP_SERIES[1:]:
        total = total * rest + coefficient
    return np.asarray(np.ldexp(total, twos.astype(np.int32)))
