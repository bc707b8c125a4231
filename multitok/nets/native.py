"""Runs the integer stacks of `program.py` by the native library, to the integers that they define.

The library and its threads are those of `multitok.codebook.native`; native/README.md says what is in it. Nothing is
loaded at import, and torch never is. Calls release the GIL and may come from several threads at once.

    MULTITOK_NATIVE=0           switches the native engine off: callers then take the one of torch
    MULTITOK_NATIVE_PATH=name   where a stack has a path of this name, runs every stack by it: tests and benchmarks
"""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import native
from multitok.errors import InputError, ShapeError, SpecError
from multitok.nets.program import INPUT_HIGH, INPUT_LOW, ConvOp, Fold2Op, QuantizeOp, ResidualOp, StackProgram

# The numbers of native/multitok_codebook.h and native/multitok_stacks.h.
_OK, _NOT_FINITE, _OUT_OF_MEMORY, _UNSUPPORTED, _OUT_OF_RANGE = range(5)
_CONV, _QUANTIZE, _FOLD2, _UNFOLD2 = range(4)
_OUTPUTS = {"u8": 0, "s16": 1, "s32": 3}
_S16_ADDED = 2
_MAX_PATHS = 32  # bits of mt_stack_supported_paths


class _Op(ctypes.Structure):
    """mt_stack_op."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("side", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("output", ctypes.c_int32),
        ("weights", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
    )


def available() -> str | None:
    """None where the native engine can be used, else "the reason why not; what to do"."""
    reason = native.available()
    if reason is not None:
        return reason
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def supported_paths() -> list[str]:
    """Names of the paths that run on this processor, in the order of their numbers; needs `available`."""
    bits = _library().mt_stack_supported_paths()
    return [name for name, number in _path_numbers().items() if bits >> number & 1]


def chosen_path(path: str | None = None) -> str:
    """Name of the path that runs a stack; needs `available`.

    Args:
        path: One to take; None: MULTITOK_NATIVE_PATH where a stack has such a path, else the fastest.

    Raises:
        SpecError: The path is unknown or does not run here.
    """
    supported, asked = supported_paths(), os.environ.get("MULTITOK_NATIVE_PATH")
    if path is None:
        path = asked if asked in _path_numbers() else supported[-1]
    if path not in supported:
        raise SpecError(f"path {path!r} is none that runs here; those are: {', '.join(supported)}")
    return path


class NativeStack:
    """A program prepared by the library, which copies the weights. Immutable; needs `available`.

    Args:
        program: What to run.
        path: As for `chosen_path`.

    Raises:
        SpecError: The path is unknown or does not run here.
        MemoryError: The prepared stack does not fit.
    """

    def __init__(self, program: StackProgram, *, path: str | None = None) -> None:
        library = _library()
        self.path = chosen_path(path)
        ops = list(_lowered(program))
        handle = ctypes.c_void_p()
        status = library.mt_stack_new(
            (_Op * len(ops))(*ops), len(ops), _path_numbers()[self.path], ctypes.byref(handle)
        )
        if status == _OUT_OF_MEMORY:
            raise MemoryError("the native library ran out of memory")
        assert status == _OK, status
        self.program = program
        self._handle = handle
        self._call = library.mt_stack_run
        # Not at exit: a daemon thread may still be running it then, and the memory goes with the process.
        weakref.finalize(self, library.mt_stack_free, handle).atexit = False

    def run(self, values: NDArray[np.int16], *, threads: int | None = None) -> NDArray[np.int32]:
        """Run the stack over frames. Each thread's working memory grows with W, not with N or H.

        Args:
            values: [N, H, W, I] int16 in [-1024, 1023].
            threads: As for `multitok.codebook.native.thread_count`.

        Returns:
            [N, H', W', O], see `StackProgram.output_shape`.

        Raises:
            ShapeError: Another shape or dtype.
            InputError: A value out of range.
            MemoryError: The working memory does not fit.
        """
        if values.dtype != np.int16:
            raise ShapeError(f"values of dtype {values.dtype}: give int16")
        shape = self.program.output_shape(values.shape)
        values = np.ascontiguousarray(values)
        output = np.empty(shape, np.int32)
        pool = native.thread_pool(native.thread_count(threads))
        frames, height, width, _ = values.shape
        status = self._call(
            self._handle, pool and pool.handle, values.ctypes.data, frames, height, width, output.ctypes.data
        )
        if status == _OUT_OF_RANGE:
            raise InputError(
                f"values from {values.min()} to {values.max()}: a stack takes {INPUT_LOW} to {INPUT_HIGH}; clip them"
            )
        if status == _OUT_OF_MEMORY:
            raise MemoryError(f"the native library ran out of memory on frames of {height} x {width}")
        assert status == _OK, status
        return output


def _lowered(program: StackProgram) -> Iterator[_Op]:
    """The operations of the library: a residual block is a quantisation and two convolutions."""
    for op in program.ops:
        if isinstance(op, ConvOp):
            yield _conv(op, _OUTPUTS[op.output])
        elif isinstance(op, ResidualOp):
            yield _Op(kind=_QUANTIZE)
            yield _conv(op.first, _OUTPUTS["u8"])
            yield _conv(op.second, _S16_ADDED)
        elif isinstance(op, QuantizeOp):
            yield _Op(kind=_QUANTIZE)
        else:
            yield _Op(kind=_FOLD2 if isinstance(op, Fold2Op) else _UNFOLD2)


def _conv(op: ConvOp, output: int) -> _Op:
    addresses = (array.ctypes.data for array in (op.weights, op.bias, op.scale))
    return _Op(_CONV, op.side, op.inputs, op.outputs, output, *addresses)


@functools.cache
def _path_numbers() -> dict[str, int]:
    names = {number: _library().mt_stack_path_name(number) for number in range(1, _MAX_PATHS)}
    return {name.decode(): number for number, name in names.items() if name is not None}


def _library() -> ctypes.CDLL:
    loaded = _load()
    assert not isinstance(loaded, str), f"ask available() first: {loaded}"
    return loaded


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library with the functions of stacks declared, or why there is none and what to do."""
    library = native.loaded_library()
    i32, i64, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    signatures: dict[str, tuple[type | None, tuple[type, ...]]] = {
        "mt_stack_supported_paths": (ctypes.c_uint32, ()),
        "mt_stack_path_name": (ctypes.c_char_p, (i32,)),
        "mt_stack_new": (i32, (pointer, i64, i32, pointer)),
        "mt_stack_free": (None, (pointer,)),
        "mt_stack_run": (i32, (pointer, pointer, pointer, i64, i64, i64, pointer)),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            return f"{native.library_path()} is older than its source, it runs no stacks; {native.REBUILD}"
        function.restype, function.argtypes = result, arguments
    return library
