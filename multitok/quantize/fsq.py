"""`FSQ` and `ResidualFSQ`: each dimension rounded to a few levels; no codebook to learn.

A code is decided by comparing each latent value with thresholds, computed in float64 and kept as float32 buffers:
tanh, whose last bit depends on the library, decides nothing, so codes are the same on every machine. Since the bound
is monotone, a value lies in cell c exactly when it is larger than c thresholds:

    latent z    ------ t0 ------ t1 ------ t2 ------        4 levels, 3 thresholds
    digit          0        1         2        3            number of thresholds below z

The bound only carries the gradients. N vectors, K codebooks, D dimensions, L levels. This module imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from multitok.errors import SpecError
from multitok.quantize.gradients import straight_through
from multitok.quantize.quantizer import (
    Quantizer,
    QuantizerOutput,
    check_finite,
    check_num_codebooks,
    check_share,
    level_counts,
)
from multitok.quantize.residual_vq import DROPPED

# Widens the outermost cells of FSQ, as its authors do.
EPSILON = 1e-3
# Cells of one dimension of residual FSQ, all levels together; finer ones leave the precision of float32.
MOST_CELLS = 2**16


class FSQ(Quantizer):
    """Finite scalar quantisation: dimension d takes one of `levels[d]` evenly spaced values in [-1, 1].

    One code: sum over d of digit[d] * levels[0] * ... * levels[d - 1], so the first dimension is the fastest. Digit c
    of L stands for (c - L // 2) / (L // 2). There are no losses.

    Args:
        levels: L of each dimension, each at least 3; their product is the codebook size. The authors advise at least 5.

    Raises:
        SpecError: No levels, one below 3, or their product is beyond int32.

    Source:
        Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple", section 3.1 and appendix A.
    """

    thresholds: torch.Tensor
    values: torch.Tensor
    bounds: torch.Tensor
    basis: torch.Tensor
    counts: torch.Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        if not levels or min(levels) < 3:
            raise SpecError(f"levels={tuple(levels)}: give at least one, each at least 3; for two values take LFQ")
        super().__init__(len(levels), (math.prod(levels),))
        self.levels = tuple(int(count) for count in levels)
        rows, values = [], []
        for count in self.levels:
            reach, offset, shift = _bound(count)
            edges = [i - count // 2 + 0.5 for i in range(count - 1)]
            rows.append([math.atanh((edge + offset) / reach) - shift for edge in edges])
            values.append([(digit - count // 2) / (count // 2) for digit in range(count)])
        # As an integer tokenizer needs them too: [D, max L - 1], rows of fewer thresholds end in infinities.
        self.register_buffer("thresholds", _table(rows, math.inf))
        self.register_buffer("values", _table(values, 0.0), persistent=False)
        bounds = [[*_bound(count), float(count // 2)] for count in self.levels]
        self.register_buffer("bounds", torch.tensor(bounds, dtype=torch.float32), persistent=False)
        self.register_buffer("basis", _basis(self.levels), persistent=False)
        self.register_buffer("counts", torch.tensor(self.levels), persistent=False)

    def to_digits(self, codes: torch.Tensor) -> torch.Tensor:
        """The level of each dimension.

        Args:
            codes: [..., 1] integers.

        Returns:
            [..., D] int64, digit d in [0, levels[d]).

        Raises:
            ShapeError: Not integers [..., 1].
            CodeRangeError: A code lies outside the codebook.
        """
        self._check_codes(codes)
        return codes // self.basis % self.counts

    def from_digits(self, digits: torch.Tensor) -> torch.Tensor:
        """The code of the levels of all dimensions; `to_digits` undoes it.

        Args:
            digits: [..., D] integers, digit d in [0, levels[d]).

        Returns:
            [..., 1] int64.
        """
        return (digits * self.basis).sum(dim=-1, keepdim=True)

    def _forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        codes = self._encode(vectors)
        reach, offset, shift, half = self.bounds.unbind(dim=1)
        bounded = (torch.tanh(vectors + shift) * reach - offset) / half
        quantized, zero = straight_through(bounded, self._decode(codes)), vectors.new_zeros(())
        return QuantizerOutput(quantized, codes, zero, zero.clone(), zero.clone())

    def _encode(self, vectors: torch.Tensor) -> torch.Tensor:
        check_finite(vectors)
        return self.from_digits(_cells(vectors.detach(), self.thresholds))

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        return _look_up(self.values, codes // self.basis % self.counts)

    def extra_repr(self) -> str:
        """What `print` shows of this module."""
        return f"levels={self.levels}"


class ResidualFSQ(Quantizer):
    """Residual FSQ: K codebooks, each L times finer per dimension than the one before.

    Level 0 has the values 2 c / (L - 1) - 1, level k the same scaled by L^-k. All levels together divide the bounded
    latent b = r tanh(z / r), r = L / (L - 1), into L^K even cells, whose number written to the base L gives a digit for
    each level, so one comparison with L^K - 1 thresholds decides all. Within a codebook the first dimension is the
    fastest. A prefix of the codes decodes to a coarser vector; quantiser dropout works as in `ResidualVQ`, -1 included.

    Args:
        levels: L of each dimension, each at least 2; L^K at most 65,536.
        num_codebooks: K.
        dropout: Share of the items that use a random number of codebooks in training, see `level_counts`.

    Raises:
        SpecError: A level, K or `dropout` cannot be.

    Source:
        Mentzer et al. 2023, as above, on residuals as Zeghidour et al. 2021, "SoundStream", algorithm 1; even cells:
        Parker et al. 2024, "Scaling Transformers for Low-Bitrate High-Quality Speech Coding", section 3.2.
    """

    thresholds: torch.Tensor
    values: torch.Tensor
    reaches: torch.Tensor
    basis: torch.Tensor
    counts: torch.Tensor

    def __init__(self, levels: Sequence[int], num_codebooks: int, *, dropout: float = 0.0) -> None:
        if not levels or min(levels) < 2 or num_codebooks < 1 or max(levels) ** num_codebooks > MOST_CELLS:
            raise SpecError(
                f"levels={tuple(levels)}, num_codebooks={num_codebooks}: give at least one of each, levels of at least "
                f"2, and at most {MOST_CELLS} cells, levels ** num_codebooks, a dimension"
            )
        super().__init__(len(levels), (math.prod(levels),) * num_codebooks)
        self.levels, self.dropout = tuple(int(count) for count in levels), check_share("dropout", dropout)
        rows, reaches = [], []
        for count in self.levels:
            reach, cells = count / (count - 1), count**num_codebooks
            rows.append([reach * math.atanh(2 * i / cells - 1) for i in range(1, cells)])
            reaches.append(reach)
        values = [
            _table([[(2 * c / (n - 1) - 1) * float(n) ** -k for c in range(n)] for n in self.levels], 0.0)
            for k in range(num_codebooks)
        ]
        self.register_buffer("thresholds", _table(rows, math.inf))
        self.register_buffer("values", torch.stack(values), persistent=False)
        self.register_buffer("reaches", torch.tensor(reaches, dtype=torch.float32), persistent=False)
        self.register_buffer("basis", _basis(self.levels), persistent=False)
        self.register_buffer("counts", torch.tensor(self.levels), persistent=False)

    def forward(self, vectors: torch.Tensor, num_codebooks: int | None = None) -> QuantizerOutput:
        """Quantise with gradients.

        Args:
            vectors: [..., D] of any float dtype, finite.
            num_codebooks: k, how many codebooks to use, the first ones; None uses all, with dropout in training.

        Returns:
            codes [..., k].

        Raises:
            ShapeError: Not a float tensor [..., D].
            InputError: A value is NaN or infinite.
            SpecError: `num_codebooks` is not 1 to K.
        """
        self._check_vectors(vectors)
        with torch.autocast(vectors.device.type, enabled=False):
            return self._forward(vectors.float(), num_codebooks)

    def encode(self, vectors: torch.Tensor, num_codebooks: int | None = None) -> torch.Tensor:
        """Codes of vectors, without gradients.

        Args:
            vectors: [..., D] of any float dtype, finite.
            num_codebooks: k, how many codebooks to use, the first ones; None uses all.

        Returns:
            [..., k] int64.

        Raises:
            ShapeError: Not a float tensor [..., D].
            InputError: A value is NaN or infinite.
            SpecError: `num_codebooks` is not 1 to K.
        """
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        self._check_vectors(vectors)
        with torch.no_grad():
            return self._encode(vectors.float())[..., :used]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """The sum of the values of the codes, added from the first codebook on; without gradients.

        Args:
            codes: [..., k] integers, 1 <= k <= K; -1 adds nothing.

        Returns:
            [..., D] float32.

        Raises:
            ShapeError: Not integers [..., k].
            CodeRangeError: A code lies outside its codebook.
        """
        self._check_codes(codes, fewest=1, smallest=DROPPED)
        with torch.no_grad():
            return self._decode(codes.long())

    def _forward(self, vectors: torch.Tensor, num_codebooks: int | None = None) -> QuantizerOutput:
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        codes = self._encode(vectors)[..., :used]
        if self.training and self.dropout > 0 and num_codebooks is None:
            counts = level_counts(vectors, used, self.dropout)
            codes = torch.where(torch.arange(used, device=codes.device) < counts, codes, DROPPED)
        bounded = torch.tanh(vectors / self.reaches) * self.reaches
        quantized, zero = straight_through(bounded, self._decode(codes)), vectors.new_zeros(())
        return QuantizerOutput(quantized, codes, zero, zero.clone(), zero.clone())

    def _encode(self, vectors: torch.Tensor) -> torch.Tensor:
        check_finite(vectors)
        rest, codes = _cells(vectors.detach(), self.thresholds), []
        for _ in range(self.num_codebooks):  # from the finest on
            codes.append((rest % self.counts * self.basis).sum(dim=-1))
            rest = rest // self.counts
        return torch.stack(codes[::-1], dim=-1)

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        quantized = torch.zeros(*codes.shape[:-1], self.dim, device=codes.device)
        for k in range(codes.shape[-1]):
            own = codes[..., k : k + 1]
            digits = own.clamp(min=0) // self.basis % self.counts
            quantized = quantized + torch.where(own == DROPPED, 0, _look_up(self.values[k], digits))
        return quantized

    def extra_repr(self) -> str:
        """What `print` shows of this module."""
        return f"levels={self.levels}, num_codebooks={self.num_codebooks}"


def _bound(count: int) -> tuple[float, float, float]:
    """reach, offset and shift of FSQ's bound: tanh(z + shift) * reach - offset, whose roundings are the levels."""
    reach = (count - 1) * (1 + EPSILON) / 2
    offset = 0.5 if count % 2 == 0 else 0.0
    return reach, offset, math.atanh(offset / reach)


def _table(rows: Sequence[Sequence[float]], padding: float) -> torch.Tensor:
    width = max(len(row) for row in rows)
    padded = [[*row, *[padding] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.float64).float()


def _basis(levels: Sequence[int]) -> torch.Tensor:
    return torch.tensor([math.prod(levels[:d]) for d in range(len(levels))])


def _cells(vectors: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """How many thresholds [D, M] lie below each value of [..., D]: int64 of its shape."""
    columns = vectors.reshape(-1, vectors.shape[-1]).T.contiguous()
    return torch.searchsorted(thresholds, columns).T.reshape(vectors.shape)


def _look_up(values: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
    """values [D, M] of digits [..., D]."""
    return values.gather(1, digits.reshape(-1, digits.shape[-1]).T).T.reshape(digits.shape)
