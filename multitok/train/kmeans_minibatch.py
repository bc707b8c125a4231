"""Mini-batch k-means: the codes move after each batch, so one or few passes over very much data are enough.

Each code is the mean of the vectors it has won so far: a batch moves it by the share that its own vectors have in that,
so by less and less. A pass starts with the vectors of the passes before at a tenth of their weight, since they were
won when the codes lay elsewhere. Codes that win nothing for a while move to the vectors that are worst served.

After one pass the inertia was from 0.5 per cent below to 3 per cent above that of 10 or 20 passes of `train_kmeans`,
which may take the codebook as its `start` and improve it. The order of the vectors matters: shuffle data that is
sorted. The size of the arrays that come does not matter, nor do threads and machine: the codebook is equal to the bit.

N vectors, V codes, D dimensions. Memory: one batch, 32 V D bytes, and at the start a sample as for `train_kmeans`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.errors import SpecError
from multitok.train.kmeans import Progress, first_codebook, replacements
from multitok.train.kmeans_data import Batches, Blocks, Floats, unit
from multitok.train.kmeans_state import StateFile, start_name
from multitok.train.kmeans_sums import Sums

BATCH_VECTORS = 4096
BATCH_VECTORS_PER_CODE = 4
# What the vectors of a pass weigh in the next one. Of 1, 0.3, 0.1 and 0 this gave the lowest inertia after 2 to 4
# passes over Gaussian and clustered data in nearly all cases.
EARLIER_PASSES_WEIGH = 0.1
# A code is idle when it wins none of so many vectors per code.
IDLE_VECTORS_PER_CODE = 10


def train_kmeans_minibatch(
    batches: Batches,
    codebook_size: int,
    *,
    seed: int = 0,
    passes: int = 1,
    batch_size: int | None = None,
    start: str | Floats = "k-means++",
    metric: str = "l2",
    threads: int | None = None,
    progress: Progress | None = None,
    state_file: str | os.PathLike[str] | None = None,
) -> NDArray[Any]:
    """A codebook by mini-batch k-means, in one or few passes.

    Reads the data once more before the first pass, to check it and to find the start. Called again with the same
    arguments and `state_file` after it was killed, it goes on after the last whole pass and gives the codebook that
    it would have given.

    Args:
        batches: As for `train_kmeans_stream`; arrays of any size.
        codebook_size: V.
        seed: Fixes the start, and with it the result.
        passes: Passes over the vectors, >= 1.
        batch_size: Vectors after which the codes move, >= 1; None for 4 V, at least 4,096. It fixes the result too.
        start: As for `train_kmeans`.
        metric: As for `train_kmeans`.
        threads: As for `train_kmeans`.
        progress: Called after each pass with its number and the inertia, each vector's distance taken before its batch.
        state_file: Where the state is kept after each pass; None keeps none.

    Returns:
        [V, D] float32, or float64 for float64 vectors.

    Raises:
        SpecError: A number is out of its range, or `start` or `metric` is unknown.
        ShapeError: The vectors or `start` have another shape or dtype.
        InputError: There are no vectors, one is not finite or too large, or a later pass gave others.
        CheckpointError: The state file belongs to a run with other arguments.

    Source:
        Sculley 2010, "Web-scale k-means clustering", algorithm 1, a batch taken at once.
    """
    rows = max(BATCH_VECTORS, BATCH_VECTORS_PER_CODE * codebook_size) if batch_size is None else batch_size
    if codebook_size < 1 or passes < 1 or rows < 1:
        raise SpecError(f"codebook_size={codebook_size}, passes={passes}, batch_size={rows}: all must be at least 1")
    blocks = Blocks(batches, codebook_size, metric=metric, rows=rows)
    settings = {
        "algorithm": "mini-batch", "codebook_size": codebook_size, "seed": seed, "start": start_name(start),
        "metric": metric, "batch_size": rows,
    }  # fmt: skip
    file = StateFile(None if state_file is None else Path(state_file), settings)
    saved = file.load()
    if saved is not None:
        state = _State(**saved)
    else:
        codebook, num_vectors, largest, usual = first_codebook(blocks, codebook_size, seed, start, metric, threads)
        state = _State(
            codebook.astype(np.float64), np.zeros(codebook_size), np.zeros(codebook_size, np.int64), num_vectors,
            largest, usual, wide=codebook.dtype == np.float64,
        )  # fmt: skip
        file.save(state._asdict())
    while state.passed < passes:
        state, inertia = _pass(blocks, state, metric, progress is not None, threads)
        file.save(state._asdict())
        if progress is not None:
            progress(state.passed, inertia)
    return state.rounded()


class _State(NamedTuple):
    """A run after its passes so far.

    Args:
        codebook: [V, D] float64.
        weights: [V] float64, of the vectors each code has won.
        wins: [V] int64, vectors won since idle codes were last looked for.
        num_vectors: N.
        largest: Largest magnitude of a value.
        usual: Median magnitude of a value.
        wide: The vectors are float64.
        since: Vectors since idle codes were last looked for.
        passed: Passes done.
    """

    codebook: NDArray[np.float64]
    weights: NDArray[np.float64]
    wins: NDArray[np.int64]
    num_vectors: int
    largest: float
    usual: float
    wide: bool = False
    since: int = 0
    passed: int = 0

    def rounded(self) -> NDArray[Any]:
        """The codebook as it is searched and returned."""
        return self.codebook if self.wide else self.codebook.astype(np.float32)


def _pass(blocks: Blocks, state: _State, metric: str, measured: bool, threads: int | None) -> tuple[_State, float]:
    """One pass over all batches; the state after it, and the inertia where it is measured."""
    codebook, weights, wins = state.codebook.copy(), state.weights * EARLIER_PASSES_WEIGH, state.wins.copy()
    since, inertia = state.since, 0.0
    look_after = min(IDLE_VECTORS_PER_CODE * len(codebook), state.num_vectors)
    for batch in blocks.again(state.num_vectors, state.largest):
        since += len(batch)
        nearest = Codebook(state._replace(codebook=codebook).rounded()).search(
            batch, distances=measured, threads=threads
        )
        if nearest.distances is not None:
            # accumulate, unlike sum, promises the order of its additions.
            inertia += float(np.add.accumulate(nearest.distances)[-1])
        sums = Sums(codebook.shape, len(batch), state.largest, state.usual)
        sums.add(batch, nearest.codes, threads)
        won = np.flatnonzero(sums.counts)
        wins += sums.counts
        weights[won] += sums.counts[won]
        step = sums.totals()[won] - sums.counts[won, None] * codebook[won]
        codebook[won] += step / weights[won, None]
        if metric == "cosine":
            codebook[won] = unit(codebook[won])
        if since >= look_after:
            idle = wins == 0
            if idle.any():
                live = state._replace(codebook=codebook[~idle]).rounded()
                codebook[idle] = replacements([batch], live, int(idle.sum()), threads)
                weights[idle] = 1
            wins[:], since = 0, 0
    after = state._replace(codebook=codebook, weights=weights, wins=wins, since=since, passed=state.passed + 1)
    return after, inertia
