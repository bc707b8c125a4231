"""How well a codebook is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.codebook.inputs import is_tensor
from multitok.errors import CodeRangeError, InputError

if TYPE_CHECKING:
    import torch


def usage(codes: NDArray[np.integer[Any]] | torch.Tensor, codebook_size: int) -> float:
    """Share of the codebook's codes that occur in `codes`.

    Args:
        codes: Integers of any shape, of one codebook; an array or a tensor.
        codebook_size: How many codes there are.

    Returns:
        From 1 / codebook_size (one code only) to 1 (every code).

    Raises:
        InputError: There are no codes.
        CodeRangeError: A code lies outside the codebook.
    """
    return float(np.count_nonzero(_counts(codes, codebook_size)) / codebook_size)


def perplexity(codes: NDArray[np.integer[Any]] | torch.Tensor, codebook_size: int) -> float:
    """How many equally frequent codes would carry as much: exp of the entropy of the codes' frequencies.

    Args:
        codes: Integers of any shape, of one codebook; an array or a tensor.
        codebook_size: How many codes there are.

    Returns:
        From 1 (one code only) to `codebook_size` (all alike).

    Raises:
        InputError: There are no codes.
        CodeRangeError: A code lies outside the codebook.
    """
    counts = _counts(codes, codebook_size)
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _counts(codes: Any, codebook_size: int) -> NDArray[np.int64]:
    flat = np.asarray(codes.cpu() if is_tensor(codes) else codes).ravel()
    if flat.size == 0:
        raise InputError("no codes given: usage and perplexity need at least one")
    if flat.min() < 0 or flat.max() >= codebook_size:
        raise CodeRangeError(f"codes reach from {flat.min()} to {flat.max()}: allowed are 0 to {codebook_size - 1}")
    return np.bincount(flat, minlength=codebook_size)
