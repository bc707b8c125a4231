"""The inverse map of a vocabulary: from an ID to its owner and its code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import VocabularyError
from multitok.vocabulary.blocks import Block

SPECIAL = -1  # owner of an ID that is a special token
RESERVED = -2  # owner of an ID that stands for nothing yet: a reserved slot or padding


class IdIndex:
    """From IDs back to owners: ascending intervals searched by bisection, O(log intervals) per ID.

    Args:
        vocab_size: Number of IDs.
        specials: ID of each special token.
        blocks: The blocks; their order numbers the owners.

    Raises:
        VocabularyError: An ID has two owners, or lies outside the vocabulary.
    """

    def __init__(self, vocab_size: int, specials: Mapping[str, int], blocks: Sequence[Block]) -> None:
        claims = [(i, i + 1, SPECIAL, f"special token {token!r}") for token, i in specials.items()]
        for owner, block in enumerate(blocks):
            text = f"codebook {block.codebook} of {block.name!r}"
            claims += [(start, stop, owner, text) for start, stop in block.intervals]
        claims.sort(key=lambda claim: claim[:3])
        starts: list[int] = []
        owners: list[int] = []
        end, last = 0, ""
        for start, stop, owner, text in claims:
            if start < end:
                raise VocabularyError(f"ID {start} belongs to {last} and to {text}; every ID has one meaning")
            if start > end:
                starts.append(end)
                owners.append(RESERVED)
            starts.append(start)
            owners.append(owner)
            end, last = stop, text
        if end > vocab_size:
            raise VocabularyError(f"{last} reaches ID {end - 1}, but vocab_size is {vocab_size}")
        if end < vocab_size:
            starts.append(end)
            owners.append(RESERVED)
        self.vocab_size = vocab_size
        self._starts = np.asarray(starts, np.int64)
        self._owners = np.asarray(owners, np.int32)
        self._set_locals(blocks)

    def _set_locals(self, blocks: Sequence[Block]) -> None:
        # local ID = ID - shift for ranges and for unowned IDs; an interval of a lookup block reads its code
        # from one table, at ID - shift as well.
        stops = np.append(self._starts[1:], self.vocab_size)
        sizes = stops - self._starts
        shift = self._starts.copy()
        tables: list[NDArray[np.int32]] = []
        used, unowned = 0, 0
        for i, owner in enumerate(self._owners.tolist()):
            if owner < 0:
                shift[i] -= unowned
                unowned += int(sizes[i])
        for number, block in enumerate(blocks):
            if block.table is None:
                continue
            order = np.argsort(block.table).astype(np.int32)
            done = 0
            for i in np.flatnonzero(self._owners == number).tolist():
                shift[i] -= used + done
                done += int(sizes[i])
            tables.append(order)
            used += len(order)
        self._shift = shift
        self._is_lookup = np.asarray([o >= 0 and blocks[o].table is not None for o in self._owners], np.bool_)
        self._inverse = np.concatenate(tables) if tables else np.zeros(0, np.int32)
        self.num_unowned = unowned
        self.reserved = tuple(
            (int(a), int(b)) for a, b, o in zip(self._starts, stops, self._owners, strict=True) if o == RESERVED
        )

    def locate(self, ids: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Owner and local ID of each ID.

        Args:
            ids: Any shape, every value in [0, vocab_size).
        Returns:
            Owners: a block's index, SPECIAL or RESERVED. Local IDs: the code in its codebook; for unowned
            IDs their rank among the unowned ones.
        """
        interval = np.searchsorted(self._starts, ids, side="right") - 1
        owners = self._owners[interval]
        local = (ids - self._shift[interval]).astype(np.int32)
        if self._inverse.size:
            inside = self._is_lookup[interval]
            local[inside] = self._inverse[local[inside]]
        return owners, local

    def unowned(self, local: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """IDs of the unowned ranks `local`; inverts `locate` for special and reserved IDs."""
        free = np.flatnonzero(self._owners < 0)
        first = self._starts[free] - self._shift[free]
        which = np.searchsorted(first, local, side="right") - 1
        ids: NDArray[np.int64] = local + self._shift[free][which]
        return ids
