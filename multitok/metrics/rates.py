"""What codes cost: nominal bits, and the bits an entropy coder would need.

Nominal: log2 of the codebook's size for each code. Entropy: codes occur unequally often; with one table of
frequencies per codebook, a code that makes up a share p of all costs -log2(p) bits. The mean of that is the
zero-order entropy: neighbours are not looked at, and the table itself is not counted. Few codes of a large codebook
understate it, since a table fitted to them knows too much: judge it on at least ten times as many codes as codebooks
have entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.protocol import Codes


@dataclass(frozen=True, slots=True, eq=False)
class CodeCounts:
    """How often each code of one codebook occurs; holds only those that do, so a codebook may be huge.

    Args:
        codes: [n] the codes that occur, ascending.
        counts: [n] how often.
    """

    codes: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, codes: NDArray[np.integer[Any]]) -> CodeCounts:
        """Count integers of any shape, of one codebook."""
        values, counts = np.unique(codes, return_counts=True)
        return cls(values.astype(np.int64), counts.astype(np.int64))

    @classmethod
    def per_codebook(cls, codes: Codes) -> list[CodeCounts]:
        """Counts of an item's codes, one for each codebook."""
        return [cls.of(values) for values in codes.values]

    @classmethod
    def joined(cls, parts: list[CodeCounts]) -> CodeCounts:
        """Counts of several items together."""
        codes, inverse = np.unique(np.concatenate([part.codes for part in parts]), return_inverse=True)
        total = np.zeros(len(codes), np.int64)
        np.add.at(total, inverse, np.concatenate([part.counts for part in parts]))
        return cls(codes, total)

    @property
    def entropy_bits(self) -> float:
        """Zero-order entropy: bits per code."""
        return self.bits_under(self) / int(self.counts.sum())

    @property
    def perplexity(self) -> float:
        """How many equally frequent codes would carry as much: 2 ** entropy."""
        return float(2**self.entropy_bits)

    def usage(self, codebook_size: int) -> float:
        """Share of the codebook's codes that occur."""
        return len(self.codes) / codebook_size

    def bits_under(self, table: CodeCounts) -> float:
        """Bits of these codes, written by an ideal entropy coder that has `table`'s frequencies.

        Args:
            table: Counts in which every one of these codes occurs.

        Returns:
            The sum of -log2 of the codes' shares in `table`.

        Raises:
            InputError: A code does not occur in `table`.
        """
        at = np.searchsorted(table.codes, self.codes)
        if (at == len(table.codes)).any() or (table.codes[at] != self.codes).any():
            raise InputError("a code that the table does not hold has no finite cost: count these codes in it too")
        return float((self.counts * (np.log2(table.counts.sum()) - np.log2(table.counts[at]))).sum())
