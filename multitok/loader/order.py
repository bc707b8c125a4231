"""The order of documents: a seeded permutation of 0 ... N - 1 that is computed, not stored.

Any stretch of any epoch's order costs time and memory proportional to the stretch alone, so a loader state needs
only a position in the order, and restoring it does not replay what came before. A stored permutation would cost
8 bytes a document in every process; this one costs nothing.

How: a Feistel network permutes the numbers of the smallest power of two >= N; numbers that land at N or above are
sent through again until they land below ("cycle walking"), which keeps the map one-to-one.

Source:
    Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 4 (cycle-walking) and 6 (Feistel).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8


class DocumentOrder:
    """The order in which an epoch visits N documents.

    Args:
        num_documents: N.
        seed: Any integer; another seed gives another order.
        shuffle: False keeps the documents as they lie.
    """

    def __init__(self, num_documents: int, seed: int, shuffle: bool) -> None:
        self.num_documents = num_documents
        self._seed, self._shuffle = seed, shuffle
        bits = max(2, (num_documents - 1).bit_length())
        self._low_bits = bits // 2
        self._high_bits = bits - self._low_bits

    def take(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Documents at the positions `start` to `stop` of an epoch; `stop` is cut at N."""
        positions = np.arange(start, min(stop, self.num_documents), dtype=np.int64)
        if not self._shuffle or not len(positions):
            return positions
        keys = self._keys(epoch)
        found = self._permute(positions.astype(np.uint64), keys)
        outside = np.flatnonzero(found >= self.num_documents)
        while len(outside):
            found[outside] = self._permute(found[outside], keys)
            outside = outside[found[outside] >= self.num_documents]
        return found.astype(np.int64)

    def _keys(self, epoch: int) -> NDArray[np.uint64]:
        blocks = [hashlib.sha256(f"{self._seed}/{epoch}/{part}".encode()).digest() for part in range(_ROUNDS // 4)]
        return np.frombuffer(b"".join(blocks), "<u8")

    def _permute(self, values: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        # The halves may differ by one bit, so their roles (and widths) alternate from round to round.
        low_bits, high_bits = self._low_bits, self._high_bits
        low, high = values & np.uint64((1 << low_bits) - 1), values >> np.uint64(low_bits)
        for key in keys:
            low, high = high ^ (_mix(low ^ key) & np.uint64((1 << high_bits) - 1)), low
            low_bits, high_bits = high_bits, low_bits
        joined: NDArray[np.uint64] = (high << np.uint64(low_bits)) | low
        return joined


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A well-mixing map of 64 bits: the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = values
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed
