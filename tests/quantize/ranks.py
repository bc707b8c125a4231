"""Runs `code_sums` on three gloo ranks, for `test_statistics`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # which the first call of an operator loads: here once for all ranks
import torch.distributed as dist
import torch.multiprocessing
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.quantize import code_sums, torch_ops

WORLD = 3
# Which rows each rank gives.
SPLITS = {
    "three ranks, tensors": [(0, 200), (200, 200), (200, 301)],
    "three ranks, arrays": [(0, 0), (0, 300), (300, 301)],
    "three ranks, operator": [(0, 100), (100, 250), (250, 250)],
    "two ranks": [(0, 17), (17, 150)],
}


def run(
    folder: Path, vectors: NDArray[np.float32], codes: NDArray[np.int32], codebook_size: int
) -> list[dict[str, Any]]:
    """What each rank found, by the names of `SPLITS`, and under "refused" the error where rank 1 gives infinities."""
    np.savez(folder / "input.npz", vectors=vectors, codes=codes)
    # A server process imports torch once and forks the ranks; this process may have threads and is not forked.
    torch.multiprocessing.set_forkserver_preload([__name__])
    torch.multiprocessing.start_processes(_rank, (folder, codebook_size), nprocs=WORLD, start_method="forkserver")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


def _rank(rank: int, folder: Path, codebook_size: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    given = np.load(folder / "input.npz")
    vectors, codes = given["vectors"], given["codes"]
    pair = dist.new_group([0, 1])
    found: dict[str, Any] = {}
    for name, splits in SPLITS.items():
        if rank >= len(splits):
            continue
        rows = slice(*splits[rank])
        group = True if len(splits) == WORLD else pair
        own = torch.from_numpy(vectors[rows]), torch.from_numpy(codes[rows])
        if "arrays" in name:
            counts, sums = code_sums(vectors[rows], codes[rows], codebook_size, group=group)
        elif "operator" in name:
            all_ranks = dist.group.WORLD.group_name
            sums, counts = (each.numpy() for each in torch_ops.code_sums(*own, codebook_size, None, all_ranks))
        else:
            counts, sums = (each.numpy() for each in code_sums(*own, codebook_size, group=group))
        found[name] = [counts.tobytes().hex(), sums.tobytes().hex()]
    try:
        code_sums(np.full((1, 2), np.inf if rank == 1 else 1.0), np.zeros(1, np.int32), 1, group=True)
    except InputError as error:
        found["refused"] = str(error)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
