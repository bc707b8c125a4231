"""Codebooks by k-means (Lloyd's algorithm): exact, deterministic by seed, empty codes repaired, any amount of data.

    first pass    count and check the vectors, draw a sample, start from it (kmeans_start.py)
    each pass     nearest code of each vector, sums in fixed point, codes move to the means, codes without any vector
                  to the vectors that are worst served

The codes are exact and the sums are integers, so the codebook is equal to the bit for every number of threads, every
batch size and every machine. N vectors, V codes, D dimensions. Cost of a pass: 2 N V D multiply-adds, and one more
search where a code was empty. Memory beside the vectors: one block (about 8 MiB, at least 4 V vectors), 16 V D bytes of
sums, and at the start a sample of 32 V vectors or 256 MiB. Several codebooks on residuals: `train_residual_kmeans`;
one or few passes over very much data: `multitok.train.kmeans_minibatch`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook, nearest_code
from multitok.errors import SpecError
from multitok.quantize import ResidualQuantizer
from multitok.train.kmeans_data import Batches, Blocks, Floats, survey, unit
from multitok.train.kmeans_start import sample_rows, start_codebook
from multitok.train.kmeans_state import StateFile, start_name
from multitok.train.kmeans_sums import Sums

# Called after each pass with its number, from 1, and the inertia: the sum of the squared distances of all vectors to
# their codes, as they were before the codes moved.
Progress = Callable[[int, float], None]


def train_kmeans(
    vectors: Floats,
    codebook_size: int,
    *,
    seed: int = 0,
    iterations: int = 20,
    start: str | Floats = "k-means++",
    metric: str = "l2",
    tolerance: float = 0.0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """A codebook of cluster means (Lloyd's algorithm).

    A code that wins no vector moves to the vector that is worst served, so none stays dead while there are at
    least `codebook_size` different vectors.

    Args:
        vectors: [N, D] float16, float32 or float64, finite, N >= 1; a memory-mapped array is never read whole.
        codebook_size: V; may exceed the number of different vectors, the codes left over then repeat some.
        seed: Fixes the start, and with it the result.
        iterations: Passes over the vectors at most, >= 1; fewer where no code moves any more.
        start: "k-means++", "sample" (V vectors drawn evenly) or a codebook [V, D].
        metric: "l2", or "cosine": vectors and codes scaled to length 1 (spherical k-means).
        tolerance: Stop also when the inertia of a pass fell by no more than this share; >= 0, 0 for no such stop.
        threads: Threads of the search; None for as many as torch or the machine has.
        progress: Called after each pass with its number and the inertia before it.

    Returns:
        [V, D] float32, or float64 for float64 vectors.

    Raises:
        SpecError: A number is out of its range, or `start` or `metric` is unknown.
        ShapeError: `vectors` or `start` has another shape or dtype.
        InputError: There are no vectors, or one is not finite or of magnitude above 2^500.

    Source:
        Lloyd 1982, "Least squares quantization in PCM"; Arthur and Vassilvitskii 2007, "k-means++: the advantages of
        careful seeding"; Dhillon and Modha 2001, "Concept decompositions for large sparse text data" (cosine).
    """
    return train_kmeans_stream(
        [vectors], codebook_size, seed=seed, iterations=iterations, start=start, metric=metric, tolerance=tolerance,
        threads=threads, progress=progress,
    )  # fmt: skip


def train_kmeans_stream(
    batches: Batches,
    codebook_size: int,
    *,
    seed: int = 0,
    iterations: int = 20,
    start: str | Floats = "k-means++",
    metric: str = "l2",
    tolerance: float = 0.0,
    threads: int | None = None,
    progress: Progress | None = None,
    state_file: str | os.PathLike[str] | None = None,
) -> NDArray[Any]:
    """`train_kmeans` on data that does not fit in memory: the same codebook, whatever the batches.

    Reads the data once to find the start and then once for each pass, and once more after a pass that left a code
    empty. Called again with the same arguments and `state_file` after it was killed, it goes on after the last whole
    pass and gives the codebook that it would have given.

    Args:
        batches: A function that returns a new iterator over arrays [n, D] for each pass, always with the same
            vectors in the same order, or a list of arrays, .npy files and .safetensors files of one tensor.
        codebook_size: V.
        seed: As for `train_kmeans`.
        iterations: As for `train_kmeans`; may be raised to go on with a finished run.
        start: As for `train_kmeans`.
        metric: As for `train_kmeans`.
        tolerance: As for `train_kmeans`.
        threads: As for `train_kmeans`.
        progress: As for `train_kmeans`.
        state_file: Where the state is kept after each pass; None keeps none.

    Returns:
        [V, D] float32, or float64 for float64 vectors.

    Raises:
        MultitokError: As for `train_kmeans`.
        InputError: A later pass gave other vectors, or a file cannot be read.
        CheckpointError: The state file belongs to a run with other arguments.
    """
    if codebook_size < 1 or iterations < 1:
        raise SpecError(f"codebook_size={codebook_size}, iterations={iterations}: both must be at least 1")
    if not tolerance >= 0:
        raise SpecError(f"tolerance={tolerance}: give 0 or more")
    blocks = Blocks(batches, codebook_size, metric=metric)
    settings = {
        "algorithm": "lloyd", "codebook_size": codebook_size, "seed": seed, "start": start_name(start),
        "metric": metric, "tolerance": tolerance,
    }  # fmt: skip
    file = StateFile(None if state_file is None else Path(state_file), settings)
    saved = file.load()
    if saved is not None:
        state = _State(**saved)
    else:
        state = _State(*first_codebook(blocks, codebook_size, seed, start, metric, threads))
        file.save(state._asdict())
    measured = tolerance > 0 or progress is not None
    while state.iteration < iterations and not state.finished:
        before = state
        state = _pass(blocks, before, metric, measured, threads)
        fell = before.inertia - state.inertia
        if tolerance > 0 and before.iteration > 0 and fell <= tolerance * before.inertia:
            state = state._replace(finished=True)
        file.save(state._asdict())
        if progress is not None:
            progress(state.iteration, state.inertia)
    return state.codebook


def train_residual_kmeans(
    vectors: Floats,
    codebook_sizes: Sequence[int],
    *,
    seed: int = 0,
    iterations: int = 20,
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    threads: int | None = None,
) -> ResidualQuantizer:
    """A residual quantiser: each codebook by k-means on what the ones before it leave over.

    Args:
        vectors: [N, D] floats, finite, N >= 1; taken as float32.
        codebook_sizes: Size of each codebook, coarsest first.
        seed: Fixes every start, and with it the result.
        iterations: Passes over the vectors for each codebook.
        finish: Applied to each codebook before its residual is taken (rounding, for instance).
        threads: As for `train_kmeans`.

    Returns:
        A quantiser of these codebooks.

    Raises:
        SpecError: A size or `iterations` is below 1, or there is no size.
        InputError: There are no vectors, or one is not finite.
    """
    residual = vectors.astype(np.float32, copy=False)
    codebooks: list[NDArray[np.float32]] = []
    for k, size in enumerate(codebook_sizes):
        codebook = train_kmeans(residual, size, seed=seed + k, iterations=iterations, threads=threads)
        codebooks.append(codebook if finish is None else finish(codebook))
        if k + 1 < len(codebook_sizes):
            residual = residual - codebooks[-1][nearest_code(residual, codebooks[-1], threads=threads)]
    return ResidualQuantizer(codebooks)


class _State(NamedTuple):
    """A run after its passes so far.

    Args:
        codebook: [V, D].
        num_vectors: N.
        largest: Largest magnitude of a value.
        usual: Median magnitude of a value.
        iteration: Passes done.
        inertia: Before the last of them; 0 where it was not asked for.
        finished: A further pass would change nothing, or less than was asked for.
    """

    codebook: NDArray[Any]
    num_vectors: int
    largest: float
    usual: float
    iteration: int = 0
    inertia: float = 0.0
    finished: bool = False


def first_codebook(
    blocks: Blocks, codebook_size: int, seed: int, start: str | Floats, metric: str, threads: int | None
) -> tuple[NDArray[Any], int, float, float]:
    """The first pass: the codebook to start from, the number of vectors, the largest and the usual magnitude."""
    rng = np.random.default_rng(seed)
    found = survey(blocks, lambda dim, dtype: sample_rows(start, codebook_size, dim, dtype), rng)
    codebook = start_codebook(start, found, codebook_size, rng, threads)
    codebook = unit(codebook) if metric == "cosine" else codebook
    return codebook, found.num_vectors, found.largest, found.usual


def _pass(blocks: Blocks, state: _State, metric: str, measured: bool, threads: int | None) -> _State:
    """Move each code to the mean of its vectors, and codes without any to where they are needed."""
    codebook = state.codebook
    sums = Sums(codebook.shape, state.num_vectors, state.largest, state.usual)
    prepared, inertia = Codebook(codebook), 0.0
    for block in blocks.again(state.num_vectors, state.largest):
        nearest = prepared.search(block, distances=measured, threads=threads)
        sums.add(block, nearest.codes, threads)
        if nearest.distances is not None:
            # accumulate, unlike sum, promises the order of its additions.
            inertia += float(np.add.accumulate(nearest.distances)[-1])
    used = sums.counts > 0
    moved = codebook.copy()
    moved[used] = sums.totals()[used] / sums.counts[used, None]
    if metric == "cosine":
        moved = unit(moved)
    if not used.all():
        moved[~used] = replacements(blocks, moved[used], int((~used).sum()), threads)
    same = bool(np.array_equal(moved, codebook))
    return state._replace(codebook=moved, iteration=state.iteration + 1, inertia=inertia, finished=same)


def replacements(blocks: Iterable[Floats], live: NDArray[Any], wanted: int, threads: int | None) -> NDArray[Any]:
    """[wanted, D]: the different vectors farthest from the live codes; where these run out, live codes again."""
    prepared = Codebook(live)
    vectors, distances = live[:0], np.empty(0)
    for block in blocks:
        found = prepared.search(block, distances=True, threads=threads).distances
        # A vector at distance 0 has its code already.
        farther = np.flatnonzero(found > (distances[-1] if len(vectors) == wanted else 0))
        vectors = np.concatenate([vectors, block[farther]])
        distances = np.concatenate([distances, found[farther]])
        kept: list[int] = []
        known: set[bytes] = set()
        for row in np.argsort(-distances, kind="stable").tolist():
            key = (vectors[row] + 0).tobytes()  # -0 becomes 0
            if key not in known:
                known.add(key)
                kept.append(row)
                if len(kept) == wanted:
                    break
        vectors, distances = vectors[kept], distances[kept]
    return np.concatenate([vectors, np.resize(live, (wanted - len(vectors), live.shape[1]))])
