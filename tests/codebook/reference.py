"""Nearest codes by the definition itself, slow and plain: every distance in float64, one dimension after the other.

N vectors, V codes, D dimensions. Memory is [N, V], so this is for tests only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Reference(NamedTuple):
    """The k nearest codes [N, k] int64 and their reported distances [N, k] float64."""

    codes: NDArray[np.int64]
    distances: NDArray[np.float64]


def as_float64(values: Any) -> NDArray[np.float64]:
    """The real numbers that an array or a tensor of any float dtype stands for."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    converted: NDArray[np.float64] = values.detach().cpu().double().resolve_neg().numpy()
    return converted


def search(vectors: Any, codebook: Any, metric: str = "l2", k: int = 1) -> Reference:
    """The definition: the smallest distance wins, the lowest index on ties; NaN counts as infinite."""
    x, c = as_float64(vectors), as_float64(codebook)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        ranks = distances_to_all(x, c, metric)
        ranks[np.isnan(ranks)] = np.inf
        codes = np.argsort(ranks, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(ranks, codes, axis=1)
        if metric == "cosine":
            lengths = np.sqrt(added(x * x))[:, None]
            found = np.where(lengths == 0, 1.0, 1 + found / np.where(lengths == 0, 1.0, lengths))
            found[np.isnan(found)] = np.inf
    return Reference(codes, found)


def distances_to_all(x: NDArray[np.float64], c: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """[N, V] distances by which codes are ranked; for "cosine" without the division by |x|."""
    total = np.zeros((len(x), len(c)))
    for d in range(x.shape[1]):
        left, right = x[:, d, None], c[None, :, d]
        term = (left - right) * (left - right) if metric == "l2" else left * right
        total += term
    if metric == "l2":
        return total
    if metric == "dot":
        return -total
    lengths = np.sqrt(added(c * c))[None, :]
    return np.where(lengths == 0, 0.0, -total / np.where(lengths == 0, 1.0, lengths))


def added(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row sums [N] of [N, D], the terms added one after the other."""
    total = np.zeros(len(values))
    for d in range(values.shape[1]):
        total += values[:, d]
    return total
