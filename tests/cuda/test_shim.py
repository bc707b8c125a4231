"""The shim itself: right kernels give what CUDA defines, and every fault that it claims to find is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cuda import host_module
from tests.cuda.host_module import HostModule, KernelFault, LaunchError

SOURCE = Path(__file__).parent / "shim_faults.cu"
KERNELS = [
    line.partition("(")[0].removeprefix("__global__ void ").strip()
    for line in SOURCE.read_text().splitlines()
    if line.startswith("__global__ void ")
]
SEEDS = range(8)


def launch(
    name: str, *args: Any, block: int = 32, grid: int = 1, shared: int = 0, seed: int = 0, budget: int = 10**7
) -> HostModule:
    """Runs a kernel; tensors go as addresses, Python integers as int32."""
    options = [f"-I{SOURCE.parent}"]
    module = HostModule(code=SOURCE.read_text(), options=options, name_expressions=KERNELS, seed=seed, budget=budget)
    converted = [a.data_ptr() if isinstance(a, torch.Tensor) else np.int32(a) for a in args]
    module.get_function(name)((grid,), (block,), tuple(converted), shared_mem=shared)
    return module


def ints(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int32)


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_barriers_and_shared_memory(seed: int) -> None:
    count = 5 * 128 - 17
    given, out = torch.arange(count, dtype=torch.int32), ints(count)
    launch("reverse_blocks", given, out, count, grid=5, block=128, seed=seed)
    padded = torch.cat([given, torch.zeros(17, dtype=torch.int32)]).view(5, 128).flip(1).flatten()
    assert torch.equal(out, padded[:count])


@pytest.mark.parametrize("seed", SEEDS)
def test_warp_functions(seed: int) -> None:
    out = ints(256)
    launch("warp_functions", out, seed=seed)
    lane = np.arange(32)
    expected = [
        (lane + 1) % 32,
        np.where(lane < 3, lane, lane - 3),
        lane ^ 9,
        lane ^ 4,
        np.full(32, sum(1 << i for i in range(0, 32, 3))),
        np.zeros(32),
        lane // 8 * 8 + 2,
        np.where(lane < 8, lane ^ 1, -1),
    ]
    got = out.view(8, 32).numpy().astype(np.int64)
    got[4] &= 0xFFFFFFFF
    assert np.array_equal(got, np.stack(expected))


def fragments(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    rows, columns = (torch.randn(n, 16, generator=generator).bfloat16() for n in (16, 8))
    sums, out = torch.randn(16, 8, generator=generator), torch.zeros(16, 8)
    module = launch("multiply", rows, columns, sums, out, shared=768, seed=seed)
    exact = sums.double() + rows.double() @ columns.double().T
    size = sums.double().abs() + rows.double().abs() @ columns.double().abs().T
    assert (module.counters.mma, module.counters.ldmatrix, module.counters.copies) == (1, 2, 48)
    return out, exact, size


@pytest.mark.parametrize("seed", SEEDS)
def test_mma_with_operands_from_ldmatrix_and_cp_async(seed: int) -> None:
    out, exact, size = fragments(seed)
    if seed % 2:  # cut sums
        assert ((out.double() - exact).abs() <= 20 * 2.0**-23 * size).all()
        assert not torch.equal(out, exact.float())
    else:
        assert torch.equal(out, exact.float())


@pytest.mark.parametrize("seed", SEEDS)
def test_atomics(seed: int) -> None:
    given = torch.arange(-50, 250, dtype=torch.int32)
    total, wide, lowest = ints(1), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    launch("count_all", given, 300, total, wide, lowest, grid=5, block=64, seed=seed)
    assert (int(total), int(wide), int(lowest)) == (int(given.sum()), int(given.sum()), -50)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_warp_barrier_orders_its_warp(seed: int) -> None:
    out = ints(64)
    launch("rotate_in_warp", out, block=64, seed=seed)
    assert out.tolist() == [*range(1, 32), 0, *range(33, 64), 32]


@pytest.mark.parametrize("seed", SEEDS)
def test_threads_may_share_a_word_but_no_byte(seed: int) -> None:
    out = torch.zeros(32, dtype=torch.int16)
    launch("halves_of_words", out, seed=seed)
    assert out.tolist() == list(range(2, 34))


def test_seeds_change_the_order_of_threads_and_blocks() -> None:
    orders = []
    for seed in [*range(16), 5]:
        out = ints(192)
        launch("tickets", ints(1), out, block=64, grid=3, seed=seed)
        assert sorted(out.tolist()) == list(range(192))
        orders.append(tuple(out.tolist()))
    assert orders[0] == tuple(range(192))
    assert orders[-1] == orders[5]
    assert len(set(orders)) >= 14


def test_contraction_is_as_in_nvcc() -> None:
    given = torch.tensor([1 + 2.0**-30, 1 - 2.0**-30, -1.0, 1 + 2.0**-50], dtype=torch.float64)
    out = torch.zeros(3, dtype=torch.float64)
    launch("arithmetic", given, out, block=1)
    if host_module.has_fma():
        assert out[0] == -(2.0**-60)
    assert out[1] == 0
    assert out[2] == 1 + 2.0**-23


F, G = torch.zeros(128), torch.zeros(128)
FAULTS: list[tuple[str, tuple[Any, ...], dict[str, int], str]] = [
    ("missing_barrier", (ints(64),), {"block": 64}, "no thread of this block has written|nothing in between"),
    ("missing_barrier_before_reuse", (ints(64),), {"block": 64}, "nothing in between"),
    ("shuffle_is_no_barrier", (ints(32),), {}, "nothing in between"),
    ("warp_barrier_is_too_small", (ints(64),), {"block": 64}, "no thread of this block has written|nothing in between"),
    ("plain_count", (ints(1),), {}, "nothing in between"),
    ("half_a_barrier", (ints(64),), {"block": 64}, "different __syncthreads"),
    ("wrong_mask", (ints(32),), {}, "lacks the caller"),
    ("masks_disagree", (ints(32),), {}, "while lane"),
    ("lane_misses_vote", (ints(32),), {}, "hangs: thread.*wait in a vote.*thread 3 wait in __syncthreads"),
    ("mma_by_half", (torch.zeros(32),), {}, "needs all 32"),
    ("reads_past_end", (ints(40), ints(32), 40), {}, r"0 bytes after the end of argument 0 \(int32\)"),
    ("writes_past_end", (ints(40), 40), {}, "0 bytes after the end of argument 0"),
    ("writes_const", (ints(32),), {}, "const"),
    ("shared_past_end", (ints(32),), {"shared": 32}, "0 bytes after the end of dynamic shared"),
    ("reads_unwritten", (ints(64),), {"block": 64}, "no thread of this block has written"),
    ("misaligned", (F, G), {}, "misaligned"),
    ("async_not_waited", (F, G), {}, "has not been waited for"),
    (
        "async_without_barrier",
        (F, G),
        {},
        "no thread of this block has written|has not been waited for|nothing in between",
    ),
    ("async_left", (F,), {}, "under way"),
    ("overflow", (ints(32), 2**16), {}, r"overflow in a product \(kernels.cu:"),
    ("index_outside", (ints(8), 8), {"block": 8}, "index outside"),
    ("never_ends", (ints(1), ints(1)), {"block": 2, "budget": 10**6}, "no end after"),
    ("blocks_share_a_word", (ints(1),), {"block": 1, "grid": 2}, "another block"),
]


@pytest.mark.parametrize(("name", "args", "sizes", "message"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_faults_are_found_on_every_schedule(
    name: str, args: tuple[Any, ...], sizes: dict[str, int], message: str
) -> None:
    for seed in range(4):
        with pytest.raises(KernelFault, match=message) as found:
            launch(name, *args, **sizes, seed=seed)
        assert str(found.value).startswith(name)


def test_a_fault_names_its_line_and_thread() -> None:
    number = next(i for i, line in enumerate(SOURCE.read_text().splitlines(), 1) if "writes_const" in line)
    with pytest.raises(
        KernelFault, match=rf"kernels.cu:{number}: thread 0 \(warp 0, lane 0\) of block \(0, 0, 0\): writes 4"
    ):
        launch("writes_const", ints(32))


def test_the_shim_runs_on_after_a_fault() -> None:
    with pytest.raises(KernelFault):
        launch("half_a_barrier", ints(64), block=64)
    test_atomics(0)


def test_the_shim_compiles_without_warnings() -> None:
    assert host_module.runtime().with_suffix(".log").read_text() == ""


@pytest.mark.slow
def test_fibers_without_assembly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on processors other than x86-64."""
    monkeypatch.setattr(host_module, "RUNTIME_FLAGS", (*host_module.RUNTIME_FLAGS, "-DSHIM_UCONTEXT"))
    for seed in SEEDS:
        test_blocks_barriers_and_shared_memory(seed)
        test_mma_with_operands_from_ldmatrix_and_cp_async(seed)
    with pytest.raises(KernelFault, match="different __syncthreads"):
        launch("half_a_barrier", ints(64), block=64)
    test_atomics(1)


def test_all_kernels_are_tried() -> None:
    right = {
        "reverse_blocks",
        "warp_functions",
        "multiply",
        "count_all",
        "rotate_in_warp",
        "tickets",
        "halves_of_words",
    }
    assert right | {"arithmetic"} | {fault[0] for fault in FAULTS} == set(KERNELS)


REFUSED: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((F, G), {}, "2 arguments, the kernel takes 3"),
    ((ints(8), ints(8), F), {}, "argument 2 is int64, the kernel takes one of 4 bytes"),
    ((F, ints(8), 8), {}, r"argument 0 points to torch.float32, the kernel takes items of 4 bytes"),
    ((ints(8), torch.zeros(8, dtype=torch.int64), 8), {}, "argument 1 points to torch.int64"),
    ((ints(8), 8, 8), {}, "argument 1 is int32, the kernel takes one of 8 bytes"),
    ((ints(8), ints(8), 8), {"grid": 0}, "a grid of"),
    ((ints(8), ints(8), 8), {"block": 1025}, "a block of"),
    ((ints(8), ints(8), 8), {"shared": 49153}, "49153 bytes of shared memory, 49152 are allowed"),
]


@pytest.mark.parametrize(("args", "sizes", "message"), REFUSED)
def test_launches_that_cupy_or_the_driver_would_refuse(
    args: tuple[Any, ...], sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LaunchError, match=message):
        launch("reverse_blocks", *args, **sizes)


def test_arrays_that_overlap_and_unknown_addresses_are_refused() -> None:
    both = ints(64)
    with pytest.raises(LaunchError, match="is written to and overlaps argument 0"):
        launch("reverse_blocks", both[:40], both[32:], 32)
    module = launch("reverse_blocks", ints(8), ints(8), 8, block=128)
    with pytest.raises(LaunchError, match="at which no tensor begins"):
        module.get_function("reverse_blocks")((1,), (128,), (4096, both.data_ptr(), np.int32(8)))
