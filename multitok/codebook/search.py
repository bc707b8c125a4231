"""`nearest_code`: codes of vectors in one call. N vectors, V codes, D dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from multitok.codebook.codebook import Codebook
from multitok.codebook.inputs import Array, is_compiling, is_tensor
from multitok.errors import SpecError

if TYPE_CHECKING:
    import torch


@overload
def nearest_code(
    vectors: NDArray[Any],
    codebook: Array | Codebook,
    *,
    metric: str = "l2",
    backend: str = "auto",
    threads: int | None = None,
) -> NDArray[np.int32]: ...


@overload
def nearest_code(
    vectors: torch.Tensor,
    codebook: Array | Codebook,
    *,
    metric: str = "l2",
    backend: str = "auto",
    threads: int | None = None,
) -> torch.Tensor: ...


def nearest_code(
    vectors: Array,
    codebook: Array | Codebook,
    *,
    metric: str = "l2",
    backend: str = "auto",
    threads: int | None = None,
) -> Array:
    """Index of the nearest codebook row for each vector.

    An array or a tensor is prepared anew in each call, since it may have changed since the last one; for many searches
    of one codebook make a `Codebook`. `Codebook.search` says how codes are defined, and gives distances and more.

    Args:
        vectors: [..., D] float16, bfloat16, float32 or float64, finite, any memory layout; N may be 0.
        codebook: [V, D] likewise, V >= 1, D >= 1, on the device of `vectors`; or a `Codebook`.
        metric: "l2", "cosine" or "dot"; a `Codebook` brings its own.
        backend: "auto", "native", "cuda" or "torch"; a `Codebook` brings its own.
        threads: CPU threads of the native backend; None takes the default.

    Returns:
        [...] in [0, V): int32 for NumPy vectors, int64 on the same device for torch vectors.

    Raises:
        ShapeError: An array is of another dtype or rank, D differs, the codebook is empty, or devices differ.
        InputError: A value is NaN or infinite; the message names its row.
        SpecError: The metric, the backend or `threads` cannot be, or contradicts the `Codebook`.
        MissingExtraError: The backend named cannot be used here.

    Source:
        van den Oord et al. 2017, "Neural Discrete Representation Learning", eq. 1.
    """
    if is_compiling() and is_tensor(vectors) and not isinstance(codebook, Codebook):
        from multitok.codebook import torch_ops

        # An operator, which torch.compile and torch.export keep whole.
        traced: Array = torch_ops.nearest_code(vectors, codebook, metric, backend)
        return traced
    if not isinstance(codebook, Codebook):
        codebook = Codebook.borrow(codebook, metric=metric, backend=backend)
    elif metric not in ("l2", codebook.metric) or backend not in ("auto", codebook.backend):
        raise SpecError(
            f"metric={metric!r}, backend={backend!r} contradict {codebook!r}: leave them out, or prepare another"
        )
    codes: Array = codebook.search(vectors, threads=threads).codes
    return codes
