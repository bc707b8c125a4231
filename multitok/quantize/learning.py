"""How codebooks learn from statistics, as torch operators: k-means start, moving averages, revival of dead codes.

    multitok::start_codebook    once: k-means on the first batch
    multitok::learn_codes       each step: averages of counts and sums, the codebook they give, dead codes replaced
    multitok::sum_over_ranks    sums over all ranks

All of them do the same to the bit on every rank of a process group, and as one process would that had the batches of
all ranks one after the other: sums are exact (`code_sums`), and vectors are drawn by their number in the whole batch.
`torch.compile` keeps them whole; ranks have to be all compiled or all not. N vectors, V codes, D dimensions.

A code that is revived gets a vector of the batch, and its averages become those of a code that had that vector before:
left as they were, the next step would draw it back to where it died. This module imports torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from multitok.codebook import nearest_code
from multitok.codebook.torch_ops import WAITS
from multitok.quantize.gradients import unit_rows
from multitok.quantize.statistics import code_sums, ema_codebook, ema_update

# Domains of the random numbers, so that the start and the steps draw apart.
START, STEP = 0, 1


@torch.library.custom_op(
    "multitok::start_codebook", mutates_args=("codebook", "counts_ema", "sums_ema", "started"), **WAITS
)
def start_codebook(
    vectors: torch.Tensor,
    codebook: torch.Tensor,
    counts_ema: torch.Tensor,
    sums_ema: torch.Tensor,
    started: torch.Tensor,
    metric: str,
    passes: int,
    seed: int,
    sync: bool,
) -> None:
    """Set the codebook by k-means on these vectors, where it has not been; with no vectors, leave it for the next time.

    Drawn from the vectors, then `passes` of Lloyd's; codes that get no vector are drawn anew after each pass.

    Args:
        vectors: [..., D] float32; for "cosine" of length 1.
        codebook: [V, D] float32, written.
        counts_ema: [V] float64, written: counts of the last pass, scaled to a mean of 1.
        sums_ema: [V, D] float64 likewise; [0, D] where the codebook does not learn by averages.
        started: bool, 0-D, written.
        metric: "l2", "cosine" or "dot"; k-means is by angle for "cosine", else by squared distance.
        passes: How many.
        seed: Of the draws.
        sync: Over all ranks.
    """
    if bool(started):
        return
    rows = vectors.detach().reshape(-1, vectors.shape[-1])
    size, ranks = len(codebook), _ranks(sync)
    starts = _first_rows(len(rows), ranks, rows.device)
    total = starts[-1]
    if total == 0:
        return
    rng = np.random.default_rng([seed, START])
    values = _draw(rows, rng.choice(total, size, replace=total < size), starts, ranks)
    counts, sums = codebook.new_zeros(size, dtype=torch.int64), codebook.new_zeros(codebook.shape, dtype=torch.float64)
    for _ in range(max(passes, 1)):
        codes = nearest_code(rows, values, metric="cosine" if metric == "cosine" else "l2")
        counts, sums = code_sums(rows, codes, size, group=ranks)
        means = (sums / counts.clamp(min=1)[:, None]).float()
        values = torch.where(counts[:, None] > 0, unit_rows(means) if metric == "cosine" else means, values)
        empty = (counts == 0).nonzero()[:, 0]
        drawn = _draw(rows, rng.choice(total, min(len(empty), total), replace=False), starts, ranks)
        values[empty[: len(drawn)]] = drawn
    # As if each code had had one vector a step: the averages soon follow the batches, however large this one is.
    share = counts.double() * (size / total)
    never = counts == 0
    codebook.copy_(values)
    counts_ema.copy_(torch.where(never, 1.0, share))
    if len(sums_ema):
        sums_ema.copy_(torch.where(never[:, None], values.double(), sums * (size / total)))
    started.fill_(True)


@torch.library.custom_op("multitok::learn_codes", mutates_args=("codebook", "counts_ema", "sums_ema", "steps"), **WAITS)
def learn_codes(
    vectors: torch.Tensor,
    codes: torch.Tensor,
    codebook: torch.Tensor,
    counts_ema: torch.Tensor,
    sums_ema: torch.Tensor,
    steps: torch.Tensor,
    metric: str,
    decay: float,
    epsilon: float,
    dead_below: float,
    seed: int,
    sync: bool,
) -> None:
    """One step of a codebook's statistics.

    Args:
        vectors: [..., D] float32; for "cosine" of length 1.
        codes: [...] int64.
        codebook: [V, D] float32, written.
        counts_ema: [V] float64, written.
        sums_ema: [V, D] float64, written; [0, D] where only dead codes shall change the codebook.
        steps: int64, 0-D, counted up: part of the seed.
        metric: As for `start_codebook`.
        decay: As for `ema_update`.
        epsilon: As for `ema_codebook`.
        dead_below: A code is dead when its average count is below this share of the mean over all codes.
        seed: Of the draws.
        sync: Over all ranks.
    """
    rows, codes = vectors.detach().reshape(-1, vectors.shape[-1]), codes.reshape(-1)
    size, ranks = len(codebook), _ranks(sync)
    if len(sums_ema):
        counts, sums = code_sums(rows, codes, size, group=ranks)
        if int(counts.sum()) == 0:
            return  # no rank had a vector: nothing to learn from, and no reason to forget
        averages = ema_update(counts_ema, sums_ema, counts, sums, decay)
        counts_ema.copy_(averages[0])
        sums_ema.copy_(averages[1])
        moved = ema_codebook(counts_ema, sums_ema, epsilon=epsilon).float()
        codebook.copy_(unit_rows(moved) if metric == "cosine" else moved)
    else:
        counts = torch.bincount(codes, minlength=size)
        if ranks is not None:
            dist.all_reduce(counts, group=ranks)
        counts_ema.copy_(counts_ema * decay + counts.double() * (1 - decay))
    if dead_below > 0:
        mean = float(counts_ema.mean())
        dead = (counts_ema < dead_below * mean).nonzero()[:, 0]
        if len(dead):
            starts = _first_rows(len(rows), ranks, rows.device)
            rng = np.random.default_rng([seed, STEP, int(steps)])
            revived = dead[: starts[-1]]
            drawn = _draw(rows, rng.choice(starts[-1], len(revived), replace=False), starts, ranks)
            codebook[revived] = drawn
            counts_ema[revived] = mean
            if len(sums_ema):
                sums_ema[revived] = drawn.double() * mean
    steps += 1


@torch.library.custom_op("multitok::sum_over_ranks", mutates_args=(), **WAITS)
def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks, `values` itself where there is no process group; without gradients.

    Args:
        values: Any shape, the same on all ranks.
    """
    total = values.detach().clone()
    ranks = _ranks(True)
    if ranks is not None:
        dist.all_reduce(total, group=ranks)
    return total


def mean_over_ranks(total: torch.Tensor, count: int) -> torch.Tensor:
    """The mean over the vectors of all ranks, from this rank's sum over `count` of them.

    Its gradient reaches the own vectors only, and so that it is that of one batch of all vectors once
    DistributedDataParallel has taken the mean of the ranks' gradients.

    Args:
        total: The sum, of any shape.
        count: How many vectors it is of.
    """
    sums: torch.Tensor = sum_over_ranks(torch.cat([total.detach().reshape(-1), total.new_tensor([float(count), 1.0])]))
    everyone, vectors, ranks = sums[:-2].reshape(total.shape), sums[-2].clamp(min=1), sums[-1]
    own = total * (ranks / vectors)
    return own + (everyone / vectors - own).detach()


@start_codebook.register_fake
def _(*_: Any) -> None:
    return None


@learn_codes.register_fake
def _(*_: Any) -> None:
    return None


@sum_over_ranks.register_fake
def _(values: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(values)


def _ranks(sync: bool) -> Any:
    """The group of all ranks, None where there is none or only one."""
    if not sync or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return dist.group.WORLD


def _first_rows(count: int, ranks: Any, device: torch.device) -> list[int]:
    """Number of each rank's first row in the whole batch, and at the end the number of all rows."""
    counts = [count]
    if ranks is not None:
        gathered = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(ranks))]
        dist.all_gather(gathered, torch.tensor([count], device=device), group=ranks)
        counts = [int(each) for each in gathered]
    starts = [0]
    for each in counts:
        starts.append(starts[-1] + each)
    return starts


def _draw(rows: torch.Tensor, numbers: Any, starts: list[int], ranks: Any) -> torch.Tensor:
    """Rows [n, D] of the whole batch by their numbers [n], on all ranks."""
    wanted = torch.from_numpy(np.asarray(numbers, np.int64)).to(rows.device)
    if ranks is None:
        return rows.index_select(0, wanted) + 0.0  # no -0, as below
    first = starts[dist.get_rank(ranks)]
    mine = (wanted >= first) & (wanted < first + len(rows))
    drawn = rows.new_zeros(len(wanted), rows.shape[1])
    drawn[mine] = rows.index_select(0, wanted[mine] - first)
    dist.all_reduce(drawn, group=ranks)  # the other ranks add 0
    return drawn
