"""Byte-pair encoding of speech units: runs of units that often follow each other become one token.

    units   7 7 7 12 12 3 3 3 3 99 99 ...      frames, 50 a second
    runs    7     12    3       99             a unit and how long it lasts
    tokens  [7 12]      [3]     [99]           merges of runs, learned from data

A unit that flickers for a frame costs tokens and says little, so runs may be made of steadier units: `steady_units`.

Tokens below V are single units; token V + i is what merge i joins. Units of silence join nothing: else long pauses of
changing silences eat the vocabulary. A token holds at most as many units as its merges say.

Shape letters: V units, n tokens, m merges, R runs, F frames, k units near a frame.
"""

from __future__ import annotations

import heapq
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError


class UnitBpe:
    """Units without repetition <-> tokens; lossless and immutable.

    Args:
        num_units: V.
        merges: [m, 2]: the two tokens that each merge joins, in the order of their rank; units or earlier merges.
        silent: Units that no merge may hold.

    Raises:
        SpecError: A merge joins what does not exist yet, what is silent, or what another one joins already.
    """

    def __init__(self, num_units: int, merges: NDArray[np.integer[Any]], silent: NDArray[np.integer[Any]]) -> None:
        self.num_units = num_units
        self.merges = np.asarray(merges, np.int32).reshape(-1, 2)
        self.silent = np.asarray(silent, np.int32)
        limits = num_units + np.arange(len(self.merges))[:, None]
        if ((self.merges < 0) | (self.merges >= limits)).any() or np.isin(self.merges, self.silent).any():
            raise SpecError(f"a merge joins a silent unit, or what is none of the {num_units} units and earlier merges")
        self._ranks = {(int(left), int(right)): rank for rank, (left, right) in enumerate(self.merges)}
        if len(self._ranks) != len(self.merges):
            raise SpecError("two merges join the same tokens: each pair can have one rank")

    @property
    def num_tokens(self) -> int:
        """V + m."""
        return self.num_units + len(self.merges)

    @cached_property
    def expansions(self) -> list[tuple[int, ...]]:
        """The units of each token."""
        found: list[tuple[int, ...]] = [(unit,) for unit in range(self.num_units)]
        for left, right in self.merges.tolist():
            found.append(found[left] + found[right])
        return found

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """[V + m] how many units each token holds."""
        return np.array([len(units) for units in self.expansions], np.int32)

    def encode(self, units: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Tokens [n] of units [R]: the pair of the lowest rank is joined, leftmost first, until none is left."""
        tokens = [int(unit) for unit in units]
        after = [*range(1, len(tokens)), -1]
        before = list(range(-1, len(tokens) - 1))
        heap = [
            (rank, i) for i, pair in enumerate(pairwise(tokens))
            if (rank := self._ranks.get(pair)) is not None
        ]  # fmt: skip
        heapq.heapify(heap)
        while heap:
            rank, i = heapq.heappop(heap)
            j = after[i]
            if j < 0 or tokens[i] < 0 or self._ranks.get((tokens[i], tokens[j])) != rank:
                continue  # one of the two was joined to another since
            tokens[i], tokens[j] = self.num_units + rank, -1
            after[i] = after[j]
            if after[j] >= 0:
                before[after[j]] = i
            for left in (before[i], i):
                if left >= 0 and after[left] >= 0:
                    found = self._ranks.get((tokens[left], tokens[after[left]]))
                    if found is not None:
                        heapq.heappush(heap, (found, left))
        return np.array([token for token in tokens if token >= 0], np.int32)

    def decode(self, tokens: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Units [R] of tokens [n]."""
        units = [unit for token in tokens.tolist() for unit in self.expansions[token]]
        return np.array(units, np.int32)


def runs_of(units: NDArray[np.integer[Any]], longest: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Each run of equal units as the unit and its length; `frames_of` inverts it.

    Args:
        units: [F].
        longest: Longer runs are split, into runs of this length and a rest; None splits none.

    Returns:
        Units [R] and lengths [R], in frames.
    """
    frames: NDArray[np.int32] = np.asarray(units, np.int32)
    starts = np.flatnonzero(np.diff(frames, prepend=frames[:1] - 1))
    lengths = np.diff(starts, append=frames.size)
    if longest is None:
        return frames[starts], lengths.astype(np.int32)
    parts = -(-lengths // longest)
    split = np.full(int(parts.sum()), longest, np.int32)
    ends = np.cumsum(parts) - 1
    split[ends] = lengths - (parts - 1) * longest
    return np.repeat(frames[starts], parts), split


def frames_of(units: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Units [F] of runs."""
    return np.repeat(np.asarray(units, np.int32), lengths)


def steady_units(codes: NDArray[np.int32], distances: NDArray[np.float64], penalty: float) -> NDArray[np.int32]:
    """Units of the path with the least sum of distances and of `penalty` for each change of unit.

    Args:
        codes: [F, k] the units nearest to each frame, nearest first: those that a path may take there.
        distances: [F, k] their squared distances.
        penalty: What a change costs; 0 gives the nearest units.

    Returns:
        [F]; the lower place in `codes` wins a tie, and staying wins against changing.

    Source:
        Kamper 2022, "Word segmentation on discovered phone units with dynamic programming"; Viterbi's algorithm.
    """
    if penalty == 0:
        return codes[:, 0]
    total = np.full(int(codes.max(initial=0)) + 1, np.inf)
    before: list[NDArray[np.int32]] = []
    cheapest, unit = 0.0, 0
    for frame, found in zip(codes, distances, strict=True):
        stay, change = total[frame], cheapest + penalty
        if not before:
            stay, change = np.zeros(len(frame)), 0.0
        before.append(np.where(stay <= change, frame, np.int32(unit)))
        cost = np.minimum(stay, change) + found
        total.fill(np.inf)
        total[frame] = cost
        best = int(cost.argmin())
        cheapest, unit = float(cost[best]), int(frame[best])
    path = np.empty(len(codes), np.int32)
    for i in range(len(codes) - 1, -1, -1):
        path[i] = unit
        unit = int(before[i][int((codes[i] == unit).argmax())])
    return path


def spread(total: NDArray[np.integer[Any]], parts: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Whole numbers that divide each total into its parts as evenly as can be, the longer ones first.

    Args:
        total: [n].
        parts: [n], each at least 1.

    Returns:
        [sum of parts].
    """
    parts = np.asarray(parts, np.int64)
    place = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
    share, rest = np.divmod(np.asarray(total, np.int64), parts)
    return np.asarray(np.repeat(share, parts) + (place < np.repeat(rest, parts)), np.int32)
