"""What the codebook search takes: NumPy arrays and torch tensors of any float dtype, layout and leading shape.

Nothing here imports torch: who hands in a tensor has loaded it.

Rows are what a search reads: a matrix [N, D] whose rows lie at one distance from each other, each row contiguous.
Where the given array is that already, or a view of it is, nothing is copied. Otherwise it is copied block by block:

    [..., D] any strides  ->  blocks of whole rows of at most `COPIED_BYTES`  ->  search  ->  codes of the block

so the extra memory is one block, or one row where a row is larger. N vectors, D dimensions.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MissingExtraError, ShapeError

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "NDArray[Any] | torch.Tensor"

DTYPE_NAMES = ("float16", "bfloat16", "float32", "float64")
# Bytes of a block that is copied because its layout cannot be searched.
COPIED_BYTES = 2**22
DEVICES_WITHOUT_FLOAT64 = ("meta", "mps")

_NUMPY_DTYPES = {np.dtype(name): name for name in DTYPE_NAMES if name != "bfloat16"}


def is_tensor(array: object) -> bool:
    """Whether this is a torch tensor.

    Args:
        array: Anything.
    """
    # getattr: another thread may be in the middle of importing torch.
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(array, tensor)


def is_compiling() -> bool:
    """Whether torch is tracing this call for `torch.compile` or `torch.export`."""
    compiler = getattr(sys.modules.get("torch"), "compiler", None)
    return compiler is not None and compiler.is_compiling()


def dtype_name(array: Array) -> str | None:
    """The dtype's name where it can be searched, else None.

    Args:
        array: A NumPy array, bfloat16 of ml_dtypes included, or a torch tensor.
    """
    if isinstance(array, np.ndarray):
        known = _NUMPY_DTYPES.get(array.dtype)
        # Byte-swapped floats, and bfloat16, which NumPy itself does not have.
        return known or (array.dtype.name if array.dtype.name in DTYPE_NAMES else None)
    return _tensor_dtypes().get(array.dtype)


def check(name: str, array: object, shape: str) -> str:
    """Refuse what cannot be searched; the dtype's name of what can.

    Args:
        name: What the caller calls it.
        array: What was given.
        shape: Its shape in words: "[V, D]" for exactly two axes, "[..., D]" for at least one.

    Raises:
        ShapeError: Not an array, or of the wrong dtype, rank, layout or device.
    """
    tensor = False
    if not isinstance(array, np.ndarray):
        tensor = is_tensor(array)
        if not tensor:
            raise ShapeError(f"{name} given as {type(array).__name__}: {_advice(name, shape)}")
    given: Any = array
    if tensor and (not _is_strided(given) or given.device.type in DEVICES_WITHOUT_FLOAT64):
        raise ShapeError(
            f"{name} given as a {given.layout} tensor on {given.device}: give a dense tensor on a device that has "
            "float64, such as the CPU or CUDA"
        )
    dtype = dtype_name(given)
    if dtype is None or (given.ndim != 2 if shape == "[V, D]" else given.ndim < 1):
        raise ShapeError(f"{name} given as {given.dtype} of shape {list(given.shape)}: {_advice(name, shape)}")
    return dtype


def _advice(name: str, shape: str) -> str:
    return f"give {name} as a NumPy array or a torch tensor {shape} of float16, bfloat16, float32 or float64"


def _is_strided(tensor: torch.Tensor) -> bool:
    import torch

    return tensor.layout == torch.strided


def device_name(array: Array) -> str:
    """Where the values lie, "cpu" for NumPy.

    Args:
        array: An array or a tensor.
    """
    return "cpu" if isinstance(array, np.ndarray) else str(array.device)


def in_c_order(array: Array, *, writable: bool = False) -> bool:
    """Whether the values lie one after the other, aligned, as the processor reads them.

    Args:
        array: As `check` passed it.
        writable: Whether a NumPy array has to be writable too.
    """
    if isinstance(array, np.ndarray):
        flags = array.flags
        return flags.c_contiguous and flags.aligned and array.dtype.isnative and (flags.writeable or not writable)
    return array.is_contiguous() and not array.is_neg()


def rows_without_copy(array: Array, *, writable: bool = False) -> Array | None:
    """`array` [..., D] as rows [N, D] where that takes no copying, else None.

    Args:
        array: As `check` passed it, not empty.
        writable: Whether a NumPy array has to be writable too.
    """
    if in_c_order(array, writable=writable):
        return array if array.ndim == 2 else array.reshape(-1, array.shape[-1])
    if isinstance(array, np.ndarray):
        flags = array.flags
        if not (flags.aligned and array.dtype.isnative and (flags.writeable or not writable)):
            return None
        unit, strides = array.itemsize, array.strides
    else:
        if array.is_neg():  # a view whose sign is applied when read
            return None
        unit, strides = 1, array.stride()
    dim = array.shape[-1]
    distance = _row_distance(array.shape, strides, dim * unit)
    if distance is None or (dim > 1 and strides[-1] != unit) or distance % unit or distance < dim * unit:
        return None
    return array if array.ndim == 2 else array.reshape(-1, dim)


def blocks(array: Array, *, writable: bool = False) -> Iterator[Array]:
    """`array` [..., D] as rows [n, D], in order; copied where needed, `COPIED_BYTES` at a time.

    Args:
        array: As `check` passed it, not empty.
        writable: Whether NumPy blocks have to be writable.
    """
    rows = rows_without_copy(array, writable=writable)
    if rows is not None:
        yield rows
        return
    count = math.prod(array.shape[:-1])
    row_bytes = array.shape[-1] * array.itemsize
    if count == 1 or count * row_bytes <= COPIED_BYTES:
        yield own_copy(array).reshape(-1, array.shape[-1])
        return
    if array.shape[0] == 1:
        yield from blocks(array[0], writable=writable)
        return
    step = max(1, COPIED_BYTES // (count // array.shape[0] * row_bytes))
    for start in range(0, array.shape[0], step):
        yield from blocks(array[start : start + step], writable=writable)


def not_finite(name: str, array: Array, row: int) -> InputError:
    """The error that names a value which is not finite.

    Args:
        name: What the caller calls the array.
        array: [..., D].
        row: Number of the row that holds it, all rows counted in order.
    """
    index = tuple(int(i) for i in np.unravel_index(row, tuple(array.shape[:-1]))) if array.ndim > 1 else ()
    # Only the values of one row, as Python's numbers.
    values = [float(value) for value in array[index]]
    column = next(d for d, value in enumerate(values) if not math.isfinite(value))
    place = ", ".join(str(i) for i in (*index, column))
    return InputError(
        f"{name}[{place}] is {values[column]}: the search takes finite values only; a NaN or an infinity usually "
        "comes from the model or the data in front of it"
    )


def as_tensor(array: Array) -> torch.Tensor:
    """The same memory as a torch tensor.

    Args:
        array: A tensor, or writable rows [N, D] as `blocks` gives them.
    """
    import torch

    if not isinstance(array, np.ndarray):
        return array
    if 1 in array.shape:
        # The step along an axis of length 1 means nothing, and may be one that torch refuses.
        steps = [
            step if length > 1 else array.itemsize for length, step in zip(array.shape, array.strides, strict=True)
        ]
        array = np.lib.stride_tricks.as_strided(array, strides=steps)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_numpy(array: Array) -> NDArray[Any]:
    """The same memory as a NumPy array; a bfloat16 tensor needs ml_dtypes.

    Args:
        array: An array, or a tensor on the CPU.

    Raises:
        MissingExtraError: A bfloat16 tensor, and ml_dtypes is not installed.
    """
    if isinstance(array, np.ndarray):
        return array
    import torch

    if array.dtype != torch.bfloat16:
        return array.numpy()
    try:
        bfloat16 = importlib.import_module("ml_dtypes").bfloat16
    except ImportError:
        raise MissingExtraError(
            "NumPy has no bfloat16 for the quantized vectors of this codebook: `pip install ml_dtypes`, give the "
            "vectors as torch tensors, or the codebook in float32"
        ) from None
    viewed: NDArray[Any] = array.view(torch.int16).numpy().view(bfloat16)
    return viewed


def own_copy(array: Array) -> Array:
    """A copy in C order and native byte order that nobody else holds.

    Args:
        array: As `check` passed it.
    """
    if isinstance(array, np.ndarray):
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", subok=False)
    import torch

    return array.detach().resolve_neg().clone(memory_format=torch.contiguous_format)


def detached(array: Array) -> Array:
    """The same values without gradients, and without what a subclass of NumPy's arrays would make of indices.

    Args:
        array: As `check` passed it.
    """
    return np.asarray(array) if isinstance(array, np.ndarray) else array.detach()


def empty_results(vectors: Array, shape: tuple[int, int], distances: bool) -> tuple[Any, Any]:
    """Room for codes and distances, the latter None where not wanted, in the vectors' kind of array.

    Args:
        vectors: As `check` passed it.
        shape: [N, k].
        distances: Whether they are wanted.
    """
    if isinstance(vectors, np.ndarray):
        return np.empty(shape, np.int32), np.empty(shape) if distances else None
    import torch

    codes = torch.empty(shape, dtype=torch.int64, device=vectors.device)
    return codes, torch.empty(shape, dtype=torch.float64, device=vectors.device) if distances else None


def zeros_like(values: Array, shape: tuple[int, int]) -> Array:
    """Zeros in the kind of array of `values`, on its device.

    Args:
        values: An array or a tensor.
        shape: [V, D].
    """
    return np.zeros(shape, np.float32) if isinstance(values, np.ndarray) else values.new_zeros(shape)


def square_root(values: Any) -> Any:
    """Correctly rounded square roots of float64 values; torch's own are off by one bit now and then on a CPU.

    Args:
        values: Not negative, any shape; an array or a tensor.
    """
    if isinstance(values, np.ndarray):
        return np.sqrt(values)
    return as_tensor(np.sqrt(values.numpy())) if values.device.type == "cpu" else values.sqrt()


def _row_distance(shape: Sequence[int], strides: Sequence[int], row: int) -> int | None:
    """Distance from row to row in the unit of `strides`, `row` for a single one; None where they do not lie evenly."""
    distance = covered = None
    for length, stride in zip(reversed(shape[:-1]), reversed(strides[:-1]), strict=True):
        if length == 1:
            continue
        if distance is None:
            distance = stride
        elif stride != covered:
            return None
        covered = stride * length
    return row if distance is None else distance


@functools.cache
def _tensor_dtypes() -> dict[torch.dtype, str]:
    import torch

    return {getattr(torch, name): name for name in DTYPE_NAMES}
