"""`cupy.RawModule` for the CPU: compiles a .cu source with g++ and shim.h, and runs its kernels on CPU tensors.

Kernels are checked as they run (see shim.h); a fault raises `KernelFault` with the line of the source. The launch is
checked as CuPy and the driver would do it, and more: argument count, widths and kinds, the dtypes behind pointers,
grid and block sizes, shared memory. Addresses come as Python integers, as CuPy takes them; which array an address
belongs to is learned by watching `torch.Tensor.data_ptr` (see `watch_pointers`).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "cuda-shim"
RUNTIME = ("shim.cpp", "shim_warp.cpp", "shim_memory.cpp")
HEADERS = ("shim.h", "shim_runtime.h")
RUNTIME_FLAGS = ("-std=c++17", "-O2", "-g1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra")
# Loads and stores are watched with -fsanitize=thread, arithmetic with the others; contraction is nvcc's default.
KERNEL_FLAGS = (
    *("-std=c++17", "-O1", "-fexpensive-optimizations", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"),
    *("-ftrivial-auto-var-init=pattern", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"),
    "-fsanitize=bounds,alignment,signed-integer-overflow,shift,integer-divide-by-zero",
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-DMULTITOK_HOST_SHIM"),
)
PLAIN_SHARED_BYTES = 48 * 1024


class KernelFault(RuntimeError):
    """A kernel did what its specification forbids."""


class LaunchError(ValueError):
    """A launch that CuPy or the driver would refuse, or that hands a kernel something else than it takes."""


def compiler() -> str | None:
    """g++, or None where there is none."""
    return shutil.which("g++")


class _Parameter(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("bytes", "kind", "writable", "item_bytes", "item_kind"))


class _Array(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("writable", ctypes.c_uint32),
    )


class Counters(ctypes.Structure):
    """What a launch did: memory accesses of all threads, and so on."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("accesses", "switches", "barriers", "mma", "copies", "ldmatrix", "bank_conflicts")
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_void_p),
        ("module", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.POINTER(ctypes.c_uint)),
        ("block", ctypes.POINTER(ctypes.c_uint)),
        ("dynamic_bytes", ctypes.c_uint64),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("arrays", ctypes.POINTER(_Array)),
        ("array_count", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("budget", ctypes.c_uint64),
        ("counters", ctypes.POINTER(Counters)),
        ("message", ctypes.c_char_p),
        ("failed_at", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class Extent:
    """Where a tensor lies: `nbytes` from `address` on."""

    address: int
    nbytes: int
    dtype: torch.dtype


# Tensors whose address was asked for since the last launch, in that order; they live until it is over, as on a device,
# where what is freed is only used again by later launches. And all others, while they live.
_recent: list[tuple[Extent, torch.Tensor]] = []
_used: set[int] = set()
_known: dict[int, tuple[Extent, weakref.ref[torch.Tensor]]] = {}


@contextlib.contextmanager
def watch_pointers() -> Iterator[None]:
    """Within it, every tensor whose `data_ptr()` is asked for is one that kernels may touch."""
    plain = torch.Tensor.data_ptr

    def data_ptr(tensor: torch.Tensor) -> int:
        address = int(plain(tensor))
        if tensor.numel():
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            extent = Extent(address, (last + 1) * tensor.element_size(), tensor.dtype)
            _recent.append((extent, tensor))
            _known[address] = (extent, weakref.ref(tensor))
        return address

    torch.Tensor.data_ptr = data_ptr  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.data_ptr = plain  # type: ignore[method-assign]
        _forget()
        _known.clear()


def _forget() -> None:
    _recent.clear()
    _used.clear()


def _extent_of(address: int) -> Extent | None:
    """The tensor at `address`, the one asked for first where several lie there; each serves one argument."""
    for i, (extent, _) in enumerate(_recent):
        if extent.address == address and i not in _used:
            _used.add(i)
            return extent
    if address in _known:
        extent, tensor = _known[address]
        return None if tensor() is None else extent
    return None


def _run(command: Sequence[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stderr[:8000]}")
    return result.stderr


def _built(name: str, key: str, build: Any) -> Path:
    """BUILD/name-<hash of key>.so, by build(folder, path) where it is not there yet."""
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = BUILD / f"{name}-{digest}.so"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as folder:
            made = Path(folder) / path.name
            path.with_suffix(".log").write_text(build(Path(folder), made))
            made.replace(path)
    return path


def runtime() -> Path:
    """The library that kernels are linked with, compiled where it is not there yet."""
    key = "".join((HERE / name).read_text() for name in (*RUNTIME, *HEADERS)) + " ".join(RUNTIME_FLAGS)
    sources = [str(HERE / name) for name in RUNTIME]
    return _built("runtime", key, lambda _, made: _run(["g++", *RUNTIME_FLAGS, *sources, "-o", str(made)]))


def has_fma() -> bool:
    """Whether this processor has fused multiply-add, without which nothing is contracted."""
    try:
        return " fma " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


@dataclass
class HostFunction:
    """One kernel; called like a `cupy.RawKernel`."""

    module: HostModule
    name: str
    index: int
    max_dynamic_shared_size_bytes: int = PLAIN_SHARED_BYTES
    parameters: list[_Parameter] = field(default_factory=list)

    def __post_init__(self) -> None:
        room = (_Parameter * 64)()
        count = getattr(self.module.library, f"shim_describe_{self.index}")(room, 64)
        self.parameters = list(room)[:count]

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0, stream: Any = None
    ) -> None:
        grid, block = _sizes(grid), _sizes(block)
        self._check_sizes(grid, block, shared_mem)
        if len(args) != len(self.parameters):
            raise LaunchError(f"{self.name}: {len(args)} arguments, the kernel takes {len(self.parameters)}")
        values, arrays = [], []
        for position, (argument, parameter) in enumerate(zip(args, self.parameters, strict=True)):
            try:
                value, extent = _convert(argument, parameter)
            except LaunchError as error:
                raise LaunchError(f"{self.name}: argument {position} {error}") from None
            values.append(value)
            if extent is not None:
                name = f"argument {position} ({str(extent.dtype).removeprefix('torch.')})"
                arrays.append(_Array(name.encode(), extent.address, extent.nbytes, parameter.writable))
        self._check_overlaps(arrays)
        self.module.run(self, grid, block, shared_mem, values, arrays)
        _forget()

    def _check_sizes(self, grid: Sequence[int], block: Sequence[int], shared_mem: int) -> None:
        if min(grid) < 1 or grid[0] >= 2**31 or max(grid[1:]) > 65535:
            raise LaunchError(f"{self.name}: a grid of {tuple(grid)} blocks")
        if min(block) < 1 or block[0] * block[1] * block[2] > 1024 or block[2] > 64:
            raise LaunchError(f"{self.name}: a block of {tuple(block)} threads")
        allowed = min(self.max_dynamic_shared_size_bytes, self.module.shared_bytes)
        if shared_mem > allowed:
            raise LaunchError(f"{self.name}: {shared_mem} bytes of shared memory, {allowed} are allowed")

    def _check_overlaps(self, arrays: Sequence[_Array]) -> None:
        for one in arrays:
            for other in arrays:
                apart = one.address + one.bytes <= other.address or other.address + other.bytes <= one.address
                if one is not other and one.writable and not apart:
                    raise LaunchError(
                        f"{self.name}: {one.name.decode()} is written to and overlaps {other.name.decode()}"
                    )


def _sizes(given: Sequence[int]) -> list[int]:
    return [int(size) for size in given] + [1] * (3 - len(given))


def _convert(argument: Any, parameter: _Parameter) -> tuple[Any, Extent | None]:
    """The argument as CuPy lays it out in memory, and the array it points to."""
    wanted = f"of {parameter.bytes} bytes, kind '{chr(parameter.kind)}'"
    if type(argument) in (bool, float) or not isinstance(argument, (int, np.generic)):
        raise LaunchError(f"is {type(argument).__name__}: addresses are integers, numbers NumPy scalars")
    value = np.array(np.int64(argument) if isinstance(argument, int) else argument)
    kind = {"f": "f", "i": "i", "u": "i", "b": "i"}.get(value.dtype.kind, "?")
    if value.nbytes != parameter.bytes or kind != ("i" if chr(parameter.kind) == "p" else chr(parameter.kind)):
        raise LaunchError(f"is {value.dtype}, the kernel takes one {wanted}")
    if chr(parameter.kind) != "p":
        return value, None
    if int(argument) == 0:
        return value, None
    extent = _extent_of(int(argument))
    if extent is None:
        raise LaunchError(f"is {int(argument):#x}, at which no tensor begins")
    if not _fits(extent.dtype, parameter):
        raise LaunchError(f"points to {extent.dtype}, the kernel takes items of {parameter.item_bytes} bytes")
    return value, extent


def _fits(dtype: torch.dtype, parameter: _Parameter) -> bool:
    kind = chr(parameter.item_kind)
    if parameter.item_bytes == 0 or kind == "s":
        return True
    if kind == "f":
        return dtype.is_floating_point and dtype.itemsize == parameter.item_bytes
    halves = dtype in (torch.float16, torch.bfloat16)  # passed as their bits
    return dtype.itemsize == parameter.item_bytes and (halves or not dtype.is_floating_point)


class HostModule:
    """The kernels of one source.

    Args:
        code: the source, as NVRTC would get it.
        options: as for NVRTC; -I and -D are passed on, and -fmad=false turns contraction off.
        name_expressions: kernels to instantiate; without them those declared extern "C".
        seed: of the schedule; 0 runs threads in order.
        budget: memory accesses after which a launch counts as hung.
        shared_bytes: dynamic shared memory that a block may have.
    """

    def __init__(
        self,
        *,
        code: str,
        options: Sequence[str] = (),
        name_expressions: Sequence[str] | None = None,
        seed: int = 0,
        budget: int = 3_000_000_000,
        shared_bytes: int = PLAIN_SHARED_BYTES,
    ) -> None:
        if compiler() is None:
            pytest.skip("needs g++ to compile the kernels for the CPU")
        self.seed, self.budget, self.shared_bytes = seed, budget, shared_bytes
        self.counters = Counters()
        found = re.findall(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s+)?(\w+)\s*\(', code)
        self.names = list(name_expressions or found)
        tail = [f"SHIM_KERNEL({i}, {name})" for i, name in enumerate(self.names)]
        text = "\n".join([code, *tail, "SHIM_MODULE"])
        self.path = self._build(text, options)
        self.warnings = self.path.with_suffix(".log").read_text()
        self.library = ctypes.CDLL(str(self.path))
        bounds = (ctypes.c_void_p * 3)()
        self.library.shim_module(bounds)
        self._bounds = bounds
        self._functions: dict[str, HostFunction] = {}

    def _build(self, text: str, options: Sequence[str]) -> Path:
        fibers = runtime()
        contract = "off" if any(option.endswith("fmad=false") for option in options) else "fast"
        given = [option for option in options if option.startswith(("-I", "-D"))]
        flags = [
            *KERNEL_FLAGS,
            f"-ffp-contract={contract}",
            *(["-mfma"] if has_fma() else []),
            *given,
            f"-I{HERE}",
            "-include",
            "shim.h",
        ]

        def build(folder: Path, made: Path) -> str:
            source, unlinked = folder / "kernels.cu", folder / "kernels.o"
            source.write_text(text)
            log = _run(["g++", *flags, "-c", "-x", "c++", str(source), "-o", str(unlinked)])
            return log + _run(["g++", "-shared", str(unlinked), "-o", str(made), str(fibers), "-Wl,-rpath,$ORIGIN"])

        included = "".join(
            p.read_text() for o in given if o.startswith("-I") for p in sorted(Path(o[2:]).glob("*.cu*"))
        )
        return _built("kernels", text + " ".join(flags) + included + fibers.name, build)

    def compile(self, log_stream: Any = None) -> None:
        """Does nothing: the kernels are compiled already."""

    def get_function(self, name: str) -> HostFunction:
        """One of `name_expressions`."""
        if name not in self.names:
            raise LaunchError(f"no kernel {name!r}; there are {self.names}")
        if name not in self._functions:
            self._functions[name] = HostFunction(self, name, self.names.index(name))
        return self._functions[name]

    def run(
        self,
        function: HostFunction,
        grid: Sequence[int],
        block: Sequence[int],
        shared_mem: int,
        values: Sequence[Any],
        arrays: Sequence[_Array],
    ) -> None:
        """One launch, to its end."""
        pointers = (ctypes.c_void_p * max(1, len(values)))(*[value.ctypes.data for value in values])
        message = ctypes.create_string_buffer(4096)
        launch = _Launch(
            call=ctypes.cast(getattr(self.library, f"shim_call_{function.index}"), ctypes.c_void_p),
            module=ctypes.cast(self._bounds, ctypes.POINTER(ctypes.c_void_p)),
            grid=(ctypes.c_uint * 3)(*grid),
            block=(ctypes.c_uint * 3)(*block),
            dynamic_bytes=shared_mem,
            arguments=pointers,
            arrays=(_Array * max(1, len(arrays)))(*arrays),
            array_count=len(arrays),
            seed=self.seed,
            budget=self.budget,
            counters=ctypes.pointer(self.counters),
            message=ctypes.cast(message, ctypes.c_char_p),
        )
        self.library.shim_launch(ctypes.byref(launch))
        if message.value:
            where = self._line(launch.failed_at) if launch.failed_at else ""
            raise KernelFault(f"{function.name}: {where}{message.value.decode()}")

    def _line(self, offset: int) -> str:
        """'kernels.cu:12: ' of the call before `offset`, where addr2line is at hand."""
        tool = shutil.which("addr2line")
        if tool is None:
            return ""
        out = _run_out([tool, "-i", "-e", str(self.path), hex(offset - 1)])
        lines = [line.rpartition("/")[2].split(" ")[0] for line in out.splitlines()]
        return " < ".join(line for line in lines if not line.startswith(("?", "shim"))) + ": "


def _run_out(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
