"""Nearest-code search in plain torch, on any device with float64: a matrix product proposes, float64 decides.

It stands in where the native library or CuPy is missing, and gives the same codes. N vectors, V codes, D dimensions.

**Scores.** Every metric becomes "the largest score wins". With positive numbers r (one for each vector) and T = t z
(one for the codebook) that bring values near 1, and a typical code m:

    l2       a = r T (x - m)   b = T (c - m)   s = a.b - r |b|^2 / 2  =  (r T^2 / 2) (|x - m|^2 - |x - c|^2)
    dot      a = r x           b = T c         s = a.b
    cosine   a = r x           b = c / |c|     s = a.b                (b = 0 for a code of norm 0)

Scores are one matrix product, of rows [a, r] and [b, -|b|^2 / 2], in a precision of unit roundoff u.

**Bound.** Let A = |a|, B = |b|, H = |b|^2 / 2 (l2) or 0, v = 2^-53 and g(u) = n u / (1 - n u) with n = D + 24. In
whatever order the product adds, with or without fused multiply-add, a score is off by at most

    E = (g(u) + g(v)) (A B + r H) + 8 (D + 1) (smallest normal number + 2^-1074 z)

The product's terms and sums bring D + 1 roundings to the precision; a, b, r and |b|^2 / 2 one each; the arithmetic
in float64 brings D + 3 to |b|^2 / 2, at most D / 2 + 4 to b (cosine) and two to a. What is left of the two times 24
covers the rounding of A and B themselves and of the comparison of scores. The last term of E is what underflow can
add, also on processors that flush small numbers to zero, since |a_d|, r and |b|^2 / 2 D are at most 1, |b_d| at most 4.

**Definition.** The float64 distance that decides is itself rounded. In units of the score it is off by at most

    l2       F = g(v) r (A / r + B)^2 / 2 + r T^2 D 2^-1074
    dot      F = g(v) A B + r T D 2^-1074
    cosine   F = 2 g(v) A B + 2 r D 2^-1074 / min |c|

and by infinity where its squares, sums or norms could overflow, or norms underflow. A code can be among the k
nearest only if its score plus E + F reaches the k-th largest value, over all codes, of score minus E + F. These
candidates, ties included, are compared by the definition, in torch operations that are rounded one by one.

**Stages.** First float32 with the largest B of all codes; then, for vectors left with more than k candidates, float64
with each code's own B. Vectors that no bound covers are compared with every code. Float32 products are skipped where
torch or the environment may compute them in TF32 or bfloat16; those settings are read, never changed.

**Memory** beside the results: the codebook in float32 and float64, and one block of vectors, at most 100 bytes for each
of 2^20 scores (2^24 on a GPU) or of 64 V if that is more. Never [N, V].

Not covered: torch.set_flush_denormal(True), under which processors read denormal inputs as 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import torch

from multitok.codebook.inputs import square_root
from multitok.codebook.native import NotFiniteError

# Scores in a block, and values of pairs (vector, code) compared by the definition at once: CPU, GPU.
BLOCK_ON_CPU, BLOCK_ON_GPU = 2**20, 2**24
# Vectors in a block at least, however many codes there are: with fewer, reading the codebook would cost most.
LEAST_ROWS = 64
# Codes among which the typical one is sought.
CENTRE_SAMPLE = 1024
ROUNDOFF = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
SMALLEST_NORMAL = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}
# n - D of the bound.
EXTRA_ROUNDINGS = 24
# Terms beyond which g(2^-24) says little; float64 takes over.
LARGEST_DIM_IN_FLOAT32 = 2**20
# Lengths outside this range have squares that over- or underflow in float64, sums of up to 2^20 of them included.
SAFE_LENGTHS = (2.0**-480, 2.0**500)
# Settings by which cuBLAS and oneDNN compute float32 products in less, and the values that say they do not.
REDUCING_VARIABLES = (
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
HARMLESS_VALUES = ("", "0", "STRICT")


class _Lifted(NamedTuple):
    """Vectors as scores read them: rows [n, D + 1] (l2) or [n, D], A [n] and r [n], all float64."""

    rows: torch.Tensor
    norm: torch.Tensor
    scale: torch.Tensor

    def take(self, index: torch.Tensor) -> _Lifted:
        return _Lifted(self.rows[index], self.norm[index], self.scale[index])


class TorchCodebook:
    """A codebook prepared for searches on its device; immutable.

    Args:
        values: [V, D] of a float dtype, C order; held, not copied.
        metric: "l2", "cosine" or "dot".

    Raises:
        NotFiniteError: A code is not finite.
    """

    def __init__(self, values: torch.Tensor, metric: str) -> None:
        self._values, self._metric = values.detach(), metric
        self._size, self._dim = values.shape
        self._block = BLOCK_ON_CPU if values.device.type == "cpu" else BLOCK_ON_GPU
        self._weights: dict[torch.dtype, torch.Tensor] = {}
        with torch.no_grad():
            self._prepare()

    def search(
        self, vectors: torch.Tensor, k: int, *, distances: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The k nearest codes of each vector, nearest first, the lowest index on ties.

        Args:
            vectors: [N, D] of a float dtype, any layout, on the codebook's device.
            k: 1 to V.
            distances: Whether to return them.

        Returns:
            Codes [N, k] int64, and the distances that rank them [N, k] float64 or None; those of "cosine" are not
            divided by |x|.

        Raises:
            NotFiniteError: A vector is not finite.
        """
        device = self._values.device
        codes = torch.empty((len(vectors), k), dtype=torch.int64, device=device)
        ranks = torch.empty((len(vectors), k), dtype=torch.float64, device=device) if distances else None
        rows = max(1, min(max(self._block // self._size, LEAST_ROWS), self._block // self._dim))
        with_float32 = self._dim <= LARGEST_DIM_IN_FLOAT32 and _float32_is_exact(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for start in range(0, len(vectors), rows):
                block = vectors[start : start + rows].detach()
                found = None if ranks is None else ranks[start : start + rows]
                try:
                    self._search_block(block, k, with_float32, codes[start : start + rows], found)
                except NotFiniteError as error:
                    raise NotFiniteError(start + error.row) from None
        return codes, ranks

    def _search_block(
        self, block: torch.Tensor, k: int, with_float32: bool, codes: torch.Tensor, ranks: torch.Tensor | None
    ) -> None:
        """Fills `codes` [n, k] and `ranks` [n, k] for a block of vectors."""
        lifted = self._lift(block)
        left = torch.arange(len(block), device=block.device)
        if with_float32:
            scores = self._scores(lifted, torch.float32)
            # max is faster than topk.
            best = scores.max(dim=1, keepdim=True) if k == 1 else scores.topk(k, dim=1)
            tolerance = self._tolerance(lifted, torch.float32, self._norms.max())
            floor = (best.values[:, -1:].double() - 2 * tolerance).float()
            # Written so that a NaN score or an infinite tolerance keeps the code among the candidates.
            candidates = (scores < floor).logical_not_()
            settled = candidates.sum(dim=1) == k
            if k == 1 and ranks is None:
                codes.copy_(best.indices)
            else:
                rows = settled.nonzero()[:, 0]
                self._decide(block, rows, candidates[rows], codes, ranks)
            left = settled.logical_not_().nonzero()[:, 0]
        for rows in torch.split(left, max(self._block // (4 * self._size), LEAST_ROWS // 4)):
            part = lifted.take(rows)
            scores = self._scores(part, torch.float64)
            tolerance = self._tolerance(part, torch.float64, self._norms)
            floor = (scores - tolerance).topk(k, dim=1).values[:, -1:]
            self._decide(block, rows, (scores + tolerance < floor).logical_not_(), codes, ranks)

    def _decide(
        self,
        block: torch.Tensor,
        rows: torch.Tensor,
        candidates: torch.Tensor,
        codes: torch.Tensor,
        ranks: torch.Tensor | None,
    ) -> None:
        """Settles vectors `rows` [m] of the block by the definition, among their `candidates` [m, V], k at least."""
        if not len(rows):
            return
        row, code = candidates.nonzero().unbind(1)  # sorted by row, then by code
        distance = self._ranks(block, rows[row], code)
        # By (row, distance, code), since both sorts keep the order of equals.
        order = distance.sort(stable=True).indices
        order = order[row[order].sort(stable=True).indices]
        counts = candidates.sum(dim=1)
        first = counts.cumsum(0) - counts
        chosen = order[first[:, None] + torch.arange(codes.shape[1], device=block.device)]
        codes[rows] = code[chosen]
        if ranks is not None:
            ranks[rows] = distance[chosen]

    def _ranks(self, block: torch.Tensor, row: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Distances [P] of the pairs (block[row], values[code]) as the definition ranks them; NaN as infinity."""
        total = torch.empty(len(row), dtype=torch.float64, device=block.device)
        step = max(self._block // self._dim, 1)
        for start in range(0, len(row), step):
            pairs = slice(start, start + step)
            x, c = block[row[pairs]].double(), self._values[code[pairs]].double()
            if self._metric == "l2":
                x.sub_(c)
                c = x
            total[pairs] = _added(x.mul_(c))
        if self._metric != "l2":
            total.neg_()
        if self._metric == "cosine":
            lengths = self._lengths[code]
            total = torch.where(lengths == 0, 0.0, total / lengths)
        # Adding 0 turns -0 into 0: sorts on a GPU may tell them apart.
        return total.nan_to_num_(nan=math.inf, posinf=math.inf, neginf=-math.inf).add_(0.0)

    def _lift(self, block: torch.Tensor) -> _Lifted:
        rows = block.double()
        if rows is block:
            rows = rows.clone()
        if self._metric == "l2":
            rows.mul_(self._scale).sub_(self._centre).mul_(self._zoom)
        largest = rows.abs().amax(dim=1)
        if not bool(largest.isfinite().all()):
            _check_finite(block)
        scale = largest.clamp(min=1.0 if self._metric == "l2" else SAFE_LENGTHS[0]).reciprocal_()
        rows.mul_(scale[:, None])
        norm = _norms(rows)
        if self._metric == "l2":
            rows = torch.cat([rows, scale[:, None]], dim=1)
        return _Lifted(rows, norm, scale)

    def _scores(self, lifted: _Lifted, precision: torch.dtype) -> torch.Tensor:
        if precision not in self._weights:
            self._weights[precision] = torch.cat([self._weigh(codes).to(precision) for codes in self._chunks()])
        return lifted.rows.to(precision) @ self._weights[precision].T

    def _weigh(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [n, D] float64 as scores read them: b, and for l2 also -|b|^2 / 2."""
        b = self._shift(codes)
        return b if self._metric != "l2" else torch.cat([b, b.square().sum(dim=1, keepdim=True).mul_(-0.5)], dim=1)

    def _tolerance(self, lifted: _Lifted, precision: torch.dtype, reach: torch.Tensor) -> torch.Tensor:
        """E + F, [n, 1] or [n, V] float64, for a number or a tensor [V] of norms B."""
        a, r = lifted.norm[:, None], lifted.scale[:, None]
        reach = reach.reshape(1, -1)
        g, g_double = self._growth(precision), self._growth(torch.float64)
        total = a * reach
        if self._metric == "l2":
            total += r * (0.5 * reach.square())
            total *= g + g_double
            total += (a / r + reach).square_().mul_(0.5 * g_double * r)
        else:
            total *= g + (3 if self._metric == "cosine" else 2) * g_double
        total += r * self._underflow_of_definition
        total += 8 * (self._dim + 1) * (SMALLEST_NORMAL[precision] + self._underflow_of_shift)
        return torch.where(a / r <= self._longest, total, math.inf)

    def _growth(self, precision: torch.dtype) -> float:
        product = (self._dim + EXTRA_ROUNDINGS) * ROUNDOFF[precision]
        return product / (1 - product)

    def _chunks(self) -> Iterator[torch.Tensor]:
        """The codes in float64, as many at once as make a block."""
        for codes in torch.split(self._values, max(self._block // self._dim, 1)):
            yield codes.double()

    def _prepare(self) -> None:
        """Scales, norms and limits of the codebook, each named as in the module's docstring."""
        largest = 0.0
        for start, codes in zip(range(0, self._size, max(self._block // self._dim, 1)), self._chunks(), strict=True):
            try:
                _check_finite(codes)
            except NotFiniteError as error:
                raise NotFiniteError(start + error.row) from None
            largest = max(largest, float(codes.abs().max()))
        exponent = _exponent(largest)
        # T = scale * zoom, in two steps so that neither overflows: codes to at most 1, differences to at most 1.
        self._scale, self._zoom = math.ldexp(1.0, -exponent), 1.0
        self._underflow_of_shift = 0.0
        self._longest = math.inf
        if self._metric == "l2":
            sample = self._values[:: max(self._size // CENTRE_SAMPLE, 1)].double() * self._scale
            # The median: one code far away does not move it, as it would move the mean.
            self._centre = sample.sort(dim=0).values[len(sample) // 2].clone()
            zoom = -_exponent(max(float(self._shift(codes).abs().max()) for codes in self._chunks()))
            self._zoom = math.ldexp(1.0, zoom)
            self._underflow_of_shift = _power_of_two(zoom - 1074)
            self._underflow_of_definition = self._dim * _power_of_two(2 * (zoom - exponent) - 1074)
            self._longest = _power_of_two(510 + zoom - exponent) - math.sqrt(self._dim)
        elif self._metric == "dot":
            self._underflow_of_definition = self._dim * _power_of_two(-exponent - 1074)
            self._longest = _power_of_two(1020 - exponent) / math.sqrt(self._dim)
        else:
            lengths, largest_of_each = [], []
            for codes in self._chunks():
                lengths.append(square_root(_added(codes * codes)))
                largest_of_each.append(codes.abs().amax(dim=1))
            self._lengths = torch.cat(lengths)
            reach = torch.cat(largest_of_each)
            reach = reach[reach > 0]
            shortest = float(reach.min()) if len(reach) else 1.0
            self._underflow_of_definition = 2 * self._dim * _power_of_two(-1074) / shortest
            safe = SAFE_LENGTHS[0] <= shortest and largest <= SAFE_LENGTHS[1]
            self._longest = 2.0**1020 / max(largest, 1.0) / math.sqrt(self._dim) if safe else -math.inf
        self._norms = torch.cat([_norms(self._shift(codes)) for codes in self._chunks()])

    def _shift(self, codes: torch.Tensor) -> torch.Tensor:
        """b of codes [n, D] float64."""
        if self._metric == "l2":
            return (codes * self._scale).sub_(self._centre).mul_(self._zoom)
        if self._metric == "dot":
            return codes * self._scale
        codes = codes / codes.abs().amax(dim=1, keepdim=True).clamp_(min=SAFE_LENGTHS[0])
        return codes / _norms(codes)[:, None]


def _norms(rows: torch.Tensor) -> torch.Tensor:
    """Euclidean norms [n] of [n, D] float64, from above by as much as squares that underflow can hide."""
    return rows.square().sum(dim=1).sqrt_().add_(math.sqrt(rows.shape[1]) * 2.0**-510)


def _added(terms: torch.Tensor) -> torch.Tensor:
    """Sums [P] of [P, D] float64, added one after the other in the order of D: torch's own sums do not promise that."""
    first, *others = terms.T.contiguous().unbind()
    total = first.clone()
    for term in others:
        total += term
    return total


def _check_finite(rows: torch.Tensor) -> None:
    finite = rows.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise NotFiniteError(int(finite.logical_not().nonzero()[0, 0]))


def _exponent(largest: float) -> int:
    """e with 2^-e largest in [1/2, 1], or as near to it as 2^-e can be a normal float64 number: at most 4."""
    return min(max(math.frexp(largest)[1], -1000), 1022)


def _power_of_two(exponent: int) -> float:
    """2^exponent; infinite where float64 has none so large, the smallest normal number where it is smaller."""
    return math.inf if exponent > 1023 else math.ldexp(1.0, max(exponent, -1022))


def _float32_is_exact(device: torch.device) -> bool:
    """Whether a float32 matrix product on `device` multiplies float32 numbers, not TF32 or bfloat16 ones."""
    if any(os.environ.get(name, "") not in HARMLESS_VALUES for name in REDUCING_VARIABLES):
        return False
    try:
        # Since torch 2.9; says what holds, also where the older settings were used.
        backend = torch.backends.mkldnn if device.type == "cpu" else torch.backends.cuda
        return backend.matmul.fp32_precision in ("none", "ieee")
    except AttributeError:
        return torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
