"""Every kernel against the definition, on the CPU through the shim: all data, all paths, all schedules the same codes.

N vectors, V codes, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.codebook.cuda_backend import CudaCodebook, nearest_residual, segment_sums
from multitok.codebook.cuda_launch import Kernels
from multitok.codebook.native import NotFiniteError
from tests.codebook import reference
from tests.cuda import data
from tests.cuda.host_device import HostDevice
from tests.cuda.host_search import TILE_NAMES, check_search, plan

LARGE_SHARED = 227 * 1024  # of a block, on the cards that have the most
PATHS = ("f32", *TILE_NAMES)
ALL_SEEDS = range(6)


def device(seed: int = 0, **properties: Any) -> HostDevice:
    return HostDevice(seed=seed, **{"shared_bytes": LARGE_SHARED, **properties})


def that_fits(path: str, k: int, dim: int) -> int:
    """k, or less where lists for so many do not fit into shared memory."""
    return k if plan(path, k).first.shared_bytes(dim) <= LARGE_SHARED else min(k, 3)


@pytest.mark.parametrize("kind", data.KINDS)
@pytest.mark.parametrize("path", [*PATHS, "small"])
def test_codes_and_distances_are_those_of_the_definition(path: str, kind: str) -> None:
    seed = 1 + list(data.KINDS).index(kind)
    vectors, codes = data.make(kind, 70, 300, 3 if path == "small" else 20)
    check_search(device(seed), vectors, codes, by=plan(path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", ALL_SEEDS)
@pytest.mark.parametrize("kind", data.KINDS)
@pytest.mark.parametrize("path", PATHS)
def test_many_schedules(path: str, kind: str, seed: int) -> None:
    count, size, dim, k = [(257, 130, 33, 1), (130, 700, 64, 3), (300, 257, 100, 16)][seed % 3]
    metric = ("l2", "cosine", "dot", "l2", "dot", "l2")[seed]
    k = that_fits(path, k, dim)
    vectors, codes = data.make(kind, count, size, dim, seed)
    check_search(device(seed), vectors, codes, metric, k, by=plan(path, k, parts=1 + seed % 2))


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("path", ["f32", "mma-128x128"])
@pytest.mark.parametrize(("k", "kind"), [(1, "scattered"), (5, "duplicated"), (16, "integers")])
def test_metrics_and_top_k(path: str, metric: str, k: int, kind: str) -> None:
    vectors, codes = data.make(kind, 40, 150, 18, seed=k)
    check_search(device(seed=k), vectors, codes, metric, k, by=plan(path, k))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 140),
    size=st.integers(1, 150),
    dim=st.integers(1, 70),
    k=st.integers(1, 16),
    metric=st.sampled_from(["l2", "cosine", "dot"]),
    kind=st.sampled_from(sorted(data.KINDS)),
    path=st.sampled_from(PATHS),
    seed=st.integers(0, 1000),
)
def test_every_shape(count: int, size: int, dim: int, k: int, metric: str, kind: str, path: str, seed: int) -> None:
    k = that_fits(path, min(k, size), dim)
    vectors, codes = data.make(kind, count, size, dim, seed)
    check_search(device(seed), vectors, codes, metric, k, by=plan(path, k))


@pytest.mark.parametrize(
    ("count", "size", "dim", "metric", "k"),
    [(300, 40, 3, "l2", 1), (70, 300, 40, "l2", 1), (140, 260, 100, "cosine", 4), (5, 700, 20, "dot", 16)],
)
def test_plans_of_its_own_choice(count: int, size: int, dim: int, metric: str, k: int) -> None:
    vectors, codes = data.make("clustered", count, size, dim)
    for properties in (
        {"multiprocessors": 1},
        {"multiprocessors": 7, "shared_bytes": 99 * 1024},
        {"capability": (7, 5)},
    ):
        check_search(device(seed=k, **properties), vectors, codes, metric, k)


@pytest.mark.parametrize(("count", "size", "dim"), [(1, 1, 1), (1, 1, 40), (129, 129, 33), (128, 128, 32), (3, 2, 65)])
@pytest.mark.parametrize("path", ["f32", "mma-128x128", "mma-128x64-ring"])
def test_tails(path: str, count: int, size: int, dim: int) -> None:
    vectors, codes = data.make("gaussian", count, size, dim)
    check_search(device(seed=dim), vectors, codes, by=plan(path))


@pytest.mark.parametrize("kind", ["tight", "clustered", "integers"])
@pytest.mark.parametrize("path", ["f32", "mma-128x128", "mma-128x128-alone"])
@pytest.mark.parametrize(("capacity", "k"), [(1, 1), (3, 1), (5, 4), (8, 8)])
def test_lists_that_overflow(path: str, kind: str, capacity: int, k: int) -> None:
    """What a list cannot hold is looked at again, or compared with every code."""
    vectors, codes = data.make(kind, 20, 260, 20, seed=capacity)
    check_search(device(seed=capacity), vectors, codes, "l2", k, by=plan(path, k, capacity=capacity))


@pytest.mark.parametrize(("path", "parts"), [("f32", 3), ("mma-128x128", 2), ("mma-128x64-ring", 5)])
def test_a_codebook_in_parts(path: str, parts: int) -> None:
    vectors, codes = data.make("clustered", 30, 300, 24)
    check_search(device(seed=parts), vectors, codes, by=plan(path, parts=parts))
    check_search(device(seed=parts), vectors, codes, "l2", 7, by=plan(path, 7, parts=parts))


@pytest.mark.parametrize("path", ["f32", "mma-128x128", "small"])
def test_blocks_of_vectors(path: str) -> None:
    vectors, codes = data.make("gaussian", 300, 40, 4 if path == "small" else 20)
    check_search(device(seed=2), vectors, codes, by=plan(path, rows_at_once=128))


@pytest.mark.parametrize(
    ("of_vectors", "of_codes"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float64),
        (torch.float64, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32),
    ],
)
@pytest.mark.parametrize("path", ["f32", "mma-128x64-ring"])
def test_dtypes(path: str, of_vectors: torch.dtype, of_codes: torch.dtype) -> None:
    for kind, metric in (("gaussian", "l2"), ("duplicated", "cosine")):
        vectors, codes = data.make(kind, 20, 70, 19)
        # Values that float32 does not hold, where the type has more digits.
        vectors, codes = (vectors.double() * (1 + 2.0**-40)).to(of_vectors), (codes.double() / 3).to(of_codes)
        check_search(device(), vectors, codes, metric, 2, by=plan(path, 2))


def test_float64_differences_below_float32() -> None:
    """Codes that are equal as float32 numbers."""
    codes = 1 + 2.0**-40 * torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    check_search(device(), codes[torch.arange(59, 0, -3)] + 2.0**-48, codes, "l2", 3, by=plan("f32", 3))


@pytest.mark.parametrize("dim", [1, 2, 4, 8])
def test_short_vectors(dim: int) -> None:
    for kind in ("integers", "offset", "scattered"):
        vectors, codes = data.make(kind, 300, 140, dim, seed=dim)
        check_search(device(seed=dim), vectors, codes, by=plan("small"))


@pytest.mark.slow
@pytest.mark.parametrize("dim", range(1, 17))
@pytest.mark.parametrize("kind", data.KINDS)
def test_short_vectors_of_every_length(kind: str, dim: int) -> None:
    for size in (1, 7, 128, 300):
        vectors, codes = data.make(kind, 300, size, dim, seed=dim)
        check_search(device(seed=size), vectors, codes, by=plan("small"))


@pytest.mark.parametrize("path", ["f32", "mma-128x128", "small"])
def test_vectors_in_any_layout(path: str) -> None:
    vectors, codes = data.make("gaussian", 90, 50, 8 if path == "small" else 24)
    for view in (vectors[::3], vectors.flip(0), vectors.T.contiguous().T, vectors[:1].expand(5, -1)):
        check_search(device(), view, codes, by=plan(path))


@pytest.mark.parametrize("path", ["f32", "mma-128x128", "small"])
def test_nothing_to_search(path: str) -> None:
    vectors, codes = data.make("gaussian", 5, 50, 8)
    book = CudaCodebook(codes, "l2", kernels=Kernels(device()))
    found, ranks = book.search(vectors[:0], 1, plan=plan(path))
    assert found.shape == (0, 1)
    assert ranks is not None
    assert ranks.shape == (0, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("path", ["f32", "mma-128x128", "small"])
def test_the_first_row_that_is_not_finite_is_named(path: str, value: float) -> None:
    vectors, codes = data.make("gaussian", 300, 20, 8)
    vectors[271, 7] = vectors[200, 0] = vectors[260] = value
    for seed in range(4):
        book = CudaCodebook(codes, "l2", kernels=Kernels(device(seed)))
        with pytest.raises(NotFiniteError) as refused:
            book.search(vectors, 1, plan=plan(path, rows_at_once=128))
        assert refused.value.row == 200
    codes[13, 2] = codes[11, 3] = value
    with pytest.raises(NotFiniteError) as refused:
        CudaCodebook(codes, "l2", kernels=Kernels(device(3)))
    assert refused.value.row == 11


@pytest.mark.parametrize("path", ["f32", "mma-128x64-ring", "small"])
def test_rows_more_than_two_billion_values_apart(path: str) -> None:
    vectors, codes = data.make("gaussian", 5, 30, 7)
    with data.far_apart(vectors) as rows:
        check_search(device(), rows, codes, by=plan(path))


@pytest.mark.parametrize(("dim", "sizes"), [(4, (40, 7, 130)), (8, (5, 5)), (20, (30, 40))])
@pytest.mark.parametrize("kind", ["gaussian", "integers", "offset"])
def test_residual_levels(kind: str, dim: int, sizes: tuple[int, ...]) -> None:
    vectors, _ = data.make(kind, 200, 1, dim)
    codebooks = [data.make(kind, 1, size, dim, seed=k)[1] / 2**k for k, size in enumerate(sizes)]
    left, expected = vectors, []
    for codebook in codebooks:
        code = reference.search(left, codebook).codes[:, 0]
        expected.append(code)
        left = left - codebook[code]
    for seed in range(3):
        found = nearest_residual(vectors, codebooks, kernels=Kernels(device(seed)))
        assert np.array_equal(found.numpy(), np.stack(expected, axis=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_segment_sums_are_the_same_on_every_schedule(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    vectors = (100 * torch.randn(300, 5, generator=random, dtype=torch.float64)).to(dtype)
    codes = torch.randint(9, (300,), generator=random)
    codes[:150] = 3
    scaled = [[round(float(value) * 2**20) for value in row] for row in vectors.double()]
    sums = [[sum(scaled[i][d] for i in range(300) if codes[i] == code) for d in range(5)] for code in range(9)]
    for seed in range(6):
        counts, found = segment_sums(vectors, codes, 9, 20, kernels=Kernels(device(seed)))
        assert counts.tolist() == torch.bincount(codes, minlength=9).tolist()
        assert found.tolist() == sums


def test_ldmatrix_meets_no_bank_conflict() -> None:
    for path in TILE_NAMES:
        chosen = device()
        vectors, codes = data.make("gaussian", 128, 128, 96)
        check_search(chosen, vectors, codes, by=plan(path))
        loads = [module.counters for module in chosen.modules if module.counters.ldmatrix]
        assert len(loads) == 1
        assert loads[0].bank_conflicts == 0
