"""Counts and sums of the vectors of each code, equal to the bit for every order and split, for values of any range.

`segment_sums` adds integers in units of 2^-e, where e is limited by the largest value: one value of 1e20 would round
all values near 1 to zero. So where the largest value is far above the usual one, what rounding left over is added
once more in a finer unit, and so on.

    value       1e20 + ...      3.14159265...
    level 1     1e20            0                   unit 2^-e1, by the largest value
    level 2     ...             3.14159265...       unit 2^-e2, by the largest remainder, which is 2^-e1 / 2

N vectors, V codes, D dimensions. Nearly all data needs one level. Error of the mean of a code: at most half the last
unit, which is below 2^-25 of the usual value, and the rounding to the codebook's dtype.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.codebook.segment_sums import LARGEST_EXPONENT, segment_sums, sum_exponent
from multitok.train.kmeans_data import Floats

# The last unit is at most this share of the usual value.
PRECISION = 2.0**-24


class Sums:
    """Counts and sums that vectors are added to.

    Args:
        shape: (V, D).
        num_vectors: How many vectors will be added at most, N.
        largest: Largest magnitude among their values.
        usual: A usual magnitude, 0 where all values are.
    """

    def __init__(self, shape: tuple[int, ...], num_vectors: int, largest: float, usual: float) -> None:
        self.counts = np.zeros(shape[0], np.int64)
        self._exponents = exponents(num_vectors, largest, usual)
        self._sums = [np.zeros(shape, np.int64) for _ in self._exponents]

    def add(self, vectors: Floats, codes: NDArray[np.int32], threads: int | None) -> None:
        """Add vectors [N, D] of these codes [N]."""
        rest = vectors
        for level, exponent in enumerate(self._exponents):
            counts, sums = segment_sums(rest, codes, len(self.counts), exponent, threads=threads)
            self._sums[level] += sums
            if level == 0:
                self.counts += counts
            if level + 1 < len(self._exponents):
                # Exact: the rounded value and the remainder have no more digits than the value.
                wide = rest.astype(np.float64)
                rest = wide - np.rint(wide * 2.0**exponent) * 2.0**-exponent

    def totals(self) -> NDArray[np.float64]:
        """[V, D] sums so far."""
        total = np.zeros(self._sums[0].shape)
        for exponent, sums in zip(reversed(self._exponents), reversed(self._sums), strict=True):
            total += sums * 2.0**-exponent
        return total


def exponents(num_vectors: int, largest: float, usual: float) -> list[int]:
    """The exponents of the levels, coarsest first."""
    found = [sum_exponent(largest, num_vectors)]
    while 2.0 ** -found[-1] > PRECISION * usual and usual > 0 and found[-1] < LARGEST_EXPONENT:
        found.append(sum_exponent(2.0 ** -found[-1] / 2, num_vectors))
    return found
