"""Trains quantisers on two gloo ranks, for `test_quantizer_ranks`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which the first call of an operator loads: here once for all ranks
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from multitok.quantize import BSQ, IBQ, LFQ, CodeStatistics, Quantizer, ResidualVQ, VectorQuantizer
from tests.quantize.kinds import draw

WORLD, STEPS, BATCH, DIM = 2, 4, 60, 6

# Quantisers whose statistics have to be the same bits as on one process, started, moved and revived.
EXACT: dict[str, Callable[[], Quantizer]] = {
    "ema": lambda: VectorQuantizer(DIM, 24, decay=0.5, dead_below=0.6),
    "cosine": lambda: VectorQuantizer(DIM, 24, metric="cosine", decay=0.5, dead_below=0.6),
    "gradient": lambda: VectorQuantizer(DIM, 24, learning="gradient", decay=0.5, dead_below=0.6),
    "random": lambda: VectorQuantizer(DIM, 100, start="random", decay=0.5, dead_below=0.9),
    "residual": lambda: ResidualVQ([VectorQuantizer(DIM, 16, dead_below=0.5) for _ in range(2)], dropout=0.5),
}
# Quantisers whose entropy loss takes the mean soft codes of all ranks.
SOFT: dict[str, Callable[[], Quantizer]] = {
    "lfq": lambda: LFQ(DIM, inverse_temperature=2.0),
    "bsq": lambda: BSQ(DIM, inverse_temperature=2.0),
    "ibq": lambda: IBQ(DIM, 24, entropy_temperature=0.5),
}
# How many of the vectors of each step the first rank has; at one step it has none.
CUTS = [23, 0, 45, 30]


def batch(step: int) -> torch.Tensor:
    return draw(step, BATCH, DIM) * 3 ** draw(step + 50, BATCH, 1)


def train(build: Callable[[], Quantizer], rank: int | None) -> str:
    """What a quantiser knows after some steps, as a hash; `rank` None has the whole batches."""
    torch.manual_seed(0)
    quantizer = build()
    for step in range(STEPS):
        parts = {None: batch(step), 0: batch(step)[: CUTS[step]], 1: batch(step)[CUTS[step] :]}
        quantizer(parts[rank])
    return fingerprint(quantizer)


def fingerprint(module: nn.Module) -> str:
    return hashlib.sha256(b"".join(bytes(t.numpy().tobytes()) for t in module.state_dict().values())).hexdigest()


def entropy(build: Callable[[], Quantizer], rank: int | None) -> tuple[float, list[float]]:
    """The entropy loss of the same batch in equal parts, and its gradients behind DDP."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(DIM, DIM), build())
    if rank is not None:
        model = DistributedDataParallel(model)
    half = BATCH // 2
    parts = {None: draw(9, BATCH, DIM), 0: draw(9, BATCH, DIM)[:half], 1: draw(9, BATCH, DIM)[half:]}
    loss = model(parts[rank]).entropy_loss
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients).tolist()


def used(rank: int | None) -> list[float]:
    """Usage and perplexity of codes counted in parts."""
    statistics = CodeStatistics((10,))
    for step in range(STEPS):
        codes = (batch(step)[:, :1].abs() % 10).long()
        statistics.update({None: codes, 0: codes[: CUTS[step]], 1: codes[CUTS[step] :]}[rank])
    return [*statistics.usage(), *statistics.perplexity()]


def compiled(rank: int) -> list[str]:
    """A model with EMA codebooks behind DDP, compiled on all ranks: its state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(DIM, DIM), EXACT["ema"]())
    parallel = DistributedDataParallel(torch.compile(model, backend="aot_eager", fullgraph=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        found = parallel(batch(step)[rank::WORLD])
        optimizer.zero_grad()
        (found.quantized.square().mean() + found.commitment_loss).backward()
        optimizer.step()
    return [fingerprint(model[1])]


def run(folder: Path, *, with_compiler: bool) -> list[dict[str, Any]]:
    """What each rank found, by name."""
    torch.multiprocessing.set_forkserver_preload([__name__])
    torch.multiprocessing.start_processes(_rank, (folder, with_compiler), nprocs=WORLD, start_method="forkserver")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


def _rank(rank: int, folder: Path, with_compiler: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    found: dict[str, Any] = {}
    if with_compiler:
        found["compiled"] = compiled(rank)
    else:
        found |= {name: train(build, rank) for name, build in EXACT.items()}
        found |= {name: entropy(build, rank) for name, build in SOFT.items()}
        found["used"] = used(rank)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
