"""The public edge of nearest-code search: checks its input, states the contract, calls the engine.

N vectors, V codes, D dimensions. What this does not do: cosine or dot-product search, gradients, top-k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.codebook.certified import search
from multitok.errors import InputError, ShapeError


def nearest_code(vectors: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.int32]:
    """Index of the nearest codebook row for each vector, by squared L2 distance.

    The distance is evaluated in float64 from the float32 values given: the squared differences, added in the
    order of the axis D. The smallest wins, the lowest index on ties. That fixes every index, so none depends
    on how the work is cut up, on the number of threads or on the processor.

    Args:
        vectors: [N, D] float32, finite; N may be 0, any memory layout.
        codebook: [V, D] float32, finite, V >= 1, D >= 1.

    Returns:
        [N] int32 in [0, V).

    Raises:
        ShapeError: An array is not float32 or not 2-D, D differs, or the codebook is empty.
        InputError: A value is NaN or infinite; the message names its row.

    Source:
        van den Oord et al. 2017, "Neural Discrete Representation Learning", eq. 1.
    """
    _check_matrix("vectors", vectors, "[N, D]")
    _check_matrix("codebook", codebook, "[V, D]")
    if codebook.shape[0] == 0 or codebook.shape[1] == 0:
        raise ShapeError(f"codebook of shape {list(codebook.shape)}: give at least one code of at least one dimension")
    if vectors.shape[1] != codebook.shape[1]:
        raise ShapeError(
            f"vectors have D = {vectors.shape[1]}, the codebook has D = {codebook.shape[1]}: both must be equal"
        )
    _check_finite("vectors", vectors)
    _check_finite("codebook", codebook)
    return search(np.ascontiguousarray(vectors), np.ascontiguousarray(codebook))


def _check_matrix(name: str, array: NDArray[Any], shape: str) -> None:
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype != np.float32:
        given = f"{array.dtype} of shape {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ShapeError(f"{name} given as {given}: give a float32 array {shape}")


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise InputError(
            f"{name}[{row}, {column}] is {array[row, column]}: nearest_code takes finite values only; "
            "a NaN or an infinity usually comes from the model or the data in front of it"
        )
