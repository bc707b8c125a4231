"""One shape for every backend: which one searches, and blocks of rows in, codes and distances out.

    native   the C++ library (multitok.codebook.native): CPU
    cuda     CUDA kernels (multitok.codebook.cuda_backend): CUDA tensors
    torch    plain torch (multitok.codebook.torch_backend): wherever one of the others is missing

"auto" takes native or cuda for where the codebook lies, and torch where that cannot be used, which it says once.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from multitok.codebook import native
from multitok.codebook.inputs import Array, as_tensor, device_name, dtype_name
from multitok.errors import MissingExtraError, ShapeError, SpecError

if TYPE_CHECKING:
    import torch

METRICS = ("l2", "cosine", "dot")
BACKENDS = ("auto", "native", "cuda", "torch")

_told: set[str] = set()


class Engine(Protocol):
    """A codebook prepared by one backend."""

    name: str
    # Whether NumPy blocks have to be writable, although nothing is written to them.
    needs_writable: bool

    def search(
        self, rows: Array, dtype: str, nearest: int, distances: bool, threads: int | None
    ) -> tuple[Any, Any | None]:
        """Codes and distances [n, nearest] of rows [n, D], in the rows' own kind of array.

        Codes are int32 for NumPy and int64 for torch; distances float64, those of "cosine" not divided by |x|.

        Args:
            rows: As `inputs.blocks` gives them.
            dtype: Their dtype's name.
            nearest: k.
            distances: Whether to return them.
            threads: As for `native.thread_count`.
        """
        ...


class NativeEngine:
    """The C++ library.

    Args:
        values: [V, D] in C order.
        metric: One of `METRICS`.
    """

    name = "native"
    needs_writable = False

    def __init__(self, values: Array, metric: str) -> None:
        dtype = dtype_name(values)
        assert dtype is not None
        pointer = values.ctypes.data if isinstance(values, np.ndarray) else values.data_ptr()
        size, dim = values.shape
        self._book = native.NativeCodebook(native.Matrix(pointer, dtype, size, dim, dim), metric=metric)

    def search(
        self, rows: Array, dtype: str, nearest: int, distances: bool, threads: int | None
    ) -> tuple[Any, Any | None]:
        """As `Engine.search`."""
        count, dim = rows.shape
        if isinstance(rows, np.ndarray):
            stride = rows.strides[0] // rows.itemsize if count > 1 else dim
            codes = np.empty((count, nearest), np.int32)
            found = np.empty((count, nearest)) if distances else None
            self._book.search(
                native.Matrix(rows.ctypes.data, dtype, count, dim, stride), nearest=nearest, codes=codes.ctypes.data,
                distances=None if found is None else found.ctypes.data, threads=threads,
            )  # fmt: skip
            return codes, found
        import torch

        out = torch.empty((count, nearest), dtype=torch.int32, device="cpu")
        ranks = torch.empty((count, nearest), dtype=torch.float64, device="cpu") if distances else None
        self._book.search(
            native.Matrix(rows.data_ptr(), dtype, count, dim, rows.stride(0) if count > 1 else dim),
            nearest=nearest, codes=out.data_ptr(),
            distances=None if ranks is None else ranks.data_ptr(), threads=threads,
        )  # fmt: skip
        return out.long(), ranks


class TorchEngine:
    """Plain torch, on the device of the codebook.

    Args:
        values: [V, D] in C order.
        metric: One of `METRICS`.
    """

    name = "torch"
    needs_writable = True

    def __init__(self, values: Array, metric: str) -> None:
        from multitok.codebook.torch_backend import TorchCodebook

        self._book = TorchCodebook(as_tensor(values), metric)

    def search(
        self, rows: Array, dtype: str, nearest: int, distances: bool, threads: int | None
    ) -> tuple[Any, Any | None]:
        """As `Engine.search`; torch has its own setting of threads."""
        codes, ranks = self._book.search(as_tensor(rows), nearest, distances=distances)
        if isinstance(rows, np.ndarray):
            return codes.numpy().astype(np.int32), None if ranks is None else ranks.numpy()
        return codes, ranks


class CudaEngine:
    """CUDA kernels, on the device of the codebook.

    Args:
        values: [V, D] in C order, a CUDA tensor.
        metric: One of `METRICS`.
    """

    name = "cuda"
    needs_writable = False

    def __init__(self, values: torch.Tensor, metric: str) -> None:
        from multitok.codebook.cuda_backend import CudaCodebook

        self._book = CudaCodebook(values, metric)

    def search(
        self, rows: Array, dtype: str, nearest: int, distances: bool, threads: int | None
    ) -> tuple[Any, Any | None]:
        """As `Engine.search`; threads mean nothing here."""
        return self._book.search(as_tensor(rows), nearest, distances=distances)


def make_engine(values: Array, metric: str, backend: str) -> Engine:
    """The codebook `values`, prepared by `backend`.

    Args:
        values: [V, D] in C order, checked.
        metric: One of `METRICS`.
        backend: One of `BACKENDS`.

    Raises:
        SpecError: The metric or the backend is unknown.
        ShapeError: The backend does not search where the codebook lies.
        MissingExtraError: The backend cannot be used here; says what to install.
        native.NotFiniteError: A code is not finite.
    """
    if metric not in METRICS:
        raise SpecError(f"metric={metric!r}: allowed are {', '.join(METRICS)}")
    if backend not in BACKENDS:
        raise SpecError(f"backend={backend!r}: allowed are {', '.join(BACKENDS)}")
    device = device_name(values)
    if backend == "torch":
        return TorchEngine(values, metric)
    fitting = "native" if device == "cpu" else "cuda" if device.startswith("cuda") else None
    if backend not in ("auto", fitting):
        raise ShapeError(
            f"backend={backend!r} searches {'CPU arrays and tensors' if backend == 'native' else 'CUDA tensors'}, the "
            f"codebook lies on {device}: move it, or give backend='auto'"
        )
    if fitting is None:
        return TorchEngine(values, metric)
    reason = native.available() if fitting == "native" else _cuda_is_missing()
    if reason is None:
        return NativeEngine(values, metric) if fitting == "native" else CudaEngine(as_tensor(values), metric)
    if backend != "auto":
        raise MissingExtraError(f"backend={backend!r} cannot be used: {reason}; backend='torch' searches without it")
    if fitting not in _told:
        _told.add(fitting)
        warnings.warn(
            f"codebook search falls back to plain torch, which finds the same codes but is slower, because the "
            f"{fitting} backend cannot be used: {reason}",
            RuntimeWarning,
            stacklevel=_frames_of_ours(),
        )
    return TorchEngine(values, metric)


def _frames_of_ours() -> int:
    """The `stacklevel` at which a warning of `make_engine` names the line that called into this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("multitok."):
        frame, level = frame.f_back, level + 1
    return level


def _cuda_is_missing() -> str | None:
    """None where the CUDA kernels can run, else why not."""
    # Not loaded before a CUDA tensor comes.
    from multitok.codebook import cuda_backend

    return cuda_backend.available()
