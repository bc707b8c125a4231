"""NVIDIA's run-time compiler, called without a driver: what CuPy does before it loads a module."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FOLDERS_BESIDE_A_TOOLKIT = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib")


def _folders() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    packages = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    wheels = [folder for package in packages for folder in sorted(package.glob("*/lib"), reverse=True)]
    return [*wheels, *map(Path, _FOLDERS_BESIDE_A_TOOLKIT)]


@functools.cache
def library() -> Any:
    """NVRTC, of a wheel (torch brings one) or of a toolkit; None where there is none."""
    for folder in _folders():
        found = sorted(path for path in folder.glob("libnvrtc.so.*") if ".alt" not in path.name)
        builtins = sorted(path for path in folder.glob("libnvrtc-builtins.so.*") if ".alt" not in path.name)
        if found and builtins:
            ctypes.CDLL(str(builtins[-1]), mode=ctypes.RTLD_GLOBAL)  # NVRTC looks for it by name
            return ctypes.CDLL(str(found[-1]))
    return None


def architectures() -> list[int]:
    """What it compiles for: 80 for compute_80."""
    count = ctypes.c_int()
    library().nvrtcGetNumSupportedArchs(ctypes.byref(count))
    numbers = (ctypes.c_int * count.value)()
    library().nvrtcGetSupportedArchs(numbers)
    return list(numbers)


def compile_source(code: str, name_expressions: Sequence[str], options: Sequence[str]) -> tuple[bool, str, str]:
    """Whether it compiles, the compiler's log, and the PTX where the architecture is a compute_ one."""
    lib, program = library(), ctypes.c_void_p()
    assert lib.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        for name in name_expressions:
            assert lib.nvrtcAddNameExpression(program, name.encode()) == 0
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = lib.nvrtcCompileProgram(program, len(options), given)
        log = _text(lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog, program)
        ptx = "" if failed else _text(lib.nvrtcGetPTXSize, lib.nvrtcGetPTX, program)
        return not failed, log, ptx
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def _text(size_of: Any, text_of: Any, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    assert size_of(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(max(1, size.value))
    assert text_of(program, text) == 0
    return text.value.decode(errors="replace")
