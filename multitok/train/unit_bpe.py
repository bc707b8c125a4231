"""Merges of speech units that often follow each other, for `multitok.tokenizers._unit_bpe`.

The result depends on the clips and the settings only. Time and memory grow with the number of runs: some 10 s and
200 MB for the million runs of twelve hours of speech and 4,000 merges.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.tokenizers._unit_bpe import UnitBpe, runs_of

BREAK = -1


def train_unit_bpe(
    clips: Iterable[NDArray[np.integer[Any]]],
    *,
    num_units: int,
    num_tokens: int,
    longest: int = 4,
    silent: Sequence[int] | NDArray[np.integer[Any]] = (),
) -> UnitBpe:
    """Learn merges of units: the most frequent pair first, the lower tokens first among equals.

    Args:
        clips: Units [F] of each clip, frame by frame; runs are made of them here.
        num_units: Size of their codebook.
        num_tokens: Units and merges together; fewer where no pair is left that occurs twice.
        longest: Units that a token holds at most.
        silent: Units that no merge may hold, so that pauses do not eat the vocabulary.

    Returns:
        The merges.

    Raises:
        SpecError: `num_tokens` is below `num_units`, or `longest` below 1.

    Source:
        Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; on units: Wu et al. 2023,
        "Wav2Seq"; Ren et al. 2022, "Speech Pre-training with Acoustic Piece".
    """
    if num_tokens < num_units or longest < 1:
        raise SpecError(f"num_tokens={num_tokens}, longest={longest}: give at least {num_units} tokens, and 1 or more")
    tokens, quiet = [BREAK], set(np.asarray(silent, np.int64).tolist())
    for clip in clips:
        tokens += [BREAK if unit in quiet else unit for unit in runs_of(clip)[0].tolist()]
        tokens.append(BREAK)
    corpus = _Corpus(tokens)
    lengths = dict.fromkeys(range(num_units), 1)
    merges: list[tuple[int, int]] = []
    heap = [(-len(places), pair) for pair, places in corpus.places.items()]
    heapq.heapify(heap)
    while heap and len(merges) < num_tokens - num_units:
        claimed, pair = heapq.heappop(heap)
        count = corpus.counts[pair]
        if count != -claimed:
            if count > 1:
                heapq.heappush(heap, (-count, pair))
            continue
        together = lengths[pair[0]] + lengths[pair[1]]
        if together > longest:
            continue
        if count < 2:
            break
        merged = num_units + len(merges)
        lengths[merged] = together
        merges.append(pair)
        for changed in corpus.merge(pair, merged):
            heapq.heappush(heap, (-corpus.counts[changed], changed))
    return UnitBpe(num_units, np.array(merges, np.int32).reshape(-1, 2), np.array(sorted(quiet), np.int32))


class _Corpus:
    """Tokens in a chain, and where each pair stands: places may be out of date, counts never are."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._after = list(range(1, len(tokens) + 1))
        self._before = list(range(-1, len(tokens) - 1))
        self.places: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, pair in enumerate(pairwise(tokens)):
            if BREAK not in pair:
                self.places[pair].append(i)
        self.counts = defaultdict(int, {pair: len(places) for pair, places in self.places.items()})

    def merge(self, pair: tuple[int, int], merged: int) -> set[tuple[int, int]]:
        """Join the pair wherever it stands; the pairs that are there more often now."""
        tokens, after, before = self._tokens, self._after, self._before
        left, right = pair
        grown = set()
        for i in sorted(self.places.pop(pair)):
            j = after[i]
            if tokens[i] != left or j >= len(tokens) or tokens[j] != right:
                continue
            follower, leader = after[j], before[i]
            self._count((left, right), -1)
            self._count((tokens[leader], left), -1)
            self._count((right, tokens[follower]), -1)
            tokens[i], tokens[j] = merged, BREAK
            after[i], before[follower] = follower, i
            for at, changed in ((leader, (tokens[leader], merged)), (i, (merged, tokens[follower]))):
                if BREAK not in changed:
                    self._count(changed, 1)
                    self.places[changed].append(at)
                    grown.add(changed)
        return grown

    def _count(self, pair: tuple[int, int], change: int) -> None:
        if BREAK not in pair:
            self.counts[pair] += change
