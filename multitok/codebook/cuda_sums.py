"""Counts and sums of the vectors of each code on a GPU, in fixed point: cuda/segment_sums.cu.

The same bits as `multitok.codebook.segment_sums` gives on any device, for every order of the vectors.
"""

from __future__ import annotations

import numpy as np
import torch

from multitok.codebook.cuda_launch import (
    NONE_BAD,
    VALUE_NAMES,
    Kernels,
    check_matrix,
    flag,
    kernels_for,
    raise_if_bad,
    readable,
)
from multitok.codebook.segment_sums import LARGEST_EXPONENT, SMALLEST_EXPONENT
from multitok.errors import CodeRangeError, ShapeError, SpecError

# As in cuda/segment_sums.cu.
ROWS_PER_BLOCK, THREADS = 64, 256
MAX_DIM = 2**25 - 1
# Sums of few codes are spread over copies, up to this many values and copies: fewer blocks then wait for each other.
COPIED_VALUES, MOST_COPIES = 2**20, 16


def segment_sums(
    vectors: torch.Tensor,
    codes: torch.Tensor,
    size: int,
    exponent: int,
    *,
    check: bool = True,
    kernels: Kernels | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many vectors each code has, and their sums in units of 2^-exponent.

    Args:
        vectors: [N, D] of any float dtype, finite.
        codes: [N] integers in [0, size).
        size: V.
        exponent: At most what `multitok.codebook.segment_sums.sum_exponent` gives for these vectors.
        check: Whether to wait for the device and refuse bad values and codes. Without it they are left out.
        kernels: Where they run; None: on the device of `vectors`.

    Returns:
        counts [V] int64, sums [V, D] int64.

    Raises:
        NotFiniteError: A value is not finite, or times 2^exponent does not fit into an int64.
        CodeRangeError: A code lies outside the codebook.
        ShapeError: Shapes, dtypes or devices do not fit.
        SpecError: The exponent or the size is not possible.
        MissingExtraError: The kernels cannot run here.
    """
    check_matrix("vectors", vectors)
    count, dim = vectors.shape
    if codes.shape != (count,) or codes.is_floating_point() or codes.device != vectors.device or not 0 < dim <= MAX_DIM:
        raise ShapeError(
            f"vectors {list(vectors.shape)} on {vectors.device} with {codes.dtype} codes {list(codes.shape)} on "
            f"{codes.device}: give an integer code for each vector, and D of 1 to {MAX_DIM}"
        )
    if not SMALLEST_EXPONENT <= exponent <= LARGEST_EXPONENT or not 1 <= size < 2**31:
        raise SpecError(
            f"exponent={exponent}, size={size}: allowed are {SMALLEST_EXPONENT} to {LARGEST_EXPONENT} and 1 to 2^31 - 1"
        )
    kernels = kernels or kernels_for(vectors)
    values = readable(vectors.detach())
    blocks = -(-count // ROWS_PER_BLOCK)
    copies = max(1, min(COPIED_VALUES // (size * dim), MOST_COPIES, blocks))
    counts = torch.zeros((copies, size), dtype=torch.int64, device=vectors.device)
    sums = torch.zeros((copies, size, dim), dtype=torch.int64, device=vectors.device)
    bad_row, bad_code = flag(vectors), flag(vectors)
    if blocks:
        kernels.launch(
            f"segment_sums<{VALUE_NAMES[values.dtype]}>", (blocks,), THREADS,
            (
                values, np.int64(values.stride(0)), np.int64(count), np.int32(dim), codes.long().contiguous(),
                np.int32(size), np.float64(2.0**exponent), np.int32(copies), counts, sums, bad_row, bad_code,
            ),
        )  # fmt: skip
    if check:
        raise_if_bad(bad_row)
        row = int(bad_code.item())
        if row != NONE_BAD:
            raise CodeRangeError(f"codes[{row}] is {int(codes[row])}: allowed are 0 to {size - 1}")
    return counts.sum(0), sums.sum(0)
