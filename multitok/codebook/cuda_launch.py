"""From the sources in `cuda/` to running kernels: compiles them with CuPy when first used, launches on torch's stream.

A `Kernels` object belongs to one `Device`. Kernels of one file and value type are compiled together, once a process and
device (CuPy keeps the result on disk too). Memory goes to kernels by address, so CuPy's own memory pool is never used.
Nothing is compiled or imported from CuPy at import.

`Device` is also the seam for tests: a device whose modules run on the CPU takes the same sources and the same launches.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from multitok.codebook.native import NotFiniteError
from multitok.errors import MissingExtraError, ShapeError

# Shared memory that a launch may ask for without saying so beforehand.
PLAIN_SHARED_BYTES = 48 * 1024
LARGEST_GRID = (2**31 - 1, 65535)
SMALLEST_CAPABILITY = (7, 5)
TENSOR_CORE_CAPABILITY = (8, 0)
SMALL_DIMS = range(1, 17)
VALUE_NAMES = {torch.float32: "float", torch.float64: "double"}
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NONE_BAD = 2**63 - 1
# Warps along the vectors, warps along the codes, whether the vectors stay in shared memory: see cuda/nearest_mma.cu.
MMA_TILES = ((4, 2, True), (2, 2, True), (2, 2, False), (2, 1, False), (4, 2, False))


def mma_kernel(tile: tuple[int, int, bool]) -> str:
    """Name of the tensor-core kernel with this tile."""
    rows, codes, resident = tile
    return f"nearest_mma<{rows}, {codes}, {str(resident).lower()}>"


def _groups() -> dict[str, list[tuple[str, ...]]]:
    operands = ("float", "bfloat16_bits")
    return {
        "prepare.cu": [
            (
                f"measure_codes<{value}>",
                *(
                    f"{name}<{value}, {operand}>"
                    for name in ("prepare_codes", "prepare_vectors")
                    for operand in operands
                ),
            )
            for value in ("float", "double")
        ],
        "decide.cu": [(f"decide<{value}>",) for value in ("float", "double")],
        "nearest_mma.cu": [(mma_kernel(tile),) for tile in MMA_TILES],
        "nearest_f32.cu": [("nearest_f32",)],
        "nearest_small.cu": [(f"nearest_small<{dim}>",) for dim in SMALL_DIMS],
        "segment_sums.cu": [(f"segment_sums<{value}>",) for value in ("float", "double")],
    }


# Every kernel there is: file, then the kernels that are compiled together.
KERNELS = _groups()
_PLACES = {name: (file, group) for file, groups in KERNELS.items() for group in groups for name in group}


class Device(Protocol):
    """Where kernels run.

    `capability`: compute capability. `multiprocessors`: how many blocks work at once, at least. `shared_bytes`: the
    most shared memory a block may have.
    """

    capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int

    def module(self, code: str, names: Sequence[str]) -> Any:
        """`code`, compiled, with the kernels `names`: what `cupy.RawModule` gives."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Within it, this device is the current one, and launches go to torch's current stream."""
        ...


class CupyDevice:
    """A CUDA device, by CuPy.

    Args:
        index: Its number, as torch counts.
    """

    def __init__(self, index: int) -> None:
        import cupy

        self._index = index
        attributes = cupy.cuda.Device(index).attributes
        self.capability = (attributes["ComputeCapabilityMajor"], attributes["ComputeCapabilityMinor"])
        self.multiprocessors = attributes["MultiProcessorCount"]
        self.shared_bytes = attributes["MaxSharedMemoryPerBlockOptin"]

    def module(self, code: str, names: Sequence[str]) -> Any:
        """As `Device.module`."""
        import cupy

        module = cupy.RawModule(code=code, options=("-std=c++17",), name_expressions=tuple(names))
        module.compile()
        return module

    @contextmanager
    def current(self) -> Iterator[None]:
        """As `Device.current`."""
        import cupy

        with torch.cuda.device(self._index), cupy.cuda.Device(self._index):
            stream = torch.cuda.current_stream()
            if hasattr(stream, "__cuda_stream__"):
                current = cupy.cuda.Stream.from_external(stream)
            else:  # an older torch
                current = cupy.cuda.ExternalStream(stream.cuda_stream, self._index)
            with current:
                yield


class Kernels:
    """The kernels of `cuda/` on one device.

    Args:
        device: Where they run.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def launch(
        self, name: str, grid: tuple[int, ...], threads: int, arguments: Sequence[Any], *, shared_bytes: int = 0
    ) -> None:
        """Starts a kernel on torch's current stream.

        Args:
            name: One of those in `KERNELS`.
            grid: Blocks along x, and along y where given.
            threads: Of a block.
            arguments: Tensors, None for a null pointer, and NumPy numbers of exactly the width the kernel declares.
            shared_bytes: Dynamic shared memory of a block.

        Raises:
            ShapeError: More blocks than CUDA can start; cut the input.
        """
        if any(blocks > most for blocks, most in zip(grid, LARGEST_GRID, strict=False)):
            raise ShapeError(
                f"{name} needs {grid} blocks, CUDA starts at most {LARGEST_GRID}: give fewer vectors at once"
            )
        with self.device.current():
            function = self._function(name)
            if shared_bytes > max(PLAIN_SHARED_BYTES, function.max_dynamic_shared_size_bytes):
                function.max_dynamic_shared_size_bytes = shared_bytes
            function(grid, (threads,), tuple(_raw(argument) for argument in arguments), shared_mem=shared_bytes)

    def _function(self, name: str) -> Any:
        with self._lock:
            if name not in self._functions:
                file, group = _PLACES[name]
                module = self.device.module(source(file), group)
                self._functions |= {member: module.get_function(member) for member in group}
            return self._functions[name]


def _raw(argument: Any) -> Any:
    """An argument as CuPy takes it. Python's own numbers are refused: CuPy would pass all of them as 8 bytes."""
    if argument is None:
        return 0
    if isinstance(argument, np.generic):
        return argument
    return argument.data_ptr()


@functools.cache
def source(file: str) -> str:
    """The text of a file in `cuda/` with the files it includes put in, so that it is compiled from a string."""
    included: set[str] = set()

    def expand(name: str) -> Iterator[str]:
        for number, line in enumerate((_folder() / name).read_text(encoding="utf-8").splitlines(), 1):
            wanted = line.removeprefix('#include "').rstrip('"') if line.startswith('#include "') else None
            if wanted is None or not (_folder() / wanted).is_file():
                yield line
            elif wanted not in included:
                included.add(wanted)
                yield f'#line 1 "{wanted}"'
                yield from expand(wanted)
                yield f'#line {number + 1} "{name}"'

    return "\n".join([f'#line 1 "{file}"', *expand(file), ""])


def _folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    # Inside the wheel the folder lies in the package, in the repository beside it.
    return next(folder for folder in (package / "cuda", package.parent / "cuda") if folder.is_dir())


@functools.cache
def kernels_of(index: int) -> Kernels:
    """The kernels on CUDA device `index`, the same object at every call."""
    return Kernels(CupyDevice(index))


@functools.cache
def available() -> str | None:
    """None where the kernels can run, else the reason why not and what to do."""
    version = torch.version.cuda
    if version is None:
        return "this torch is built without CUDA: install a CUDA build, see pytorch.org"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device: check the driver with nvidia-smi"
    extra = f"cuda{12 if version.startswith('12.') else 13}"
    remedy = f"pip install 'multitok[{extra}]'"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported ({error}): {remedy}"
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        return f"NVRTC, CUDA's compiler for CuPy, cannot be loaded ({error}): {remedy}"
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy cannot reach the driver ({error}): update the driver, or {remedy}"
    capability = min(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    if capability < SMALLEST_CAPABILITY:
        return f"a device has compute capability {capability[0]}.{capability[1]}, 7.5 is needed: hide it from torch"
    return None


def kernels_for(tensor: torch.Tensor) -> Kernels:
    """The kernels on the device of `tensor`.

    Raises:
        ShapeError: It is not on a CUDA device.
        MissingExtraError: The kernels cannot run here; says why and what to install.
    """
    if tensor.device.type != "cuda":
        raise ShapeError(f"a tensor on {tensor.device}: the CUDA kernels take CUDA tensors")
    reason = available()
    if reason is not None:
        raise MissingExtraError(f"the CUDA kernels cannot run: {reason}")
    return kernels_of(tensor.device.index)


def check_matrix(name: str, tensor: torch.Tensor) -> None:
    """Refuses what is no float matrix."""
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2 or tensor.dtype not in DTYPES:
        given = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise ShapeError(
            f"{name} given as {given}: give a float16, bfloat16, float32 or float64 tensor of 2 dimensions"
        )


def readable(tensor: torch.Tensor, *, double: bool = False) -> torch.Tensor:
    """The same numbers in a dtype and layout that kernels read: float32 or float64, the values of a row contiguous."""
    tensor = tensor.to(torch.float64 if double or tensor.dtype == torch.float64 else torch.float32).resolve_neg()
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def blocks_of(vectors: torch.Tensor, rows: int, double: bool) -> Iterator[tuple[int, torch.Tensor]]:
    """Number of the first vector, and `rows` vectors made readable, until all have come."""
    for start in range(0, len(vectors), rows):
        yield start, readable(vectors[start : start + rows], double=double)


def flag(tensor: torch.Tensor) -> torch.Tensor:
    """A number on the tensor's device that kernels lower to the first row they have to refuse."""
    return torch.full((1,), NONE_BAD, dtype=torch.int64, device=tensor.device)


def raise_if_bad(bad_row: torch.Tensor) -> None:
    """Waits for the device and raises `NotFiniteError` where a kernel lowered the flag."""
    row = int(bad_row.item())
    if row != NONE_BAD:
        raise NotFiniteError(row)
