"""How large the sums of an exact causal net can become, whatever it is given.

A float32 holds every integer up to 2^24. So a product of integer matrices is exact in float32, in whatever order a
library adds, as long as no sum of any of its terms reaches that far. Nothing has to be clipped for that: an RMS norm
bounds the length of its output, and by Cauchy and Schwarz a sum of some products is at most the product of lengths.

Shape letters: C channels, E hidden values, O outputs of a linear map, I inputs of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT_FLOAT32 = 2**24
# Integer steps in one unit of a norm's output.
NORM_STEPS = 2**8
# More than what float32 rounds by in a norm, and float64 here.
SLACK = 1 + 1e-4


def norm_length(channels: int) -> float:
    """The largest length of a norm's output, in steps, rounded to integers: its mean square is at most 1."""
    return float(SLACK * np.sqrt(channels) * (NORM_STEPS + 0.5))


def largest_sum_after_norm(weights: NDArray[np.int8]) -> float:
    """The largest sum of any terms of a row, for weights [O, C] that read a norm's output."""
    return float(_lengths(weights).max() * norm_length(weights.shape[1]))


def largest_sum_after_hidden(
    expand: NDArray[np.int8], shift: int, bias: NDArray[np.float32], contract: NDArray[np.int8]
) -> float:
    """The largest sum of any terms of a row of `contract`, which reads rint(relu(expand / 2^shift + bias)).

    Args:
        expand: [E, C], reads a norm's output.
        shift: Its sums are divided by 2^shift.
        bias: [E], what is added then.
        contract: [O, E].
    """
    longest, unit = norm_length(expand.shape[1]), 2.0**-shift
    each = SLACK * (unit * longest * _lengths(expand) + np.abs(bias) + 0.5)
    gram = expand.astype(np.float64)
    stretch = np.sqrt(np.linalg.eigvalsh(gram.T @ gram)[-1] * SLACK)
    offset = np.sqrt((bias.astype(np.float64) ** 2).sum()) + 0.5 * np.sqrt(len(bias))
    together = SLACK * (unit * longest * stretch + offset)
    length = min(together, np.sqrt((each**2).sum()))
    one_by_one = np.abs(contract.astype(np.float64)) @ each
    return float(np.minimum(one_by_one, length * _lengths(contract)).max())


def largest_input(weights: NDArray[np.int8]) -> int:
    """The largest magnitude of integer inputs that keeps every sum of weights [O, I] times inputs exact."""
    row = int(np.abs(weights.astype(np.int64)).sum(1).max())
    return min((EXACT_FLOAT32 - 1) // max(row, 1), 2**15 - 1)


def _lengths(rows: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt((rows.astype(np.float64) ** 2).sum(1))
    return lengths
