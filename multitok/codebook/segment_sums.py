"""Sums of the vectors of each code in fixed point: the same bits for every order and every split of the vectors.

Float sums depend on the order of their terms, so on threads, batch sizes and ranks. Integer sums do not. Each value
enters as the integer nearest to value * 2^exponent (ties to even), and int64 adds them. With exponent 1:

    value     2.75   -1.25    0.5     sum 2.0
    scaled    5.5    -2.5     1.0
    integer   6      -2       1       sum 5, read as 5 * 2^-1 = 2.5

With N values of magnitude at most M, `sum_exponent` gives an exponent e with N M 2^e <= 2^62, so that nothing
overflows: a sum is at most N (M 2^e + 1/2) < 2^63. One step is 2^-e < N M 2^-60, and the sum of n values is off by at
most n / 2 steps. For a million values a step is below 2^-40 M.

N vectors, V codes, D dimensions. Memory beside the result: none in the native library, else three blocks of
`BLOCK_VALUES` values. This module trusts its input; `multitok.quantize.statistics` checks it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import native

if TYPE_CHECKING:
    import torch

# Values turned into integers at once.
BLOCK_VALUES = 2**20
# Within these both 2^exponent and 2^-exponent are normal float64 numbers.
SMALLEST_EXPONENT, LARGEST_EXPONENT = -1022, 1022


def sum_exponent(largest: float, count: int) -> int:
    """The exponent with which int64 holds every sum of `count` values; at most two bits coarser than it has to be.

    Args:
        largest: Largest magnitude among the values, finite.
        count: How many values one sum may take at most, N.

    Returns:
        e with N * largest * 2^e <= 2^62, in [-1022, 1022].
    """
    if largest == 0 or count == 0:
        return LARGEST_EXPONENT
    value_bits = math.frexp(largest)[1]  # largest < 2^value_bits
    count_bits = (count - 1).bit_length()  # count <= 2^count_bits
    return min(62 - value_bits - count_bits, LARGEST_EXPONENT)


def numpy_segment_sums(
    vectors: NDArray[np.floating[Any]], codes: NDArray[np.integer[Any]], codebook_size: int, exponent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many vectors each code has, and their sums in units of 2^-exponent.

    Args:
        vectors: [N, D] float16, float32 or float64, finite.
        codes: [N] integers in [0, codebook_size).
        codebook_size: V.
        exponent: At most what `sum_exponent` gives for these vectors.

    Returns:
        counts [V] int64, sums [V, D] int64.
    """
    count, dim = vectors.shape
    counts, sums = np.zeros(codebook_size, np.int64), np.zeros((codebook_size, dim), np.int64)
    if native.available() is None:
        vectors, codes = np.ascontiguousarray(vectors), np.ascontiguousarray(codes, np.int32)
        native.segment_sums(
            native.Matrix(vectors.ctypes.data, vectors.dtype.name, count, dim, dim),
            codes=codes.ctypes.data, size=codebook_size, exponent=exponent,
            counts=counts.ctypes.data, sums=sums.ctypes.data,
        )  # fmt: skip
        return counts, sums
    codes = codes.astype(np.int64, copy=False)
    np.add.at(counts, codes, 1)
    rows = max(BLOCK_VALUES // dim, 1)
    for start in range(0, count, rows):
        # Exact, or so small that it becomes 0 in any case.
        scaled = vectors[start : start + rows].astype(np.float64) * 2.0**exponent
        np.add.at(sums, codes[start : start + rows], np.rint(scaled, out=scaled).astype(np.int64))
    return counts, sums


def torch_segment_sums(
    vectors: torch.Tensor, codes: torch.Tensor, codebook_size: int, exponent: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`numpy_segment_sums` of tensors, on their device.

    Args:
        vectors: [N, D] of any float dtype, finite.
        codes: [N] integers in [0, codebook_size).
        codebook_size: V.
        exponent: At most what `sum_exponent` gives for these vectors.

    Returns:
        counts [V] int64, sums [V, D] int64.
    """
    import torch

    count, dim = vectors.shape
    counts = torch.zeros(codebook_size, dtype=torch.int64, device=vectors.device)
    sums = torch.zeros(codebook_size, dim, dtype=torch.int64, device=vectors.device)
    if vectors.device.type == "cpu" and native.available() is None:
        vectors, codes = vectors.contiguous().resolve_neg(), codes.to(torch.int32).contiguous()
        native.segment_sums(
            native.Matrix(vectors.data_ptr(), str(vectors.dtype).removeprefix("torch."), count, dim, dim),
            codes=codes.data_ptr(), size=codebook_size, exponent=exponent,
            counts=counts.data_ptr(), sums=sums.data_ptr(),
        )  # fmt: skip
        return counts, sums
    # A GPU adds in any order, which integers do not mind.
    codes = codes.long()
    counts.index_add_(0, codes, torch.ones_like(codes))
    rows = max(BLOCK_VALUES // dim, 1)
    for start in range(0, count, rows):
        scaled = vectors[start : start + rows].double() * 2.0**exponent
        sums.index_add_(0, codes[start : start + rows], scaled.round_().to(torch.int64))
    return counts, sums
