"""Sums of the vectors of each code in fixed point: the same bits for every order and every split of the vectors.

Float sums depend on the order of their terms, so on threads, batch sizes and ranks. Integer sums do not. Each value
enters as the integer nearest to value * 2^exponent (ties to even), and int64 adds them. With exponent 1:

    value     2.75   -1.25    0.5     sum 2.0
    scaled    5.5    -2.5     1.0
    integer   6      -2       1       sum 5, read as 5 * 2^-1 = 2.5

With N values of magnitude at most M, `sum_exponent` gives an exponent e with N M 2^e <= 2^62, so that nothing
overflows: a sum is at most N (M 2^e + 1/2) < 2^63. One step is 2^-e < N M 2^-60, and the sum of n values is off by at
most n / 2 steps. For a million values a step is below 2^-40 M.

N vectors, V codes, D dimensions. Memory beside the result: the codes as int32 and what the native library or the
kernels need (native/segment_sums.cpp, cuda/segment_sums.cu), or where these are missing three blocks of `BLOCK_VALUES`
values. This module trusts its input; `multitok.quantize.statistics` checks it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import native
from multitok.codebook.inputs import Array, blocks, detached, device_name, dtype_name, is_tensor

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


@overload
def segment_sums(
    vectors: NDArray[Any], codes: NDArray[Any], codebook_size: int, exponent: int, *, threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
@overload
def segment_sums(
    vectors: torch.Tensor, codes: torch.Tensor, codebook_size: int, exponent: int, *, threads: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]: ...
def segment_sums(
    vectors: Array, codes: Array, codebook_size: int, exponent: int, *, threads: int | None = None
) -> tuple[Any, Any]:
    """How many vectors each code has, and their sums in units of 2^-exponent.

    Args:
        vectors: [N, D] of any float dtype and layout, finite; an array, or a tensor on any device.
        codes: [N] integers in [0, codebook_size), of the same kind and on the same device.
        codebook_size: V.
        exponent: At most what `sum_exponent` gives for these vectors.
        threads: CPU threads of the native library, as for `Codebook.search`.

    Returns:
        counts [V] int64, sums [V, D] int64, of the same kind and on the same device.
    """
    vectors = detached(vectors)
    device = device_name(vectors)
    if device == "cpu" and native.available() is None:
        return _native_sums(vectors, codes, codebook_size, exponent, threads)
    if device.startswith("cuda"):
        return _cuda_sums(vectors, codes, codebook_size, exponent)
    return (_torch_sums if is_tensor(vectors) else _numpy_sums)(vectors, codes, codebook_size, exponent)


def _native_sums(vectors: Any, codes: Any, size: int, exponent: int, threads: int | None) -> tuple[Any, Any]:
    dtype, dim = dtype_name(vectors), vectors.shape[1]
    assert dtype is not None
    if is_tensor(vectors):
        codes = codes.int().contiguous()
        counts, sums = (vectors.new_zeros(shape, dtype=int) for shape in ((size,), (size, dim)))
    else:
        codes = np.ascontiguousarray(codes, np.int32)
        counts, sums = np.zeros(size, np.int64), np.zeros((size, dim), np.int64)
    done = 0
    for rows in blocks(vectors) if len(vectors) else ():
        part = codes[done : done + len(rows)]
        native.segment_sums(
            native.Matrix(_address(rows), dtype, len(rows), dim, _row_stride(rows)),
            codes=_address(part), size=size, exponent=exponent, counts=_address(counts), sums=_address(sums),
            threads=threads,
        )  # fmt: skip
        done += len(rows)
    return counts, sums


def _cuda_sums(vectors: Any, codes: Any, size: int, exponent: int) -> tuple[Any, Any]:
    from multitok.codebook import cuda_backend  # not before a CUDA tensor comes

    if cuda_backend.available() is not None:
        return _torch_sums(vectors, codes, size, exponent)
    return cuda_backend.segment_sums(vectors, codes, size, exponent, check=False)


def _address(array: Any) -> int:
    address: int = array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr()
    return address


def _row_stride(rows: Any) -> int:
    if len(rows) == 1:
        return int(rows.shape[1])
    return int(rows.strides[0] // rows.itemsize if isinstance(rows, np.ndarray) else rows.stride(0))


def _numpy_sums(vectors: Any, codes: Any, size: int, exponent: int) -> tuple[Any, Any]:
    codes = codes.astype(np.int64, copy=False)
    counts, sums = np.zeros(size, np.int64), np.zeros((size, vectors.shape[1]), np.int64)
    np.add.at(counts, codes, 1)
    for rows in _slices(vectors):
        scaled = vectors[rows].astype(np.float64)
        scaled *= 2.0**exponent  # exact, or so small that it becomes 0 in any case
        np.add.at(sums, codes[rows], np.rint(scaled, out=scaled).astype(np.int64))
    return counts, sums


def _torch_sums(vectors: Any, codes: Any, size: int, exponent: int) -> tuple[Any, Any]:
    codes = codes.long()
    counts, sums = codes.new_zeros(size), codes.new_zeros(size, vectors.shape[1])
    # A GPU adds in any order, which integers do not mind.
    counts.index_add_(0, codes, codes.new_ones(()).expand_as(codes))
    for rows in _slices(vectors):
        scaled = vectors[rows].double() * 2.0**exponent
        sums.index_add_(0, codes[rows], scaled.round_().long())
    return counts, sums


def _slices(vectors: Any) -> Iterator[slice]:
    count, dim = vectors.shape
    step = max(BLOCK_VALUES // dim, 1)
    return (slice(start, start + step) for start in range(0, count, step))
