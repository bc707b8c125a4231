"""Nearest-code search by the CUDA kernels in `cuda/`, on tensors of one device.

A search prepares blocks of vectors, proposes candidates by tensor cores or in float32, and decides by the float64
definition; cuda/README.md explains the kernels, `cuda_plan` which of them runs. Float16 and bfloat16 are searched as
the float32 numbers they are. Everything goes to torch's current stream. Only the check that all vectors are finite
waits for the device: once a search, at its end.

N vectors, V codes, D dimensions. Extra memory: that of `cuda_plan`, and a block of vectors where their dtype or layout
is not what kernels read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from multitok.codebook.cuda_launch import (
    VALUE_NAMES,
    Kernels,
    available,
    blocks_of,
    check_matrix,
    flag,
    kernels_for,
    mma_kernel,
    raise_if_bad,
    readable,
)
from multitok.codebook.cuda_levels import FusedLevels
from multitok.codebook.cuda_plan import WORKSPACE_BYTES, Pass, Plan, plan_search, tiles_per_part
from multitok.codebook.cuda_sums import segment_sums
from multitok.codebook.native import METRICS, NotFiniteError
from multitok.errors import InputError, ShapeError, SpecError

__all__ = ["CudaCodebook", "available", "nearest_residual", "segment_sums"]

OPERAND_NAMES = {torch.float32: "float", torch.bfloat16: "bfloat16_bits"}
MAX_NEAREST = 16
MAX_SIZE = 2**31 - 2**10
# Norms outside this range let the definition's float64 overflow or underflow; no bound is claimed then.
SAFE_NORMS = (1e-135, 1e135)
# Values of the codebook looked at together while its mean is taken.
MEAN_VALUES = 2**22


class Operands(NamedTuple):
    """The codebook as a proposing pass reads it, and bounds from above: see cuda/prepare.cu.

    Args:
        codes: [padded V, padded D] bfloat16 or float32.
        half_norms: [padded V] float32.
        bounds: max |b|, max |b^|, max |b - b^|, max h, g, q.
    """

    codes: torch.Tensor
    half_norms: torch.Tensor
    bounds: tuple[float, float, float, float, float, float]


class Lists(NamedTuple):
    """Candidates of padded vectors.

    Args:
        tolerances: [rows] float32.
        scores: [rows, lists, capacity] float32.
        codes: [rows, lists, capacity] int32.
        counts: [rows, lists] int32: how many of them count, or capacity + 1 for a list that overflowed.
    """

    tolerances: torch.Tensor
    scores: torch.Tensor
    codes: torch.Tensor
    counts: torch.Tensor


class Listed(NamedTuple):
    """Some vectors of a block: their numbers [n] int32, of which the first `used` [1] int32 count."""

    rows: torch.Tensor
    used: torch.Tensor


class Results(NamedTuple):
    """Where a search writes; see `CudaCodebook.search`."""

    codes: torch.Tensor
    distances: torch.Tensor | None
    bad_row: torch.Tensor
    statistics: torch.Tensor | None

    def of(self, start: int, count: int) -> Results:
        """Where it writes what it finds for `count` vectors from `start` on."""
        distances = None if self.distances is None else self.distances[start : start + count]
        return self._replace(codes=self.codes[start : start + count], distances=distances)


class CudaCodebook:
    """A codebook prepared for searches on its device; immutable.

    Args:
        values: [V, D] of any float dtype, C order; not copied where float32 or float64.
        metric: "l2", "cosine" or "dot".
        kernels: Where they run; None: on the device of `values`.

    Raises:
        NotFiniteError: A code is not finite.
        ShapeError: Not a float tensor [V, D], or too many codes.
        SpecError: `metric` is unknown.
        MissingExtraError: The kernels cannot run here.
    """

    def __init__(self, values: torch.Tensor, metric: str, *, kernels: Kernels | None = None) -> None:
        check_matrix("codebook", values)
        if 0 in values.shape or values.shape[0] > MAX_SIZE:
            raise ShapeError(
                f"codebook of shape {list(values.shape)}: give 1 to {MAX_SIZE} codes of at least one dimension"
            )
        if metric not in METRICS:
            raise SpecError(f"metric={metric!r}: allowed are {', '.join(METRICS)}")
        self._kernels = kernels or kernels_for(values)
        self._values = readable(values.detach()).contiguous()
        self._metric, (self._size, self._dim) = metric, values.shape
        self._converted: dict[torch.dtype, torch.Tensor] = {}
        self._operands: dict[torch.dtype, Operands] = {}
        self._small: FusedLevels | None = None
        with torch.no_grad():
            self._measure()

    def search(
        self,
        vectors: torch.Tensor,
        k: int,
        *,
        distances: bool = True,
        plan: Plan | None = None,
        statistics: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The k nearest codes, nearest first, the lowest index on ties. Waits for the device once, at the end.

        Args:
            vectors: [N, D] of any float dtype and layout, on the codebook's device.
            k: 1 to min(V, 16).
            distances: Whether to return them.
            plan: None: what `cuda_plan.plan_search` gives.
            statistics: [4] int64, added to: vectors decided in float64, codes compared for them, vectors compared with
                every code, vectors that were given a second look. Not for plans of the small kernel.

        Returns:
            Codes [N, k] int64, and None or the distances by which they are ranked [N, k] float64; for "cosine" these
            are not divided by |x|.

        Raises:
            NotFiniteError: A vector is not finite.
            ShapeError: `vectors` do not fit the codebook.
            SpecError: `k` is not possible.
        """
        check_matrix("vectors", vectors)
        if vectors.shape[1] != self._dim or vectors.device != self._values.device:
            raise ShapeError(
                f"vectors have D = {vectors.shape[1]} on {vectors.device}, the codebook has D = {self._dim} on "
                f"{self._values.device}: both must be equal"
            )
        if not 1 <= k <= min(self._size, MAX_NEAREST):
            most = min(self._size, MAX_NEAREST)
            raise SpecError(f"k={k}: allowed are 1 to {most} for a codebook of {self._size} codes")
        double = torch.float64 in (vectors.dtype, self._values.dtype)
        plan = plan or plan_search(
            self._kernels.device, count=len(vectors), size=self._size, dim=self._dim, nearest=k, metric=self._metric,
            double=double,
        )  # fmt: skip
        results = Results(
            torch.empty((len(vectors), k), dtype=torch.int64, device=vectors.device),
            torch.empty((len(vectors), k), dtype=torch.float64, device=vectors.device) if distances else None,
            flag(vectors),
            statistics,
        )
        with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
            for start, block in blocks_of(vectors.detach(), plan.rows_at_once, double):
                if plan.small:
                    self._search_small(block, start, results.of(start, len(block)))
                else:
                    self._search_block(block, start, plan, results.of(start, len(block)))
        raise_if_bad(results.bad_row)
        return results.codes, results.distances

    def _measure(self) -> None:
        """Centre, norms and scale of the codebook; refuses codes that are not finite."""
        device = self._values.device
        self._centre = torch.zeros(self._dim, dtype=torch.float64, device=device)
        if self._metric == "l2":
            rows = max(MEAN_VALUES // self._dim, 1)
            for start in range(0, self._size, rows):
                self._centre += self._values[start : start + rows].double().sum(0)
            # Any centre will do; one in float32 is subtracted from float32 values with one rounding.
            centre = (self._centre / self._size).float().double()
            self._centre = torch.where(centre.isfinite(), centre, 0.0)
        self._norms = torch.empty(self._size, dtype=torch.float64, device=device)
        spreads = torch.empty_like(self._norms)
        bad_row = flag(self._values)
        self._kernels.launch(
            f"measure_codes<{VALUE_NAMES[self._values.dtype]}>", (-(-self._size // 128),), 128,
            (self._values, np.int32(self._size), np.int32(self._dim), self._centre, self._norms, spreads, bad_row),
        )  # fmt: skip
        raise_if_bad(bad_row)
        ranked = self._norms if self._metric == "cosine" else spreads
        nonzero = torch.where(ranked > 0, ranked, ranked.max())
        smallest, largest = torch.stack([nonzero.min(), ranked.max()]).tolist()
        if self._metric != "cosine":
            smallest = largest  # only the sizes of distances matter, not that of each code
        safe = largest == 0 or (SAFE_NORMS[0] <= smallest and largest <= SAFE_NORMS[1])
        exponent = math.frexp(largest)[1] if safe and self._metric != "cosine" else 0
        self._scale, self._safe = math.ldexp(1.0, -exponent), safe

    def _values_as(self, dtype: torch.dtype) -> torch.Tensor:
        """The codes as the definition reads them beside vectors of this dtype."""
        if dtype not in self._converted:
            self._converted[dtype] = self._values.to(dtype)
        return self._converted[dtype]

    def _operands_for(self, search: Pass) -> Operands:
        operand = torch.float32 if search.tile is None else torch.bfloat16
        if operand not in self._operands:
            self._operands[operand] = self._prepare(search, operand)
        return self._operands[operand]

    def _prepare(self, search: Pass, operand: torch.dtype) -> Operands:
        padded_dim, device = search.padded_dim(self._dim), self._values.device
        padded_size = -(-self._size // 128) * 128  # whole tiles of every pass
        codes = torch.empty((padded_size, padded_dim), dtype=operand, device=device)
        half_norms = torch.empty(padded_size, dtype=torch.float32, device=device)
        bounds = torch.empty((3, self._size), dtype=torch.float64, device=device)
        self._kernels.launch(
            f"prepare_codes<{VALUE_NAMES[self._values.dtype]}, {OPERAND_NAMES[operand]}>", (-(-padded_size // 4),), 128,
            (
                self._values, np.int32(self._size), np.int32(padded_size), np.int32(self._dim), np.int32(padded_dim),
                np.int32(METRICS[self._metric]), self._centre, np.float64(self._scale), self._norms, codes, half_norms,
                bounds,
            ),
        )  # fmt: skip
        norm, rounded, error = bounds.amax(1).tolist() if self._safe else (math.inf,) * 3
        half_norm = norm * norm / 2 if self._metric == "l2" else 0.0
        roundings = 8 * padded_dim + 64 if search.tile else padded_dim + 8
        limits = (norm, rounded, error, half_norm, roundings * 2.0**-24, (2 * self._dim + 8) * 2.0**-52)
        return Operands(codes, half_norms, limits)

    def _search_small(self, block: torch.Tensor, start: int, results: Results) -> None:
        if self._small is None:
            self._small = FusedLevels([self._values], self._kernels)
        self._small.run(block, start, results.codes, results.distances, results.bad_row)

    def _search_block(self, block: torch.Tensor, start: int, plan: Plan, results: Results) -> None:
        """Searches a block of vectors that kernels can read as they lie; `start` is the number of its first one."""
        if plan.second is None:
            self._search_pass(plan.first, block, start, None, None, results)
            return
        again = Listed(
            torch.empty(len(block), dtype=torch.int32, device=block.device),
            torch.zeros(1, dtype=torch.int32, device=block.device),
        )
        self._search_pass(plan.first, block, start, None, again, results)
        self._search_pass(plan.second, block, start, again, None, results)
        if results.statistics is not None:
            results.statistics[3:] += again.used

    def _search_pass(
        self, search: Pass, block: torch.Tensor, start: int, only: Listed | None, again: Listed | None, results: Results
    ) -> None:
        """Searches the block's vectors, or `only` these; lists in `again` those that need another look, where given."""
        lists = self._propose(search, block, start, only, results)
        self._kernels.launch(
            f"decide<{VALUE_NAMES[block.dtype]}>", (-(-len(block) // 4),), 128,
            (
                block, np.int64(block.stride(0)), self._values_as(block.dtype), self._norms, np.int32(self._size),
                np.int32(self._dim), np.int32(METRICS[self._metric]), np.int32(results.codes.shape[1]),
                *(only or (None, None)), np.int32(len(block)), *lists, np.int32(search.lists),
                np.int32(search.capacity), *(again or (None, None)), results.codes, results.distances,
                results.statistics,
            ),
        )  # fmt: skip

    def _propose(self, search: Pass, block: torch.Tensor, start: int, only: Listed | None, results: Results) -> Lists:
        """Candidates of the block's vectors, or `only` of these."""
        operands, device = self._operands_for(search), block.device
        blocks = -(-len(block) // search.rows)
        rows, padded_dim = blocks * search.rows, search.padded_dim(self._dim)
        vectors = torch.empty((rows, padded_dim), dtype=operands.codes.dtype, device=device)
        lists = Lists(
            torch.empty(rows, dtype=torch.float32, device=device),
            torch.empty((rows, search.lists, search.capacity), dtype=torch.float32, device=device),
            torch.empty((rows, search.lists, search.capacity), dtype=torch.int32, device=device),
            torch.empty((rows, search.lists), dtype=torch.int32, device=device),
        )
        self._kernels.launch(
            f"prepare_vectors<{VALUE_NAMES[block.dtype]}, {OPERAND_NAMES[vectors.dtype]}>", (-(-rows // 4),), 128,
            (
                block, np.int64(block.stride(0)), *(only or (None, None)), np.int32(len(block)), np.int32(rows),
                np.int32(self._dim), np.int32(padded_dim), np.int32(METRICS[self._metric]), self._centre,
                np.float64(self._scale), *(np.float64(bound) for bound in operands.bounds), vectors, lists.tolerances,
                np.int64(start), results.bad_row,
            ),
        )  # fmt: skip
        tiles, per_part = tiles_per_part(self._size, search)
        common = (
            operands.codes, operands.half_norms, np.int32(tiles), np.int32(per_part), np.int32(padded_dim),
            np.int32(results.codes.shape[1]), np.int32(search.capacity), lists.scores, lists.codes, lists.counts,
        )  # fmt: skip
        if search.tile is None:
            name, threads = "nearest_f32", 256
            arguments: tuple[Any, ...] = (vectors, lists.tolerances, only.used if only else None, *common)
        else:
            name, threads = mma_kernel(search.tile), 32 * search.tile[0] * search.tile[1]
            arguments = (vectors, lists.tolerances, *common)
        shared_bytes = search.shared_bytes(self._dim)
        self._kernels.launch(name, (blocks, search.parts), threads, arguments, shared_bytes=shared_bytes)
        return lists


def nearest_residual(
    vectors: torch.Tensor, codebooks: Sequence[torch.Tensor], *, kernels: Kernels | None = None
) -> torch.Tensor:
    """Codes of residual quantisation: the nearest in codebook 0, then of what it leaves over in codebook 1, ...

    What is left over is the float32 difference, as in `multitok.quantize.ResidualQuantizer`. For D <= 16 all levels run
    in one kernel; else each is a search of its own. Waits for the device.

    Args:
        vectors: [N, D] float16, bfloat16 or float32, of any layout.
        codebooks: Of each level [V_k, D] of these dtypes; the V_k may differ.
        kernels: Where they run; None: on the device of `vectors`.

    Returns:
        [N, K] int64, on the device of `vectors`.

    Raises:
        NotFiniteError: A vector is not finite, or what its codes leave over overflows.
        InputError: A code is not finite; the message names its codebook and row.
        ShapeError: Shapes, dtypes or devices do not fit.
        MissingExtraError: The kernels cannot run here.
    """
    check_matrix("vectors", vectors)
    for k, codebook in enumerate(codebooks):
        check_matrix(f"codebook {k}", codebook)
        if codebook.shape[1] != vectors.shape[1] or codebook.device != vectors.device or 0 in codebook.shape:
            raise ShapeError(
                f"codebook {k} is {list(codebook.shape)} on {codebook.device}: give codes of D = {vectors.shape[1]} on "
                f"{vectors.device}"
            )
    if not codebooks or torch.float64 in {vectors.dtype, *(codebook.dtype for codebook in codebooks)}:
        raise ShapeError("residual levels are of float32: give at least one codebook and no float64 values")
    kernels = kernels or kernels_for(vectors)
    books = [readable(codebook.detach()).contiguous() for codebook in codebooks]
    finite = torch.stack([book.isfinite().all() for book in books])
    if not finite.all():
        level = int(finite.logical_not().nonzero()[0, 0])
        row = int(books[level].isfinite().all(1).logical_not().nonzero()[0, 0])
        raise InputError(f"codebook {level}, row {row} holds a NaN or an infinity: its training failed")
    codes = torch.empty((len(vectors), len(codebooks)), dtype=torch.int64, device=vectors.device)
    rows = max(WORKSPACE_BYTES // (8 * vectors.shape[1]), 1)
    with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
        if FusedLevels.fits(vectors.shape[1]):
            bad_row = flag(vectors)
            levels = FusedLevels(books, kernels)
            for start, block in blocks_of(vectors.detach(), rows, double=False):
                levels.run(block, start, codes[start : start + len(block)], None, bad_row)
            raise_if_bad(bad_row)
            return codes
        searches = [CudaCodebook(book, "l2", kernels=kernels) for book in books]
        for start, block in blocks_of(vectors.detach(), rows, double=False):
            left = block
            for k, search in enumerate(searches):
                try:
                    found, _ = search.search(left, 1, distances=False)
                except NotFiniteError as error:
                    raise NotFiniteError(start + error.row) from None
                codes[start : start + len(block), k] = found[:, 0]
                left = left - books[k][found[:, 0]]
    return codes
