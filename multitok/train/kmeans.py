"""Codebooks by k-means: squared distance, k-means++ start, empty clusters repaired, deterministic by seed.

N vectors, V codes, D dimensions. Cost: `iterations` full passes of the codebook search, 2 N V D multiply-adds each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import nearest_code
from multitok.errors import InputError, SpecError
from multitok.quantize import ResidualQuantizer

# The start is drawn from this many vectors per code: more costs time and changes little.
START_VECTORS_PER_CODE = 32


def train_kmeans(
    vectors: NDArray[np.float32], codebook_size: int, *, seed: int = 0, iterations: int = 20
) -> NDArray[np.float32]:
    """A codebook of cluster means (Lloyd's algorithm).

    A code that wins no vector moves to the vector that is worst served, so no dead code remains while there are
    at least `codebook_size` different vectors.

    Args:
        vectors: [N, D] float32, finite, N >= 1.
        codebook_size: V; may exceed the number of different vectors, the codes left over then repeat some.
        seed: Fixes the start, and with it the result.
        iterations: Passes over the vectors, >= 1.

    Returns:
        [V, D] float32.

    Raises:
        SpecError: `codebook_size` or `iterations` is below 1.
        InputError: There are no vectors, or one is not finite.

    Source:
        Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
    """
    if codebook_size < 1 or iterations < 1:
        raise SpecError(f"codebook_size={codebook_size}, iterations={iterations}: both must be at least 1")
    if len(vectors) == 0:
        raise InputError("no vectors given: k-means needs at least one")
    rng = np.random.default_rng(seed)
    codebook = _start(vectors, codebook_size, rng)
    for _ in range(iterations):
        codebook = _step(vectors, codebook)
    return codebook


def train_residual_kmeans(
    vectors: NDArray[np.float32],
    codebook_sizes: Sequence[int],
    *,
    seed: int = 0,
    iterations: int = 20,
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
) -> ResidualQuantizer:
    """A residual quantiser: each codebook by k-means on what the ones before it leave over.

    Args:
        vectors: [N, D] float32, finite, N >= 1.
        codebook_sizes: Size of each codebook, coarsest first.
        seed: Fixes every start, and with it the result.
        iterations: Passes over the vectors for each codebook.
        finish: Applied to each codebook before its residual is taken (rounding, for instance).

    Returns:
        A quantiser of these codebooks.

    Raises:
        SpecError: A size or `iterations` is below 1, or there is no size.
        InputError: There are no vectors, or one is not finite.
    """
    residual = vectors
    codebooks: list[NDArray[np.float32]] = []
    for k, size in enumerate(codebook_sizes):
        codebook = train_kmeans(residual, size, seed=seed + k, iterations=iterations)
        codebooks.append(codebook if finish is None else finish(codebook))
        residual = residual - codebooks[-1][nearest_code(residual, codebooks[-1])]
    return ResidualQuantizer(codebooks)


def _start(vectors: NDArray[np.float32], codebook_size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """k-means++: each new code is a vector drawn with probability proportional to its distance from the nearest one."""
    wanted = codebook_size * START_VECTORS_PER_CODE
    pool = vectors if len(vectors) <= wanted else vectors[np.sort(rng.choice(len(vectors), wanted, replace=False))]
    norms = np.einsum("nd,nd->n", pool, pool, dtype=np.float64)
    chosen = np.empty(codebook_size, np.int64)
    distance = np.full(len(pool), np.inf)
    chosen[0] = rng.integers(len(pool))
    for index in range(1, codebook_size):
        newest = pool[chosen[index - 1]]
        # einsum does not call the BLAS, so its sums do not depend on the number of threads.
        towards = np.einsum("nd,d->n", pool, newest, dtype=np.float64)
        np.minimum(distance, np.maximum(norms - 2 * towards + norms[chosen[index - 1]], 0), out=distance)
        weight = np.cumsum(distance)
        chosen[index] = (
            np.searchsorted(weight, rng.random() * weight[-1], side="right") if weight[-1] > 0 else index % len(pool)
        )
        chosen[index] = min(int(chosen[index]), len(pool) - 1)
    return pool[chosen]


def _step(vectors: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.float32]:
    """One pass: assign, move each code to the mean of its vectors, repair codes without any."""
    size, dim = codebook.shape
    codes = nearest_code(vectors, codebook)
    counts = np.bincount(codes, minlength=size)
    sums = np.stack([np.bincount(codes, weights=vectors[:, d], minlength=size) for d in range(dim)], axis=1)
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        error = np.square(vectors - means[codes]).sum(axis=1)
        worst = np.argsort(-error, kind="stable")
        # Different vectors only: two codes at one place would leave one of them empty again.
        _, first = np.unique(vectors[worst[: 16 * len(empty)]], axis=0, return_index=True)
        places = worst[np.sort(first)]
        means[empty] = vectors[np.resize(places, len(empty))]
    return means
