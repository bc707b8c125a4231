"""Exact nearest-code search on NumPy: a float32 matrix product proposes, float64 decides where it must.

Score of code c for vector x, both with the codebook's mean subtracted:  s = x.c - |c|^2 / 2.  The nearest code
has the largest score, since |x - c|^2 = |x|^2 - 2 s. Computed in float32, in whatever order the BLAS adds, s is
off by at most

    E = (D + 8) u (|x| max|c| + max|c|^2 / 2),    u = 2^-24,

for D + 1 products and sums, the rounding of |c|^2 / 2, and one rounding each of x and c from subtracting the
mean. The float64 distance, which defines the answer, is itself off by at most (D + 8) 2^-53 (|x| + max|c|)^2. So a
code whose score is more than 2 E plus that above every other one is nearest for certain. All codes within this
tolerance of the best are compared by their float64 distances; on natural data that concerns a few vectors of a
thousand. Where a float32 product might overflow, the tolerance is infinite and float64 decides alone.

Memory is one block of scores (at most `BLOCK_SCORES` or 16 vectors), never [N, V]. Cost: 2 N V D multiply-adds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Scores held at once: 1 MiB of float32, so that a block stays in the second-level cache between its passes.
BLOCK_SCORES = 2**18
# (vector, code) pairs decided in float64 at once.
BLOCK_PAIRS = 2**16
UNIT_ROUNDOFF = 2.0**-24
# Absolute error of a float32 product that underflows, also on processors that flush denormals to zero.
UNDERFLOW = 2.0**-126
# Partial sums of a score below this cannot overflow float32 (3.4e38).
SAFE_MAGNITUDE = 1e37


def search(vectors: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.int32]:
    """Nearest row of `codebook` for each of `vectors`, as `nearest_code` defines it; inputs already checked.

    Args:
        vectors: [N, D] float32, finite, C order.
        codebook: [V, D] float32, finite, C order.

    Returns:
        [N] int32.
    """
    (count, dim), size = vectors.shape, codebook.shape[0]
    mean = codebook.mean(axis=0, dtype=np.float64).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # rows that overflow are decided in float64 below
        centred = codebook - mean
        half_norm = 0.5 * np.square(centred, dtype=np.float64).sum(axis=1)
        weights = np.concatenate([centred.T, -half_norm[None].astype(np.float32)])  # [D + 1, V]
    largest_norm = float(np.sqrt(2 * half_norm.max()))

    rows = min(max(BLOCK_SCORES // size, 16), max(count, 1))
    lifted = np.ones((rows, dim + 1), np.float32)
    block = np.empty((rows, size), np.float32)
    nearest = np.empty(count, np.int32)
    for start in range(0, count, rows):
        x = vectors[start : start + rows]
        lines = np.arange(len(x))
        scores = block[: len(x)]
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(x, mean, out=lifted[: len(x), :dim])
            np.matmul(lifted[: len(x)], weights, out=scores)
            norm = np.sqrt(np.einsum("nd,nd->n", lifted[: len(x), :dim], lifted[: len(x), :dim], dtype=np.float64))
            best = scores.argmax(axis=1)
            top = scores[lines, best].astype(np.float64)
            scores[lines, best] = -np.inf
            margin = top - scores.max(axis=1)
            tolerance = _tolerance(dim, norm, largest_norm)
            certain = margin > tolerance
        nearest[start : start + rows] = best
        if not certain.all():
            doubtful = np.flatnonzero(~certain)
            scores[doubtful, best[doubtful]] = top[doubtful]
            with np.errstate(invalid="ignore"):
                # Written so that a NaN score or an infinite tolerance keeps the code among the candidates.
                candidate = ~(scores[doubtful] < (top - tolerance)[doubtful, None])
            nearest[start + doubtful] = _decide(x[doubtful], codebook, candidate)
    return nearest


def _tolerance(dim: int, norm: NDArray[np.float64], largest_norm: float) -> NDArray[np.float64]:
    """[N] margin of scores above which float32 is certain, for vectors of these norms; infinite where it never is."""
    magnitude = norm * largest_norm + 0.5 * largest_norm**2
    proposed = 2 * ((dim + 8) * (UNIT_ROUNDOFF * magnitude + UNDERFLOW))
    defined = (dim + 8) * 2.0**-53 * np.square(norm + largest_norm)
    return np.where(magnitude < SAFE_MAGNITUDE, proposed + defined, np.inf)


def _decide(
    vectors: NDArray[np.float32], codebook: NDArray[np.float32], candidate: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Nearest among each vector's candidates (at least one each) by the float64 distance, lowest index on ties."""
    decided = np.empty(len(vectors), np.int32)
    # Cut between vectors, so that the pairs of one vector stay together.
    ends = candidate.sum(axis=1).cumsum()
    start = 0
    while start < len(vectors):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK_PAIRS, side="right")))
        row, code = np.nonzero(candidate[start:stop])
        distance = squared_distances(vectors[start:stop][row], codebook[code])
        first = np.searchsorted(row, np.arange(stop - start))
        smallest = np.minimum.reduceat(distance, first)
        winner = np.flatnonzero(distance == smallest[row])
        decided[start:stop] = code[winner[np.searchsorted(row[winner], np.arange(stop - start))]]
        start = stop
    return decided


def squared_distances(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """|left_i - right_i|^2 for each row i of two [P, D] arrays, in float64, added in the order of the axis D."""
    difference = left.T.astype(np.float64) - right.T
    # accumulate, unlike sum, promises the order of its additions.
    total: NDArray[np.float64] = np.add.accumulate(np.square(difference, out=difference), axis=0, out=difference)[-1]
    return total
