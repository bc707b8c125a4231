"""`Codebook`: a codebook prepared once for many searches. N vectors, V codes, D dimensions.

Memory of a `Codebook`: the values, and what the backend prepares of them. A search allocates its results, a block of
at most 4 MiB where the layout of the vectors cannot be searched as it is, and the working memory of the backend, which
does not grow with N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from multitok.codebook import inputs
from multitok.codebook.engines import make_engine
from multitok.codebook.inputs import Array
from multitok.codebook.native import MAX_NEAREST, NotFiniteError
from multitok.errors import ShapeError, SpecError


class Nearest(NamedTuple):
    """What a search found; [...] is the shape of the vectors without D, and with k codes asked for [..., k].

    Args:
        codes: [...] int32 (NumPy) or int64 (torch), nearest first.
        distances: [...] float64: the squared distance (l2), 1 - cosine, or -dot product; None where not asked for.
        quantized: [..., D] code vectors in the codebook's dtype; None where not asked for.
    """

    codes: Any
    distances: Any
    quantized: Any


class Codebook:
    """A codebook [V, D], prepared for search; immutable, and safe to search from several threads.

    Searched vectors may be NumPy arrays or torch tensors, whatever the codebook was made of, as long as both lie on
    one device. It can be pickled: the values, the metric and the wanted backend travel, the rest is prepared anew.

    Args:
        values: [V, D] float16, bfloat16, float32 or float64, finite; copied.
        metric: "l2" ranks codes by squared distance, "dot" by the largest dot product, "cosine" by the angle.
        backend: "auto" takes the fastest for where `values` lies; "native", "cuda" or "torch" take that one.

    Raises:
        ShapeError: Not [V, D] of such a dtype, empty, or on a device that the backend does not search.
        InputError: A value is NaN or infinite; the message names its row.
        SpecError: The metric or the backend is unknown.
        MissingExtraError: The backend named cannot be used here.

    Source:
        van den Oord et al. 2017, "Neural Discrete Representation Learning", eq. 1.
    """

    def __init__(self, values: Array, *, metric: str = "l2", backend: str = "auto") -> None:
        inputs.check("codebook", values, "[V, D]")
        self._set_up(inputs.own_copy(values), metric, backend)

    @classmethod
    def borrow(cls, values: Array, *, metric: str, backend: str) -> Codebook:
        """A codebook for one search: copied only where its layout cannot be searched.

        Args:
            values: As for `Codebook`; must not change while this is in use.
            metric: As for `Codebook`.
            backend: As for `Codebook`.
        """
        inputs.check("codebook", values, "[V, D]")
        self = cls.__new__(cls)
        as_given = inputs.in_c_order(values, writable=True)
        self._set_up(inputs.detached(values) if as_given else inputs.own_copy(values), metric, backend)
        return self

    def _set_up(self, values: Any, metric: str, backend: str) -> None:
        self._size, self._dim = (int(length) for length in values.shape)
        if self._size == 0 or self._dim == 0:
            raise ShapeError(
                f"codebook of shape {list(values.shape)}: give at least one code of at least one dimension"
            )
        self._values, self._metric, self._wanted = values, metric, backend
        self._device = inputs.device_name(values)
        try:
            self._engine = make_engine(values, metric, backend)
        except NotFiniteError as error:
            raise inputs.not_finite("codebook", values, error.row) from None
        self._zero: Codebook | None = None

    @property
    def size(self) -> int:
        """V."""
        return self._size

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    @property
    def metric(self) -> str:
        """What ranks the codes: "l2", "cosine" or "dot"."""
        return self._metric

    @property
    def backend(self) -> str:
        """The backend that searches: "native", "cuda" or "torch"."""
        return self._engine.name

    @property
    def values(self) -> Any:
        """The codes [V, D]: a read-only NumPy array, or a copy where they came as a tensor."""
        if not isinstance(self._values, np.ndarray):
            return self._values.clone()
        view = self._values.view()
        view.flags.writeable = False
        return view

    def search(
        self,
        vectors: Array,
        *,
        k: int | None = None,
        distances: bool = False,
        quantized: bool = False,
        threads: int | None = None,
    ) -> Nearest:
        """The nearest code of each vector, or the k nearest, nearest first.

        Distances are evaluated in float64 from the values given, their terms added in the order of D; the smallest
        wins, the lowest index on ties. That fixes every code, so none depends on the backend, the threads or the
        processor. A distance that overflows counts as infinite; vectors and codes of length 0 have cosine 0.

        Args:
            vectors: [..., D] float16, bfloat16, float32 or float64, finite, any memory layout, on the device of the
                codebook; N may be 0.
            k: 1 to min(V, 16) codes for each vector; None gives one, without the axis k.
            distances: Whether to return the distances.
            quantized: Whether to return the code vectors.
            threads: CPU threads of the native backend, the calling one included; None takes torch's setting where
                torch is loaded, else OMP_NUM_THREADS, else all cores.

        Raises:
            ShapeError: Not [..., D] of such a dtype, or on another device than the codebook.
            InputError: A value is NaN or infinite; the message names its row.
            SpecError: `k` or `threads` is out of range.
        """
        nearest = 1 if k is None else self._check_k(k)
        if threads is not None and threads < 1:
            raise SpecError(f"threads={threads}: give at least 1, the calling thread, or None for the default")
        dtype = inputs.check("vectors", vectors, "[..., D]")
        *lead, dim = vectors.shape
        if dim != self._dim:
            raise ShapeError(f"vectors have D = {dim}, the codebook has D = {self._dim}: both must be equal")
        device = inputs.device_name(vectors)
        if device != self._device:
            raise ShapeError(f"vectors are on {device}, the codebook is on {self._device}: move one to the other")
        vectors = inputs.detached(vectors)

        codes, found = self._search(vectors, dtype, math.prod(lead), nearest, distances, threads)
        if found is not None and self._metric == "cosine":
            self._report_cosine(vectors, dtype, found, threads)
        shape = lead if k is None else [*lead, nearest]
        codes = codes.reshape(shape)
        return Nearest(
            codes, None if found is None else found.reshape(shape), self._look_up(codes) if quantized else None
        )

    def _search(
        self, vectors: Any, dtype: str, count: int, nearest: int, distances: bool, threads: int | None
    ) -> tuple[Any, Any]:
        """Codes and distances [N, nearest] of vectors [..., D], the latter as the engine ranks them, or None."""
        search, writable = self._engine.search, self._engine.needs_writable
        done = 0
        try:
            whole = inputs.rows_without_copy(vectors, writable=writable) if count else None
            if whole is not None:
                return search(whole, dtype, nearest, distances, threads)
            codes, found = inputs.empty_results(vectors, (count, nearest), distances)
            for rows in inputs.blocks(vectors, writable=writable) if count else ():
                part = slice(done, done + len(rows))
                codes[part], ranks = search(rows, dtype, nearest, distances, threads)
                if found is not None:
                    found[part] = ranks
                done = part.stop
        except NotFiniteError as error:
            raise inputs.not_finite("vectors", vectors, done + error.row) from None
        return codes, found

    def _report_cosine(self, vectors: Any, dtype: str, found: Any, threads: int | None) -> None:
        """Turns -x.c / |c| [N, nearest] into 1 - cosine, in place."""
        if self._zero is None:
            zero = inputs.zeros_like(self._values, (1, self._dim))
            self._zero = Codebook.borrow(zero, metric="l2", backend=self.backend)
        # |x|^2 is the squared distance to the zero vector, whatever the backend.
        lengths = inputs.square_root(self._zero._search(vectors, dtype, len(found), 1, True, threads)[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            found /= lengths
        found += 1
        found[found != found] = math.inf  # infinities of both signs
        found[lengths[:, 0] == 0] = 1

    def _look_up(self, codes: Any) -> Any:
        """Code vectors [..., D] of codes [...], in their kind of array."""
        values = inputs.as_numpy(self._values) if isinstance(codes, np.ndarray) else inputs.as_tensor(self._values)
        return values[codes]

    def _check_k(self, k: int) -> int:
        largest = min(self._size, MAX_NEAREST)
        if not 1 <= k <= largest:
            raise SpecError(f"k={k}: allowed are 1 to {largest}, the smaller of V = {self._size} and {MAX_NEAREST}")
        return k

    def __reduce__(self) -> tuple[Callable[..., Codebook], tuple[Any, str, str]]:
        return _prepared, (self._values, self._metric, self._wanted)

    def __copy__(self) -> Codebook:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Codebook:
        return self

    def __repr__(self) -> str:
        return (
            f"Codebook(size={self.size}, dim={self.dim}, dtype={inputs.dtype_name(self._values)}, "
            f"metric={self.metric!r}, backend={self.backend!r}, device={self._device})"
        )


def _prepared(values: Array, metric: str, backend: str) -> Codebook:
    # Unpickled values belong to nobody else.
    return Codebook.borrow(values, metric=metric, backend=backend)
