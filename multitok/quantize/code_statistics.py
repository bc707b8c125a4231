"""`CodeStatistics`: how the codebooks of any quantiser are used, counted over many batches and ranks. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError
from multitok.quantize.learning import sum_over_ranks

MOST_COUNTS = 2**28


class CodeStatistics(nn.Module):
    """Counts codes; tells usage, perplexity and dead codes of each of K codebooks. Counts are integers, so exact.

    `update` counts on its own rank; the measures take the counts of all ranks, so where there is a process group all
    ranks have to ask for them together. The counts travel in the state dict.

    Args:
        codebook_sizes: V of each codebook; they add up to at most 2^28.

    Raises:
        SpecError: No sizes, an empty codebook, or too many codes to count one by one.
    """

    counts: torch.Tensor

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        super().__init__()
        if not codebook_sizes or min(codebook_sizes) < 1 or sum(codebook_sizes) > MOST_COUNTS:
            raise SpecError(
                f"codebook sizes {tuple(codebook_sizes)}: give at least one, each at least 1, with at most "
                f"{MOST_COUNTS} codes in all; larger codebooks are measured by their digits or bits"
            )
        self.codebook_sizes = tuple(int(size) for size in codebook_sizes)
        self.register_buffer("counts", torch.zeros(sum(self.codebook_sizes), dtype=torch.int64))

    @torch.no_grad()
    def update(self, codes: torch.Tensor) -> None:
        """Count these codes.

        Args:
            codes: [..., k] integers of the first k <= K codebooks; -1, which quantiser dropout leaves, is not counted.

        Raises:
            ShapeError: Not [..., k].
            CodeRangeError: A code lies outside its codebook.
        """
        most = len(self.codebook_sizes)
        if codes.ndim < 1 or codes.is_floating_point() or not 1 <= codes.shape[-1] <= most:
            raise ShapeError(
                f"codes given as {codes.dtype} of shape {list(codes.shape)}: give integers [..., k], 1 <= k <= {most}"
            )
        first = 0
        for k, size in enumerate(self.codebook_sizes[: codes.shape[-1]]):
            own = codes[..., k].reshape(-1)
            own = own[own != -1]
            if own.numel() and (int(own.min()) < 0 or int(own.max()) >= size):
                raise CodeRangeError(
                    f"codes of codebook {k} reach from {int(own.min())} to {int(own.max())}: "
                    f"allowed are 0 to {size - 1}"
                )
            self.counts[first : first + size] += torch.bincount(own, minlength=size)
            first += size

    def reset(self) -> None:
        """Forget all counts."""
        self.counts.zero_()

    def usage(self) -> tuple[float, ...]:
        """Share of its codes that each codebook used; raises InputError where one has counted none."""
        return tuple(float((own > 0).sum()) / len(own) for own in self._all_counts())

    def perplexity(self) -> tuple[float, ...]:
        """exp of the entropy of each codebook's frequencies; raises InputError where one has counted none."""
        shares = (own.double() / own.sum() for own in self._all_counts())
        return tuple(float(torch.special.entr(share).sum().exp()) for share in shares)

    def dead_codes(self, below: float = 0.0) -> tuple[torch.Tensor, ...]:
        """The codes of each codebook that were not used, or used less than this share of the mean: [n] int64 each.

        Args:
            below: Share of the mean count under which a code is dead.
        """
        return tuple(
            ((own == 0) | (own.double() < below * own.double().mean())).nonzero()[:, 0] for own in self._all_counts()
        )

    def _all_counts(self) -> tuple[torch.Tensor, ...]:
        counts = torch.split(sum_over_ranks(self.counts), list(self.codebook_sizes))
        for k, own in enumerate(counts):
            if int(own.sum()) == 0:
                raise InputError(f"codebook {k} has counted no codes: call update first")
        return counts
