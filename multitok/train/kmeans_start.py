"""The codes that k-means starts from: k-means++ with a surplus, a plain sample, or a codebook given.

k-means++ draws each code from the sample with probability proportional to the squared distance to the codes before
it. Updating all distances after each code would read the sample V times. Here they are updated for many codes at
once by the codebook search, and the codes between two updates are drawn by rejection, which gives the very same
probabilities: a vector is drawn by its distance d to the codes known at the last update, and accepted with
probability e / d, where e is its distance to all codes so far.

    d   of the whole sample, updated when the codes have doubled, or when few vectors are accepted any more
    e   of the vectors drawn since: within each part of 64 after every code, for the parts after it once a part

Twice as many codes as wanted are drawn, and then those dropped without which the distances grow least, in rounds. A
code dropped leaves its vectors to its neighbour, which stays for this round: else both codes of a cluster that needs
one might go. On clustered data this brought the inertia after Lloyd's passes down by 10 to 20 per cent, to that of the
greedy k-means++, which looks at several candidates for each code and takes far longer.

S sampled vectors, V codes, D dimensions. Cost: about 9 S V D multiply-adds, nine passes of the search over the sample.
Memory: the sample, and 48 bytes for each of its vectors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.errors import ShapeError, SpecError
from multitok.train.kmeans_data import Floats, Survey

# The start is drawn from an eighth of the vectors, but from 16 to 32 for each code: more costs time and changes little.
# Fewer where they would take more than SAMPLE_BYTES, but FEWEST_PER_CODE at least.
SHARE_OF_VECTORS = 8
VECTORS_PER_CODE = (16, 32)
FEWEST_PER_CODE = 4
SAMPLE_BYTES = 2**28
# Vectors drawn by one matrix of distances between them.
PART = 64
# Codes drawn for each one that is kept, where there are enough vectors per code to tell which matter least.
DRAWN_PER_CODE = 2
ENOUGH_PER_CODE = 8
# Share of the surplus that goes in one round; what is below V / 64 goes at once.
DROPPED_AT_ONCE = 0.7


def sample_rows(start: str | Floats, codebook_size: int, dim: int, dtype: np.dtype[Any]) -> int:
    """How many vectors a start of this kind is drawn from.

    Raises:
        SpecError: There is no such start.
    """
    if not isinstance(start, str):
        return 0
    if start == "sample":
        return codebook_size
    if start == "k-means++":
        affordable = max(SAMPLE_BYTES // (dim * dtype.itemsize), FEWEST_PER_CODE * codebook_size)
        return min(VECTORS_PER_CODE[1] * codebook_size, affordable)
    raise SpecError(f'start={start!r}: give "k-means++", "sample" or a codebook [V, D]')


def start_codebook(
    start: str | Floats, found: Survey, codebook_size: int, rng: np.random.Generator, threads: int | None
) -> Floats:
    """The first codes [V, D], in the dtype of the codebook.

    Args:
        start: "k-means++", "sample", or a codebook [V, D] of finite floats.
        found: Holds the sample to draw from; fewer vectors than codes are repeated.
        codebook_size: V.
        rng: Draws the codes.
        threads: As for `nearest_code`.

    Raises:
        ShapeError: The codebook given is not [V, D].
        SpecError: The codebook given is not finite.
    """
    if not isinstance(start, str):
        if not isinstance(start, np.ndarray) or start.shape != (codebook_size, found.dim) or start.dtype.kind != "f":
            shown = f"{start.dtype} {list(start.shape)}" if isinstance(start, np.ndarray) else type(start).__name__
            raise ShapeError(f"start is {shown}: give floats [V, D] = [{codebook_size}, {found.dim}]")
        codebook = start.astype(found.dtype)
        if not np.isfinite(codebook).all():
            raise SpecError("start holds NaN or infinity: give finite codes")
        return codebook
    sample = found.sample
    if start == "k-means++":
        rows = max(found.num_vectors // SHARE_OF_VECTORS, VECTORS_PER_CODE[0] * codebook_size)
        if rows < len(sample):
            sample = sample[rng.permutation(len(sample))[:rows]]
        enough = len(sample) >= ENOUGH_PER_CODE * codebook_size
        chosen = _plus_plus(sample, (DRAWN_PER_CODE if enough else 1) * codebook_size, rng, threads)
        codes = _without_surplus(sample[chosen], sample, codebook_size, threads)
    else:
        codes = sample[rng.permutation(len(sample))[:codebook_size]]
    return codes[np.arange(codebook_size) % len(codes)].astype(found.dtype)


def _plus_plus(sample: Floats, size: int, rng: np.random.Generator, threads: int | None) -> NDArray[np.int64]:
    """Row numbers of the sample, `size` or, where it has fewer different vectors, one of each."""
    chosen = np.empty(size, np.int64)
    chosen[0] = rng.integers(len(sample))
    count, known = 1, 0
    distance = np.full(len(sample), np.inf)
    while count < size:
        np.minimum(distance, _distance(sample[chosen[known:count]], sample, threads), out=distance)
        known = count
        weight = np.cumsum(distance)
        if weight[-1] == 0:
            break
        drawn = max(known, PART)
        row = np.minimum(np.searchsorted(weight, rng.random(drawn) * weight[-1], side="right"), len(sample) - 1)
        threshold = rng.random(drawn) * distance[row]
        current = distance[row]
        for begin in range(0, drawn, PART):
            first, end = count, min(begin + PART, drawn)
            between = _squared_distances(sample[row[begin:end]])
            for i in range(begin, end):
                if threshold[i] < current[i] and count < size:
                    chosen[count] = row[i]
                    count += 1
                    np.minimum(current[begin:end], between[i - begin], out=current[begin:end])
            if count == size or count - first < PART // 2:
                break
            if end < drawn:
                newer = _distance(sample[chosen[first:count]], sample[row[end:]], threads)
                np.minimum(current[end:], newer, out=current[end:])
    return chosen[:count]


def _without_surplus(codes: Floats, sample: Floats, size: int, threads: int | None) -> Floats:
    """[V, D] the codes that the sample needs most; `codes` are all different."""
    while len(codes) > size:
        codebook = Codebook(codes)
        found = codebook.search(sample, k=2, distances=True, threads=threads)
        loss = np.bincount(found.codes[:, 0], found.distances[:, 1] - found.distances[:, 0], len(codes))
        neighbour = codebook.search(codes, k=2, threads=threads).codes[:, 1].tolist()
        surplus = len(codes) - size
        wanted = surplus if surplus <= size // 64 else math.ceil(DROPPED_AT_ONCE * surplus)
        dropped: set[int] = set()
        kept: set[int] = set()
        for code in np.argsort(loss, kind="stable").tolist():
            if len(dropped) < wanted and code not in kept and neighbour[code] not in dropped:
                dropped.add(code)
                kept.add(neighbour[code])
        codes = np.delete(codes, sorted(dropped), axis=0)
    return codes


def _distance(codes: Floats, vectors: Floats, threads: int | None) -> NDArray[np.float64]:
    """[N] squared distance of each vector to the nearest code."""
    distances: NDArray[np.float64] = Codebook(codes).search(vectors, distances=True, threads=threads).distances
    return distances


def _squared_distances(vectors: Floats) -> NDArray[np.float64]:
    """[N, N] between all pairs, the terms added in the order of D."""
    total = np.zeros((len(vectors),) * 2)
    for values in vectors.T.astype(np.float64):
        difference = values[:, None] - values
        total += np.square(difference, out=difference)
    return total
