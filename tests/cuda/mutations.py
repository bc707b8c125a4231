"""Mistakes that the tests of the kernels have to find: one changed line each, and the searches that show it.

A place in the source is named by its text, which has to occur exactly once in its file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from multitok.codebook.cuda_backend import nearest_residual, segment_sums
from multitok.codebook.cuda_launch import Kernels
from tests.codebook import reference
from tests.cuda import data
from tests.cuda.host_device import HostDevice
from tests.cuda.host_search import check_search, plan

LARGE_SHARED = 227 * 1024
SEEDS = range(1, 5)


Check = Callable[[], None]


class Mutation(NamedTuple):
    """`old` becomes `new` in `file`; `shown_by` fails then."""

    name: str
    shown_by: Check
    file: str
    old: str
    new: str


def _search(
    path: str, kind: str, *, count: int = 40, size: int = 300, dim: int = 20, metric: str = "l2", k: int = 1,
    capacity: int | None = None, double: bool = False,
) -> Check:  # fmt: skip
    def run() -> None:
        vectors, codes = data.make(kind, count, size, dim)
        if double:
            vectors, codes = vectors.double() / 3, codes.double() / 3
        for seed in SEEDS:
            device = HostDevice(seed=seed, shared_bytes=LARGE_SHARED)
            check_search(device, vectors, codes, metric, k, by=plan(path, k, capacity=capacity))

    return run


def _far_rows(path: str, dim: int) -> Check:
    def run() -> None:
        vectors, codes = data.make("gaussian", 5, 30, dim)
        with data.far_apart(vectors) as rows:
            check_search(HostDevice(), rows, codes, by=plan(path))

    return run


def _sums() -> None:
    vectors, _ = data.make("gaussian", 200, 1, 3)
    codes = torch.arange(200) % 4
    expected = torch.stack([(vectors[codes == code].double() * 2**20).round().sum(0) for code in range(4)]).long()
    for seed in SEEDS:
        counts, sums = segment_sums(vectors, codes, 4, 20, kernels=Kernels(HostDevice(seed=seed)))
        assert counts.tolist() == [50] * 4
        assert torch.equal(sums, expected)


def _levels() -> None:
    vectors, first = data.make("gaussian", 100, 20, 4)
    second = data.make("gaussian", 1, 150, 4, seed=1)[1]
    expected = torch.from_numpy(reference.search(vectors, first).codes[:, 0])
    left = vectors - first[expected]
    both = torch.stack([expected, torch.from_numpy(reference.search(left, second).codes[:, 0])], dim=1)
    for seed in SEEDS:
        assert torch.equal(nearest_residual(vectors, [first, second], kernels=Kernels(HostDevice(seed=seed))), both)


F32 = _search("f32", "gaussian")
F32_FULL = _search("f32", "neighbours", count=20, capacity=1)
F32_CLOSE = _search("f32", "neighbours", metric="dot")
F32_TOP = _search("f32", "neighbours", count=20, k=5)
DOT = _search("f32", "gaussian", metric="dot", double=True)
MMA = _search("mma-128x128", "gaussian", dim=40)
MMA_CLOSE = _search("mma-128x128", "neighbours", dim=40)
MMA_RING = _search("mma-128x128-ring", "gaussian", dim=70)
MMA_FULL = _search("mma-128x128", "clustered", count=70, capacity=3)
SMALL = _search("small", "gaussian", count=100, dim=4)
SMALL_CLOSE = _search("small", "neighbours", count=100, dim=4)

MUTATIONS = [
    # Barriers and warp barriers.
    Mutation(
        "f32: no barrier after the first slice", F32, "nearest_f32.cu",
        "first.store(buffers, 0);\n    __syncthreads();", "first.store(buffers, 0);",
    ),
    Mutation(
        "f32: no barrier after a slice", F32, "nearest_f32.cu",
        "next.store(buffers, which);\n            __syncthreads();", "next.store(buffers, which);",
    ),
    Mutation(
        "f32: a barrier that half of the block skips", F32, "nearest_f32.cu",
        "which);\n            __syncthreads();", "which);\n            if (threadIdx.x < 128) __syncthreads();",
    ),
    Mutation(
        "mma: no barrier between slices", MMA, "nearest_mma.cu",
        "copy_async_wait<kStages - 2>();\n    __syncthreads();", "copy_async_wait<kStages - 2>();",
    ),
    Mutation(
        "mma: scores read before all lanes wrote them", MMA, "nearest_mma.cu",
        "}\n        __syncwarp();\n        const int row", "}\n        const int row",
    ),
    Mutation(
        "candidates: entries overwritten before all lanes read them", MMA_CLOSE, "candidates.cuh",
        "__syncwarp();  // everything is read", "// everything is read",
    ),
    Mutation(
        "candidates: the old floor read after it rose", _search("mma-128x128", "neighbours", k=3), "candidates.cuh",
        "__syncwarp();  // every lane has read", "// every lane has read",
    ),
    Mutation(
        "candidates: lists read before they are complete", MMA_FULL, "candidates.cuh",
        "count += __popc(votes);\n        __syncwarp();", "count += __popc(votes);",
    ),
    Mutation(
        "small: tile overwritten while others read it", SMALL, "nearest_small.cu",
        "tile++) {\n            __syncthreads();", "tile++) {",
    ),
    Mutation(
        "small: tile read before it is there", SMALL, "nearest_small.cu",
        "__syncthreads();\n            for (int first = 0; first < kTile", "for (int first = 0; first < kTile",
    ),
    # cp.async and stages.
    Mutation(
        "mma: no wait for the copies", MMA, "nearest_mma.cu",
        "copy_async_wait<kStages - 2>();", "",
    ),
    Mutation(
        "mma: waits one group too few", MMA, "nearest_mma.cu",
        "copy_async_wait<kStages - 2>", "copy_async_wait<kStages - 1>",
    ),
    Mutation(
        "mma: groups not closed", MMA_RING, "nearest_mma.cu",
        "        copy_async_commit();\n    }", "    }",
    ),
    Mutation(
        "mma: reads the wrong stage", MMA, "nearest_mma.cu",
        "    int stage = 0;\n    for (int tile", "    int stage = 1;\n    for (int tile",
    ),
    Mutation(
        "mma: fetches into a stage in use", MMA_RING, "nearest_mma.cu",
        "kStages ? 0 : stage + 1;\n        }\n        copy", "kStages - 1 ? 0 : stage + 1;\n        }\n        copy",
    ),
    Mutation(
        "mma: half norms fetched for the first tile only", MMA, "nearest_mma.cu",
        "half_norms += Shape::kCodes;", "",
    ),
    Mutation(
        "mma: the next tile starts amid the vectors", MMA_RING, "nearest_mma.cu",
        "vectors -= padded_dim;", "",
    ),
    # Fragments.
    Mutation(
        "mma: registers of the codes swapped", MMA, "nearest_mma.cu",
        "even[2] = {both[0], both[1]}", "even[2] = {both[1], both[0]}",
    ),
    Mutation(
        "mma: even codes for odd ones", MMA, "nearest_mma.cu",
        "odd[2] = {both[2], both[3]}", "odd[2] = {both[0], both[3]}",
    ),
    Mutation(
        "mma: tiles of the vectors swapped", MMA, "nearest_mma.cu",
        "(lane % 16) * vector_pitch + lane / 16 * 8", "(lane / 16 * 8 + lane % 8) * vector_pitch + lane / 8 % 2 * 8",
    ),
    Mutation(
        "mma: rows of the sums swapped", MMA, "nearest_mma.cu",
        "const int row = 8 * chosen + group;", "const int row = 8 * (chosen ^ 1) + group;",
    ),
    # Bounds, ties, decisions.
    Mutation(
        "prepare: no tolerance", MMA_CLOSE, "prepare.cu",
        "double tolerance = 2 * proposed", "double tolerance = 0 * proposed",
    ),
    Mutation(
        "decide: ties to the highest index", _search("f32", "duplicated"), "decide.cu",
        "code < other_code", "code > other_code",
    ),
    Mutation(
        "definition: a square fused into the sum", F32, "definition.cuh",
        "__dadd_rn(sum, __dmul_rn(difference, difference))", "sum + difference * difference",
    ),
    Mutation(
        "definition: a product fused into the sum", DOT, "definition.cuh",
        "__dadd_rn(sum, __dmul_rn(static_cast<double>(x[d]), static_cast<double>(c[d])))",
        "sum + static_cast<double>(x[d]) * static_cast<double>(c[d])",
    ),
    Mutation(
        "candidates: floor above the best score", F32, "candidates.cuh",
        "floor = fmaxf(floor, best - tolerance);", "floor = fmaxf(floor, best + tolerance);",
    ),
    Mutation(
        "candidates: a list one too long", MMA_FULL, "candidates.cuh",
        "const bool full = votes != 0 && count + __popc(votes) >",
        "const bool full = votes != 0 && count + __popc(votes) > 1 +",
    ),
    Mutation(
        "candidates: an overflowed list starts afresh", MMA_FULL, "candidates.cuh",
        "full = votes != 0 && count", "full = count",
    ),
    Mutation(
        "candidates: one entry too many is kept", MMA_FULL, "candidates.cuh",
        "keep = full && entry < count", "keep = full && entry <= count",
    ),
    Mutation(
        "candidates: the k-th largest score miscounted", _search("f32", "tight", count=20, k=5), "candidates.cuh",
        "if (before == lists.nearest - 1)", "if (before == lists.nearest - 2)",
    ),
    Mutation(
        "decide: a lane behind the last code", F32_FULL, "decide.cu",
        "is_code = first + lane < size", "is_code = first + lane <= size",
    ),
    Mutation(
        "decide: a shuffle by some lanes only", F32_TOP, "decide.cu",
        "previous = __shfl_up_sync", "previous = lane < place ? 0 : __shfl_up_sync",
    ),
    Mutation(
        "decide: float32 distances taken for exact", F32_CLOSE, "decide.cu",
        "const float error = 1.02f", "const float error = 0.0f",
    ),
    Mutation(
        "small: the second-best group is forgotten", SMALL_CLOSE, "nearest_small.cu",
        "separate = sweeps[v].second < floor;", "separate = true;",
    ),
    Mutation(
        "small: one tile too few", SMALL, "nearest_small.cu",
        "tile < level.tiles;", "tile < level.tiles - 1;",
    ),
    Mutation(
        "small: ties to the highest index", _search("small", "duplicated", count=100, dim=4), "nearest_small.cu",
        "if (distance < smallest) {", "if (distance <= smallest) {",
    ),
    Mutation(
        "small: what is left over grows", _levels, "nearest_small.cu",
        "= __fsub_rn(x[v][d], value[d]);", "= x[v][d] + value[d];",
    ),
    # Tails, places, atomics.
    Mutation(
        "prepare: values behind the row", F32, "prepare.cu",
        "        if (d < dim) {", "        if (d <= dim) {",
    ),
    Mutation(
        "prepare: codes that are none look near", _search("f32", "gaussian", size=383), "prepare.cu",
        "half_norms[code] = 3e38f;", "half_norms[code] = -1;",
    ),
    Mutation(
        "prepare: int32 offsets of rows", _far_rows("f32", 7), "prepare.cu",
        "vectors + row * row_stride", "vectors + static_cast<int>(row) * static_cast<int>(row_stride)",
    ),
    Mutation(
        "decide: int32 offsets of rows", _far_rows("f32", 7), "decide.cu",
        "{vectors + row * row_stride", "{vectors + static_cast<int>(row) * static_cast<int>(row_stride)",
    ),
    Mutation(
        "small: uint32 offsets of rows", _far_rows("small", 4), "nearest_small.cu",
        "vectors[vector * row_stride + d]", "vectors[static_cast<unsigned>(vector * row_stride) + d]",
    ),
    Mutation(
        "decide: rows counted without atomics", MMA_FULL, "decide.cu",
        "next_rows[atomicAdd(next_count, 1)]", "next_rows[(*next_count)++]",
    ),
    Mutation(
        "segment sums without atomics", _sums, "segment_sums.cu",
        "atomicAdd(&sums[(copy * size + code) * dim + d], static_cast<unsigned long long>(rounded))",
        "sums[(copy * size + code) * dim + d] += static_cast<unsigned long long>(rounded)",
    ),
    Mutation(
        "candidates: lists overlap", MMA_FULL, "candidates.cuh",
        "(result.codes + lists * capacity)", "(result.codes + lists * capacity - 1)",
    ),
]  # fmt: skip
