"""From Python to the kernels: what is launched, on which stream, in which pieces, and what is refused and how."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multitok.codebook import cuda_backend, cuda_launch, cuda_plan
from multitok.codebook.cuda_backend import CudaCodebook
from multitok.codebook.cuda_launch import Kernels
from multitok.codebook.cuda_plan import Pass
from multitok.errors import MissingExtraError, ShapeError
from tests.cuda import data
from tests.cuda.host_device import HostDevice
from tests.cuda.host_module import KernelFault, LaunchError
from tests.cuda.host_search import check_search, plan

SOURCES = Path(__file__).parents[2] / "cuda"
MEASURE = "measure_codes<float>"


# ---- Arguments -------------------------------------------------------------------------------------------------------


def measure_arguments() -> list[Any]:
    """What `measure_codes` takes, for 3 codes of 2 dimensions."""
    double = torch.zeros(3, dtype=torch.float64)
    bad_row = torch.zeros(1, dtype=torch.int64)
    return [torch.ones(3, 2), np.int32(3), np.int32(2), torch.zeros(2).double(), double, double.clone(), bad_row]


def launch_measure(arguments: list[Any]) -> None:
    Kernels(HostDevice()).launch(MEASURE, (1,), 128, arguments)


def test_arguments_as_they_should_be() -> None:
    arguments = measure_arguments()
    launch_measure(arguments)
    assert arguments[4].tolist() == [2.0**0.5] * 3


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.ones(3, 2).double(), "argument 0 points to torch.float64, the kernel takes items of 4 bytes"),
        (1, np.int64(3), "argument 1 is int64, the kernel takes one of 4 bytes"),
        (1, np.float32(3), "argument 1 is float32, the kernel takes one of 4 bytes, kind 'i'"),
        (1, torch.ones(3, dtype=torch.int32), "argument 1 is int64, the kernel takes one of 4 bytes"),
        (3, np.float64(0), "argument 3 is float64, the kernel takes one of 8 bytes, kind 'p'"),
        (6, torch.zeros(1, dtype=torch.int32), "argument 6 points to torch.int32"),
    ],
)
def test_wrong_types_and_widths_are_caught(position: int, wrong: Any, message: str) -> None:
    arguments = measure_arguments()
    arguments[position] = wrong
    with pytest.raises(LaunchError, match=re.escape(message)):
        launch_measure(arguments)


def test_wrong_numbers_of_arguments_are_caught() -> None:
    with pytest.raises(LaunchError, match="6 arguments, the kernel takes 7"):
        launch_measure(measure_arguments()[:-1])
    with pytest.raises(LaunchError, match="8 arguments, the kernel takes 7"):
        launch_measure([*measure_arguments(), np.int32(0)])


@pytest.mark.parametrize("number", [3, 3.0, True])
def test_python_numbers_never_reach_a_kernel(number: object) -> None:
    """CuPy would pass 8 bytes for each."""
    arguments = measure_arguments()
    arguments[1] = number
    with pytest.raises((LaunchError, AttributeError, TypeError)):
        launch_measure(arguments)


def test_arrays_that_are_too_short_are_caught() -> None:
    arguments = measure_arguments()
    arguments[4] = arguments[4][:2]
    with pytest.raises(KernelFault, match=r"writes 8 bytes outside all arrays, 0 bytes after the end of argument 4"):
        launch_measure(arguments)


@pytest.mark.parametrize("path", ["f32", "mma-128x128", "mma-128x128-ring"])
def test_too_little_shared_memory_is_caught(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So what `Pass.shared_bytes` computes is what the kernel lays out, but for the padding of the last row."""
    vectors, codes = data.make("gaussian", 130, 130, 40)
    right = Pass.shared_bytes
    check_search(HostDevice(), vectors, codes, by=plan(path))
    monkeypatch.setattr(Pass, "shared_bytes", lambda self, dim: right(self, dim) - 32)
    with pytest.raises(KernelFault, match="after the end of dynamic shared memory"):
        check_search(HostDevice(), vectors, codes, by=plan(path))


def test_grids_that_cuda_cannot_start_are_refused() -> None:
    kernels = Kernels(HostDevice())
    with pytest.raises(ShapeError, match=r"needs \(2147483648,\) blocks.*give fewer vectors at once"):
        kernels.launch(MEASURE, (2**31,), 128, measure_arguments())
    with pytest.raises(ShapeError, match="65536"):
        kernels.launch(MEASURE, (1, 65536), 128, measure_arguments())


# ---- Sources and kernels ---------------------------------------------------------------------------------------------


def test_every_kernel_of_the_sources_can_be_launched() -> None:
    declared = {
        (path.name, re.match(r"[^()]*?(?:__launch_bounds__\([^\n]*\)\s*)?(\w+)\(", after)[1])
        for path in SOURCES.glob("*.cu")
        for after in path.read_text().split("__global__ void")[1:]
    }
    listed = {
        (file, re.match(r"\w+", name)[0])
        for file, groups in cuda_launch.KERNELS.items()
        for group in groups
        for name in group
    }
    assert declared == listed


def test_sources_hold_what_they_include() -> None:
    for file in cuda_launch.KERNELS:
        included = re.findall(r'^#include "(.*)"', cuda_launch.source(file), re.MULTILINE)
        assert included == ["shim.h"]  # of the branch for the CPU


def test_kernels_compile_without_warnings_for_the_cpu() -> None:
    for file, groups in cuda_launch.KERNELS.items():
        group = groups[-1] if file != "nearest_small.cu" else groups[3]
        assert HostDevice().module(cuda_launch.source(file), group).warnings == ""


def test_nothing_is_compiled_or_imported_before_it_is_used() -> None:
    code = (
        "import sys; from multitok.codebook import cuda_backend, cuda_launch as launch; "
        "print('cupy' in sys.modules, launch.source.cache_info().misses, launch.kernels_of.cache_info().misses)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", "0", "0"]


def test_modules_are_compiled_once_and_only_where_needed() -> None:
    device = HostDevice()
    kernels = Kernels(device)
    launched = [name for _ in range(3) for name in [MEASURE]]
    for name in launched:
        kernels.launch(name, (1,), 128, measure_arguments())
    assert device.launched == launched
    assert len(device.modules) == 1


# ---- Pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["f32", "mma-128x64-ring", "small"])
def test_many_vectors_are_searched_in_pieces(path: str) -> None:
    vectors, codes = data.make("gaussian", 500, 20, 6)
    device = HostDevice()
    book = CudaCodebook(codes, "l2", kernels=Kernels(device))
    device.launched.clear()
    book.search(vectors, 1, plan=plan(path, rows_at_once=128))
    proposing = [name for name in device.launched if name.startswith("nearest_small" if path == "small" else "decide")]
    assert len(proposing) == 4 * (2 if path == "mma-128x64-ring" else 1)


@pytest.mark.parametrize("dim", [3, 40, 2000])
@pytest.mark.parametrize("count", [1, 10**6, 2**33])
def test_plans_keep_to_the_workspace_and_to_what_cuda_can_start(count: int, dim: int) -> None:
    for size in (1, 1000, 2**20):
        for k in (1, 16):
            for metric in ("l2", "dot"):
                chosen = cuda_plan.plan_search(
                    HostDevice(multiprocessors=132),
                    count=count,
                    size=size,
                    dim=dim,
                    nearest=k,
                    metric=metric,
                    double=False,
                )
                rows = min(chosen.rows_at_once, count)
                assert rows < 2**31
                for search in (chosen.first, chosen.second):
                    if search is None or chosen.small:
                        continue
                    blocks = -(-rows // search.rows)
                    assert blocks < 2**31
                    assert 1 <= search.parts < 65536
                    assert search.shared_bytes(dim) <= HostDevice().shared_bytes
                    taken = blocks * search.rows * search.bytes_per_row(dim)
                    assert taken <= 1.1 * cuda_plan.WORKSPACE_BYTES or blocks == 1


# ---- CuPy ------------------------------------------------------------------------------------------------------------


class FakeCupy(types.ModuleType):
    """As much of CuPy as a launch touches; writes down what is asked of it."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.done: list[Any] = []
        self.stack: list[Any] = []
        fake = self

        @contextlib.contextmanager
        def entered(what: Any) -> Iterator[None]:
            fake.stack.append(what)
            yield
            fake.stack.pop()

        class Device:
            def __init__(self, index: int) -> None:
                self.attributes = {
                    "ComputeCapabilityMajor": 9, "ComputeCapabilityMinor": 0,
                    "MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448,
                }  # fmt: skip
                self._entered = entered(("device", index))

            def __enter__(self) -> None:
                self._entered.__enter__()

            def __exit__(self, *_: Any) -> None:
                self._entered.__exit__(None, None, None)

        class Function:
            max_dynamic_shared_size_bytes = 1000

            def __init__(self, name: str) -> None:
                self.name = name

            def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
                asked = self.max_dynamic_shared_size_bytes
                fake.done.append((self.name, grid, block, arguments, shared_mem, asked, tuple(fake.stack)))

        class RawModule:
            def __init__(self, *, code: str, options: tuple[str, ...], name_expressions: tuple[str, ...]) -> None:
                assert "__global__" in code
                fake.done.append(("module", options, name_expressions, tuple(fake.stack)))

            def compile(self) -> None:
                pass

            def get_function(self, name: str) -> Function:
                return Function(name)

        self.RawModule = RawModule
        self.cuda = types.SimpleNamespace(
            Device=Device,
            Stream=types.SimpleNamespace(from_external=lambda stream: entered(("stream", stream.number))),
            ExternalStream=lambda pointer, index: entered(("old stream", pointer, index)),
        )


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    return fake


def use_stream(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: stream)


def test_launches_go_to_the_stream_that_is_current_then(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = Kernels(cuda_launch.CupyDevice(3))
    assert (kernels.device.capability, kernels.device.multiprocessors) == ((9, 0), 132)
    assert kernels.device.shared_bytes == 232448
    for number in (11, 12):
        use_stream(monkeypatch, types.SimpleNamespace(number=number, __cuda_stream__=None))
        kernels.launch(MEASURE, (2,), 128, [torch.zeros(1), np.int32(7), None])
    use_stream(monkeypatch, types.SimpleNamespace(cuda_stream=77))  # torch before 2.9
    kernels.launch(MEASURE, (2,), 128, [None])
    module, *launches = cupy.done
    assert module[1] == ("-std=c++17",)
    assert MEASURE in module[2]
    streams = [(("device", 3), ("stream", 11)), (("device", 3), ("stream", 12)), (("device", 3), ("old stream", 77, 3))]
    assert [launch[-1] for launch in launches] == streams
    assert module[-1][0] == ("device", 3)
    assert [launch[:3] for launch in launches] == [(MEASURE, (2,), (128,))] * 3
    address, seven, null = launches[0][3]
    assert isinstance(address, int)
    assert (seven, null) == (np.int32(7), 0)


def test_more_shared_memory_is_asked_for_beforehand(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    use_stream(monkeypatch, types.SimpleNamespace(cuda_stream=0))
    kernels = Kernels(cuda_launch.CupyDevice(0))
    for wanted in (100, 49152, 60000, 50000):
        kernels.launch("nearest_f32", (1, 2), 256, [], shared_bytes=wanted)
    assert [(launch[4], launch[5]) for launch in cupy.done[1:]] == [
        (100, 1000), (49152, 1000), (60000, 60000), (50000, 60000)
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "extra"), [("12.8", "cuda12"), ("13.0", "cuda13"), ("14.1", "cuda13")])
def test_a_missing_cupy_names_the_extra(version: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", None)
    reason = cuda_launch.available.__wrapped__()
    assert f"pip install 'multitok[{extra}]'" in reason
    assert "CuPy cannot be imported" in reason
    monkeypatch.setattr(cuda_launch, "available", lambda: reason)
    on_device = types.SimpleNamespace(device=torch.device("cuda", 0))
    with pytest.raises(MissingExtraError, match=rf"multitok\[{extra}\]"):
        cuda_launch.kernels_for(on_device)  # type: ignore[arg-type]


def test_reasons_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in cuda_launch.available.__wrapped__()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "nvidia-smi" in cuda_launch.available.__wrapped__()


def test_cpu_tensors_are_refused() -> None:
    with pytest.raises(ShapeError, match="a tensor on cpu: the CUDA kernels take CUDA tensors"):
        CudaCodebook(torch.zeros(3, 2), "l2")
    with pytest.raises(ShapeError, match="on cpu"):
        cuda_backend.segment_sums(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 4, 10)
