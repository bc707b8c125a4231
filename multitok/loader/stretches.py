"""What a shuffle moves: long documents as several stretches, spread over the epoch.

An hour of sound is one document of millions of tokens. Read from end to end it would fill thousands of batches in a
row, each with nothing else in it. Cut into stretches that are shuffled like documents, it is met all over the epoch:

    documents    |aaaaaaaaaaaaaaaaaa|bbb|ccccccccc|
    stretches    |aaaaaa|aaaaaa|aaaaaa|bbb|cccccc|ccc|      of at most 6 tokens

Costs 8 bytes a document, and reading every document's length once at the start.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.loader.corpus import Corpus


class Stretches:
    """The documents of a corpus, cut into stretches numbered from 0, in order.

    Args:
        corpus: The documents.
        max_tokens: Length of a stretch; a document's last one may be shorter.

    Raises:
        SpecError: A length below 1.
    """

    def __init__(self, corpus: Corpus, max_tokens: int) -> None:
        if max_tokens < 1:
            raise SpecError(f"shuffle_tokens={max_tokens}: give the tokens of a stretch, at least 1, or None")
        self._corpus, self._max_tokens = corpus, max_tokens
        self.num_tokens = corpus.num_tokens
        counts = -(-corpus.lengths(np.arange(len(corpus))) // max_tokens)
        self._first = np.zeros(len(corpus) + 1, np.int64)
        np.cumsum(counts, out=self._first[1:])

    def __len__(self) -> int:
        return int(self._first[-1])

    def locate(self, stretches: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Document of each stretch [n], and the stretch's first token there [n]."""
        documents = self._first.searchsorted(stretches, side="right") - 1
        return documents, (stretches - self._first[documents]) * self._max_tokens

    def lengths(self, stretches: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n] tokens in each of the stretches [n]."""
        documents, offsets = self.locate(stretches)
        lengths: NDArray[np.int64] = np.minimum(self._corpus.lengths(documents) - offsets, self._max_tokens)
        return lengths
