"""The kernels on a CUDA device: what a CPU cannot show. `pytest -m gpu tests/cuda`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from multitok.codebook import cuda_launch
from multitok.codebook.cuda_backend import CudaCodebook, nearest_residual, segment_sums
from multitok.codebook.native import NotFiniteError
from tests.codebook import reference
from tests.cuda import data
from tests.cuda.host_search import TILE_NAMES, expected, plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(
        torch.cuda.is_available() and cuda_launch.available() is not None,
        reason=f"the CUDA kernels cannot run: {cuda_launch.available()}",
    ),
]
DEVICE = torch.device("cuda", 0)


def check(vectors: torch.Tensor, codes: torch.Tensor, metric: str = "l2", k: int = 1, path: str | None = None) -> None:
    """Codes and distances of the device are those of the definition, bit for bit."""
    by = None if path is None else plan(path, k)
    if by is not None and by.first.tile is not None:
        kernels = cuda_launch.kernels_for(torch.zeros(1, device=DEVICE))
        if kernels.device.capability < (8, 0) or by.first.shared_bytes(codes.shape[1]) > kernels.device.shared_bytes:
            pytest.skip("this device has no bfloat16 tensor cores, or too little shared memory")
    book = CudaCodebook(codes.to(DEVICE), metric)
    found, ranks = book.search(vectors.to(DEVICE), k, plan=by)
    codes_wanted, ranks_wanted = expected(vectors, codes, metric, k)
    assert np.array_equal(found.cpu().numpy(), codes_wanted)
    assert ranks is not None
    assert np.array_equal(ranks.cpu().numpy(), ranks_wanted)


@pytest.mark.parametrize("kind", data.KINDS)
@pytest.mark.parametrize("path", ["f32", "small", *TILE_NAMES])
def test_every_path(path: str, kind: str) -> None:
    vectors, codes = data.make(kind, 3000, 1500, 12 if path == "small" else 72)
    check(vectors, codes, path=path)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("kind", data.KINDS)
@pytest.mark.parametrize(("count", "size", "dim", "k"), [(1, 1, 1, 1), (129, 257, 33, 5), (4000, 2000, 128, 16)])
def test_plans_of_its_own_choice(count: int, size: int, dim: int, k: int, kind: str, metric: str) -> None:
    vectors, codes = data.make(kind, count, size, dim)
    check(vectors, codes, metric, k)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    vectors, codes = data.make("clustered", 500, 300, 40)
    check((vectors.double() / 3).to(dtype), (codes.double() / 3).to(dtype), k=3)


@pytest.mark.parametrize("dim", range(1, 17))
def test_short_vectors(dim: int) -> None:
    for kind in ("neighbours", "integers"):
        check(*data.make(kind, 2000, 700, dim), path="small")


def test_the_same_bits_every_time() -> None:
    """Candidates come in any order; what is found may not depend on it."""
    vectors, codes = (values.to(DEVICE) for values in data.make("neighbours", 20000, 3000, 64))
    book = CudaCodebook(codes, "l2")
    first, ranks = book.search(vectors, 4)
    for _ in range(20):
        again, ranks_again = book.search(vectors, 4)
        assert torch.equal(first, again)
        assert torch.equal(ranks, ranks_again)


def test_work_is_done_on_the_current_stream() -> None:
    """The vectors are written on a stream that is kept busy first: a search on another stream would miss them."""
    vectors, codes = (values.to(DEVICE) for values in data.make("gaussian", 2000, 500, 64))
    book = CudaCodebook(codes, "l2")
    wanted = book.search(vectors, 1)[0]
    busy, late = torch.randn(4096, 4096, device=DEVICE), torch.zeros_like(vectors)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream(DEVICE)
    with torch.cuda.stream(stream):
        for _ in range(50):
            busy = busy @ busy
            busy /= busy.norm()
        late.copy_(vectors)
        found = book.search(late, 1)[0]
    torch.cuda.synchronize()
    assert torch.equal(found, wanted)


def test_values_that_are_not_finite() -> None:
    vectors, codes = data.make("gaussian", 5000, 300, 64)
    vectors[4321, 7] = vectors[4000, 1] = float("nan")
    with pytest.raises(NotFiniteError) as refused:
        CudaCodebook(codes.to(DEVICE), "l2").search(vectors.to(DEVICE), 1)
    assert refused.value.row == 4000


def test_more_than_two_billion_values() -> None:
    dim, count = 64, 2**25 + 1000
    if torch.cuda.mem_get_info(DEVICE)[0] < 2 * 4 * dim * count:
        pytest.skip("needs 17 GB of free memory on the device")
    codes = data.make("gaussian", 1, 300, dim)[1]
    vectors = torch.randn(count, dim, device=DEVICE)
    found = CudaCodebook(codes.to(DEVICE), "l2").search(vectors, 1, distances=False)[0][:, 0]
    rows = torch.cat([torch.arange(500), torch.arange(count - 1500, count)])
    assert torch.equal(
        found[rows.to(DEVICE)].cpu(), torch.from_numpy(reference.search(vectors[rows.to(DEVICE)], codes).codes[:, 0])
    )


@pytest.mark.parametrize("dim", [4, 40])
def test_residual_levels(dim: int) -> None:
    vectors, _ = data.make("gaussian", 3000, 1, dim)
    codebooks = [data.make("gaussian", 1, 200, dim, seed=level)[1] / 2**level for level in range(4)]
    found = nearest_residual(vectors.to(DEVICE), [codebook.to(DEVICE) for codebook in codebooks]).cpu()
    left = vectors
    for level, codebook in enumerate(codebooks):
        code = torch.from_numpy(reference.search(left, codebook).codes[:, 0])
        assert torch.equal(found[:, level], code)
        left = left - codebook[code]


def test_segment_sums() -> None:
    vectors = data.make("gaussian", 100000, 1, 24)[0]
    codes = torch.randint(7, (100000,), generator=torch.Generator().manual_seed(1))
    scaled = (vectors.double() * 2**30).round().long()
    counts, sums = segment_sums(vectors.to(DEVICE), codes.to(DEVICE), 7, 30)
    assert torch.equal(counts.cpu(), torch.bincount(codes, minlength=7))
    assert torch.equal(sums.cpu(), torch.zeros(7, 24, dtype=torch.int64).index_add_(0, codes, scaled))


SEARCHES = """
import torch
from multitok.codebook.cuda_backend import CudaCodebook, nearest_residual, segment_sums
from tests.cuda import data
for dim, count, size in ((4, 600, 300), (40, 300, 700)):
    for kind in ("gaussian", "neighbours"):
        vectors, codes = (values.cuda() for values in data.make(kind, count, size, dim))
        for k in (1, 3):
            book = CudaCodebook(codes, "l2")
            found = book.search(vectors, k)[0]
        nearest_residual(vectors, [codes, codes])
        segment_sums(vectors, found[:, 0], size, 20)
torch.cuda.synchronize()
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("needs compute-sanitizer, which comes with the CUDA toolkit")
    command = [
        sanitizer,
        "--tool",
        tool,
        "--error-exitcode",
        "99",
        "--kernel-regex",
        "kns=nearest|decide|prepare|segment",
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", SEARCHES], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
