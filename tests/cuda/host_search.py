"""Searches by the kernels on the CPU, compared with the definition."""

from __future__ import annotations

import numpy as np
import torch

from multitok.codebook.cuda_backend import CudaCodebook
from multitok.codebook.cuda_launch import MMA_TILES, Kernels
from multitok.codebook.cuda_plan import Pass, Plan, f32_pass
from tests.codebook import reference
from tests.cuda.host_device import HostDevice

ROWS_AT_ONCE = 2**20
# "mma-256x128": vectors and codes of a block; "-ring" where the vectors come through shared memory with the codes.
TILE_NAMES = {
    f"mma-{64 * rows}x{64 * codes}{'' if resident else '-ring'}": (rows, codes, resident)
    for rows, codes, resident in MMA_TILES
}


def plan(
    path: str, k: int = 1, *, capacity: int | None = None, parts: int = 1, rows_at_once: int = ROWS_AT_ONCE
) -> Plan:
    """A plan by name: "small", "f32", or one of `TILE_NAMES` with a second look in float32; "-alone": without one."""
    if path in ("small", "f32"):
        first = f32_pass(k, parts=parts)
        return Plan(path == "small", first._replace(capacity=capacity or first.capacity), None, rows_at_once)
    second = None if path.endswith("-alone") else f32_pass(k, parts=1)
    tile = TILE_NAMES[path.removesuffix("-alone")]
    return Plan(False, Pass(tile, capacity or (8 if k == 1 else k + 16), parts), second, rows_at_once)


def check_search(
    device: HostDevice,
    vectors: torch.Tensor,
    codes: torch.Tensor,
    metric: str = "l2",
    k: int = 1,
    by: Plan | None = None,
) -> None:
    """Codes and distances have to be those of the definition, bit for bit, whether distances are asked for or not."""
    book = CudaCodebook(codes, metric, kernels=Kernels(device))
    wanted_codes, wanted_ranks = expected(vectors, codes, metric, k)
    for distances in (False, True):
        found, ranks = book.search(vectors, k, distances=distances, plan=by)
        wrong = (found.numpy() != wanted_codes).any(1).nonzero()[0]
        assert len(wrong) == 0, (
            f"{len(wrong)} of {len(vectors)} rows are wrong, the first is {wrong[0]}: {found[wrong[0]].tolist()}, "
            f"expected {wanted_codes[wrong[0]].tolist()}"
        )
        assert (ranks is None) == (not distances)
        if ranks is not None:
            assert np.array_equal(ranks.numpy(), wanted_ranks), "distances differ"


def expected(vectors: torch.Tensor, codes: torch.Tensor, metric: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes [N, k] and the distances by which they are ranked [N, k], by the definition."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        ranks = reference.distances_to_all(reference.as_float64(vectors), reference.as_float64(codes), metric)
    ranks[np.isnan(ranks)] = np.inf
    order = np.argsort(ranks, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(ranks, order, axis=1)
