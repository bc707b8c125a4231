"""The kernels through NVRTC, the compiler CuPy uses, without a driver: every kernel, every architecture, its PTX."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from multitok.codebook import cuda_launch
from tests.cuda import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="needs NVRTC, of a CUDA build of torch or a toolkit")

PRIMITIVES = Path(__file__).parents[2] / "cuda" / "primitives.cuh"
# The options of `CupyDevice.module`, and what CuPy adds to them beside the architecture.
OPTIONS = ("-std=c++17", "--device-as-default-execution-space")
PROBES = r"""
extern "C" __global__ void probe_mma(const unsigned* in, float* sums) {
    float s[4];
    unsigned a[4], b[2];
    for (int i = 0; i < 4; i++) s[i] = sums[i], a[i] = in[i];
    for (int i = 0; i < 2; i++) b[i] = in[4 + i];
    mma_m16n8k16_bf16(s, a, b);
    for (int i = 0; i < 4; i++) sums[i] = s[i];
}
extern "C" __global__ void probe_ldmatrix(unsigned* out) {
    __shared__ __align__(16) unsigned memory[128];
    memory[threadIdx.x] = 1;
    unsigned tiles[4];
    ldmatrix_x4(tiles, memory);
    for (int i = 0; i < 4; i++) out[i] = tiles[i];
}
extern "C" __global__ void probe_copy(const unsigned char* in, unsigned* out) {
    __shared__ __align__(16) unsigned memory[128];
    copy_async_16(memory, in);
    copy_async_commit();
    copy_async_wait<3>();
    *out = memory[0];
}
"""


def body_of(ptx: str, kernel: str) -> str:
    return re.search(rf"\.entry {kernel}\(.*?^\}}", ptx, re.DOTALL | re.MULTILINE)[0]


def registers(body: str, operation: str) -> dict[str, int]:
    """Register -> byte offset of the loads or stores to global memory."""
    if operation == "ld":
        found = re.findall(r"ld\.global\.\w+\s+(%\w+), \[%\w+(?:\+(\d+))?\]", body)
        return {register: int(offset or 0) for register, offset in found}
    found = re.findall(r"st\.global\.\w+\s+\[%\w+(?:\+(\d+))?\], (%\w+)", body)
    return {register: int(offset or 0) for offset, register in found}


@pytest.fixture(scope="module")
def ptx() -> str:
    code = PRIMITIVES.read_text() + PROBES
    compiled, log, ptx = nvrtc.compile_source(code, [], [*OPTIONS, "-arch=compute_80"])
    assert compiled, log
    return ptx


def test_operands_of_mma(ptx: str) -> None:
    body = body_of(ptx, "probe_mma")
    name, *lists = re.search(r"(mma\S*) \{(.*?)\}, \{(.*?)\}, \{(.*?)\}, \{(.*?)\};", body).groups()
    results, rows, columns, sums = (text.split(", ") for text in lists)
    loaded, stored = registers(body, "ld"), registers(body, "st")
    assert name == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    assert [loaded[register] for register in rows] == [0, 4, 8, 12]
    assert [loaded[register] for register in columns] == [16, 20]
    assert [loaded[register] for register in sums] == [0, 4, 8, 12]
    assert [stored[register] for register in results] == [0, 4, 8, 12]


def test_operands_of_ldmatrix(ptx: str) -> None:
    body = body_of(ptx, "probe_ldmatrix")
    name, tiles, address = re.search(r"(ldmatrix\S*) \{(.*?)\}, \[(%r\d+)\];", body).groups()
    stored = registers(body, "st")
    assert name == "ldmatrix.sync.aligned.m8n8.x4.shared.b16"
    assert [stored[register] for register in tiles.split(", ")] == [0, 4, 8, 12]
    # The address is one of shared memory, in 32 bits.
    assert re.search(rf"(cvt\.u32\.u64|mov\.u32)\s+{address}, ", body)


def test_operands_of_cp_async(ptx: str) -> None:
    body = body_of(ptx, "probe_copy")
    shared, from_global = re.search(r"cp\.async\.cg\.shared\.global \[(%r\d+)\], \[(%rd\d+)\], 16;", body).groups()
    assert re.search(rf"(cvt\.u32\.u64|mov\.u32)\s+{shared}, ", body)
    assert re.search(rf"ld\.param\.u64\s+{from_global}, \[probe_copy_param_0\];", body)
    order = [
        body.index(text) for text in ("cp.async.cg", "cp.async.commit_group;", "cp.async.wait_group 3;", "ld.shared")
    ]
    assert order == sorted(order)


# ---- The kernels themselves ------------------------------------------------------------------------------------------

GROUPS = [(file, group) for file, groups in cuda_launch.KERNELS.items() for group in groups]
NEEDS_TENSOR_CORES = {"nearest_mma.cu"}


def compile_group(file: str, group: tuple[str, ...], architecture: str) -> str:
    """PTX, where the architecture is a compute_ one; compiled as `CupyDevice.module` and CuPy do it."""
    options = [*OPTIONS, f"-arch={architecture}"]
    compiled, log, ptx = nvrtc.compile_source(cuda_launch.source(file), group, options)
    assert compiled, log
    assert "warning" not in log, log
    return ptx


@pytest.mark.parametrize("file", sorted(cuda_launch.KERNELS))
def test_kernels_compile(file: str) -> None:
    group = cuda_launch.KERNELS[file][0]
    compile_group(file, group, "compute_80" if file in NEEDS_TENSOR_CORES else "compute_75")


@pytest.mark.slow
@pytest.mark.parametrize(("file", "group"), GROUPS, ids=[group[-1] for _, group in GROUPS])
def test_kernels_compile_for_every_architecture(file: str, group: tuple[str, ...]) -> None:
    for number in nvrtc.architectures():
        if file in NEEDS_TENSOR_CORES and number < 80:
            continue
        compile_group(file, group, f"compute_{number}")
        compile_group(file, group, f"sm_{number}")


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("decide.cu", ("decide<float>",)),
        ("decide.cu", ("decide<double>",)),
        ("nearest_small.cu", ("nearest_small<3>",)),
    ],
)
def test_the_definition_is_not_contracted(file: str, group: tuple[str, ...]) -> None:
    assert "fma.rn.f64" not in compile_group(file, group, "compute_80")


def test_that_test_can_fail() -> None:
    right = "__dadd_rn(sum, __dmul_rn(difference, difference))"
    source = cuda_launch.source("decide.cu").replace(right, "sum + difference * difference")
    assert source != cuda_launch.source("decide.cu")
    compiled, log, ptx = nvrtc.compile_source(source, ["decide<float>"], [*OPTIONS, "-arch=compute_80"])
    assert compiled, log
    assert "fma.rn.f64" in ptx
