"""What a codebook learns from: how many vectors each code has and their sums, equal to the bit however they came.

The same vectors give the same counts and sums for every order, batch split, number of threads, number of ranks and
machine, since the sums are taken in fixed point (`multitok.codebook.segment_sums`). So training on one process and on
several does not drift apart. The moving averages work element by element and add up in a fixed order.

N vectors, V codes, D dimensions. NumPy arrays give NumPy arrays, tensors give tensors on their device, without
gradients. What this does not do: hold state, or move codes that no vector uses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import inputs
from multitok.codebook.inputs import is_tensor
from multitok.codebook.segment_sums import SMALLEST_EXPONENT, segment_sums, sum_exponent
from multitok.errors import CodeRangeError, InputError, MultitokError, ShapeError, SpecError

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

    Floats = NDArray[np.floating[Any]]
    Integers = NDArray[np.integer[Any]]
    Group = ProcessGroup | bool | None

CODE_DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@overload
def code_sums(
    vectors: Floats, codes: Integers, codebook_size: int, *, exponent: int | None = None, group: Group = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
@overload
def code_sums(
    vectors: torch.Tensor, codes: torch.Tensor, codebook_size: int, *, exponent: int | None = None, group: Group = None
) -> tuple[torch.Tensor, torch.Tensor]: ...
def code_sums(
    vectors: Any, codes: Any, codebook_size: int, *, exponent: int | None = None, group: Group = None
) -> tuple[Any, Any]:
    """How many vectors each code has, and their sum: what `fixed_code_sums` gives, read as float64.

    `torch.compile` keeps this whole, unlike `fixed_code_sums`; ranks that share a group have to compile alike.

    Error of the sum of n vectors, where the N vectors of all ranks have values of magnitude at most M: n N M 2^-61
    from the fixed point (so for the mean of a code among a million vectors 2^-41 M), and 2^-53 of the sum itself.

    Args:
        vectors: [..., D] of any float dtype, finite.
        codes: [...] integers in [0, codebook_size), one a vector.
        codebook_size: V.
        exponent: A value enters as the integer nearest to value * 2^exponent; None takes a fine one that all
            vectors allow.
        group: Sum over the ranks of this process group, or with True over all ranks; all have to call. Each rank may
            have another number of vectors, also none.

    Returns:
        counts [V] int64, sums [V, D] float64; the same on every rank.

    Raises:
        ShapeError: Shapes or dtypes do not fit.
        CodeRangeError: A code lies outside the codebook.
        InputError: A value is NaN or infinite (the message names its row), or another rank refused its vectors.
        SpecError: With this exponent the sums may overflow; or `group` is True and there is no process group.
    """
    if is_tensor(vectors) and inputs.is_compiling():
        from multitok.quantize import torch_ops

        name = _process_group(group).group_name if group else ""
        sums, counts = torch_ops.code_sums(vectors.detach(), codes, codebook_size, exponent, name)
        return counts, sums
    counts, sums, used = fixed_code_sums(vectors, codes, codebook_size, exponent=exponent, group=group)
    return counts, _float64(sums) * 2.0**-used  # rounds once, in the conversion


@overload
def fixed_code_sums(
    vectors: Floats, codes: Integers, codebook_size: int, *, exponent: int | None = None, group: Group = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]: ...
@overload
def fixed_code_sums(
    vectors: torch.Tensor, codes: torch.Tensor, codebook_size: int, *, exponent: int | None = None, group: Group = None
) -> tuple[torch.Tensor, torch.Tensor, int]: ...
def fixed_code_sums(
    vectors: Any, codes: Any, codebook_size: int, *, exponent: int | None = None, group: Group = None
) -> tuple[Any, Any, int]:
    """`code_sums` in integers, for data that comes in batches: sums of one exponent add up exactly.

    Take the exponent from `sum_exponent` with the largest magnitude and the number of all vectors to come.

    Args:
        vectors: As for `code_sums`.
        codes: As for `code_sums`.
        codebook_size: V.
        exponent: As for `code_sums`.
        group: As for `code_sums`.

    Returns:
        counts [V] int64, sums [V, D] int64 in units of 2^-exponent, the exponent.

    Raises:
        MultitokError: As for `code_sums`.
    """
    largest, count, refused = 0.0, 0, None
    try:
        vectors, codes = _rows(vectors, codes)
        largest, count = _largest(vectors, codes, codebook_size), len(vectors)
    except MultitokError as error:
        if not group:
            raise
        refused = error  # raised once the other ranks know, which would wait for this one for ever
    ranks = _process_group(group) if group else None
    if ranks is not None:
        largest, count = _over_ranks(largest, count, refused, vectors, ranks)
    used = _exponent(exponent, largest, count)
    counts, sums = segment_sums(vectors, codes, codebook_size, used)
    if ranks is not None:
        _add_over_ranks(counts, ranks)
        _add_over_ranks(sums, ranks)
    return counts, sums, used


@overload
def ema_update(
    counts_ema: NDArray[np.float64],
    sums_ema: NDArray[np.float64],
    counts: NDArray[np.int64],
    sums: NDArray[np.float64],
    decay: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def ema_update(
    counts_ema: torch.Tensor, sums_ema: torch.Tensor, counts: torch.Tensor, sums: torch.Tensor, decay: float
) -> tuple[torch.Tensor, torch.Tensor]: ...
def ema_update(counts_ema: Any, sums_ema: Any, counts: Any, sums: Any, decay: float) -> tuple[Any, Any]:
    """Moving averages of the counts and sums, one step on: old * decay + new * (1 - decay), nothing in place.

    Args:
        counts_ema: [V] float64, the average so far.
        sums_ema: [V, D] float64, the average so far.
        counts: [V] of this step, see `code_sums`.
        sums: [V, D] of this step.
        decay: Weight of the past, in [0, 1]; 0.99 is common.

    Returns:
        counts_ema [V], sums_ema [V, D], float64.

    Raises:
        SpecError: `decay` is outside [0, 1].

    Source:
        van den Oord et al. 2017, "Neural Discrete Representation Learning", appendix A.1, eq. 6 and 7.
    """
    if not 0 <= decay <= 1:
        raise SpecError(f"decay={decay}: give a weight from 0 to 1")
    return counts_ema * decay + _float64(counts) * (1 - decay), sums_ema * decay + sums * (1 - decay)


@overload
def ema_codebook(
    counts_ema: NDArray[np.float64], sums_ema: NDArray[np.float64], *, epsilon: float = 1e-5
) -> NDArray[np.float64]: ...
@overload
def ema_codebook(counts_ema: torch.Tensor, sums_ema: torch.Tensor, *, epsilon: float = 1e-5) -> torch.Tensor: ...
def ema_codebook(counts_ema: Any, sums_ema: Any, *, epsilon: float = 1e-5) -> Any:
    """Code vectors from moving averages: sums over counts, the counts smoothed so that none is 0.

    Laplace smoothing of the counts n_i, which keeps their total n: (n_i + epsilon) * n / (n + V epsilon). It draws a
    code that no vector uses any more towards 0.

    Args:
        counts_ema: [V] float64, not all 0.
        sums_ema: [V, D] float64.
        epsilon: Added to each count, > 0.

    Returns:
        [V, D] float64.

    Source:
        van den Oord et al. 2017, appendix A.1, eq. 8; smoothing as in the code of Razavi et al. 2019, "Generating
        Diverse High-Fidelity Images with VQ-VAE-2".
    """
    total = _ordered_sum(counts_ema)
    smoothed = (counts_ema + epsilon) * (total / (total + len(counts_ema) * epsilon))
    return sums_ema / smoothed[:, None]


def _float64(array: Any) -> Any:
    return array.double() if is_tensor(array) else array.astype(np.float64)


def _rows(vectors: Any, codes: Any) -> tuple[Any, Any]:
    """Both with one leading axis and without gradients; all is checked but the values."""
    inputs.check("vectors", vectors, "[..., D]")
    if is_tensor(vectors) != is_tensor(codes) or not (is_tensor(codes) or isinstance(codes, np.ndarray)):
        raise ShapeError(
            f"vectors are {type(vectors).__name__}, codes are {type(codes).__name__}: give two arrays or two tensors"
        )
    if inputs.device_name(vectors) != inputs.device_name(codes):
        raise ShapeError(f"vectors are on {vectors.device}, codes are on {codes.device}: move one to the other")
    if vectors.shape[-1] == 0:
        raise ShapeError(f"vectors are of shape {list(vectors.shape)}: give at least one dimension")
    if str(codes.dtype).removeprefix("torch.") not in CODE_DTYPES or codes.shape != vectors.shape[:-1]:
        raise ShapeError(
            f"codes are {codes.dtype} {list(codes.shape)}: give an integer for each vector, {list(vectors.shape[:-1])}"
        )
    codes = inputs.detached(codes).reshape(-1)
    return inputs.detached(vectors).reshape(-1, vectors.shape[-1]), codes.long() if is_tensor(codes) else codes


def _largest(vectors: Any, codes: Any, codebook_size: int) -> float:
    """Largest magnitude in `vectors`, finite; and every code lies in the codebook."""
    if codebook_size < 1:
        raise SpecError(f"codebook_size={codebook_size}: give at least 1")
    if len(vectors) == 0:
        return 0.0
    if is_tensor(vectors):
        import torch

        ends = (*torch.aminmax(vectors), *torch.aminmax(codes))
        low, high, first, last = torch.stack([end.double() for end in ends]).tolist()  # one wait for a GPU
    else:
        low, high, first, last = float(vectors.min()), float(vectors.max()), int(codes.min()), int(codes.max())
    if first < 0 or last >= codebook_size:
        raise CodeRangeError(f"codes reach from {first:.0f} to {last:.0f}: allowed are 0 to {codebook_size - 1}")
    if not (math.isfinite(low) and math.isfinite(high)):
        row = _first_row_not_finite(vectors)
        raise InputError(
            f"vectors hold a NaN or an infinity in row {row} of {len(vectors)}: statistics take finite values only; "
            "it usually comes from the model or the data in front"
        )
    return float(max(-low, high))


def _first_row_not_finite(vectors: Any) -> int:
    bad = ~vectors.isfinite() if is_tensor(vectors) else ~np.isfinite(vectors)
    return int(bad.any(1).nonzero()[0][0])


def _exponent(given: int | None, largest: float, count: int) -> int:
    finest = sum_exponent(largest, count)
    if given is None:
        return finest
    if not SMALLEST_EXPONENT <= given <= finest:
        raise SpecError(
            f"exponent={given}: {count} vectors with values up to {largest:g} allow {SMALLEST_EXPONENT} to {finest}; "
            "with a larger one a sum may overflow"
        )
    return given


def _process_group(group: ProcessGroup | bool) -> ProcessGroup:
    import torch.distributed as dist

    if not isinstance(group, bool):
        return group
    world = dist.group.WORLD if dist.is_available() else None
    if world is None:
        raise SpecError("group=True, but there is no process group: call torch.distributed.init_process_group first")
    return world


def _over_ranks(
    largest: float, count: int, refused: MultitokError | None, vectors: Any, group: ProcessGroup
) -> tuple[float, int]:
    """The largest magnitude and the number of vectors of all ranks; raises on all of them where one refused."""
    import torch
    import torch.distributed as dist

    device = vectors.device if is_tensor(vectors) else "cpu"
    own = torch.tensor([largest, count, refused is not None], dtype=torch.float64, device=device)
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, own, group)
    ranks = torch.stack(gathered).tolist()
    if refused is not None:
        raise refused
    for rank, (_, _, bad) in enumerate(ranks):
        if bad:
            raise InputError(f"rank {rank} of the group refused its vectors or codes: its own error says why")
    return max(each[0] for each in ranks), sum(int(each[1]) for each in ranks)


def _add_over_ranks(integers: Any, group: ProcessGroup) -> None:
    """In place: the sum over all ranks."""
    import torch
    import torch.distributed as dist

    dist.all_reduce(integers if is_tensor(integers) else torch.from_numpy(integers), group=group)


def _ordered_sum(values: Any) -> Any:
    """Sum of [V] in the order of a binary tree, which no library, device or number of threads changes."""
    values = values.clone() if is_tensor(values) else values.copy()
    count = len(values)
    while count > 1:
        half = (count + 1) // 2
        values[: count - half] += values[half:count]
        count = half
    return values[0]
