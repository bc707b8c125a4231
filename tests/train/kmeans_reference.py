"""k-means by the definition, slow and plain, in float64. N vectors, V codes, D dimensions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.codebook.reference import search


def lloyd(vectors: NDArray[Any], codebook: NDArray[Any], iterations: int) -> NDArray[Any]:
    """The codebook after so many passes, each code without a vector moved to the vector that is worst served."""
    for _ in range(iterations):
        codes = search(vectors, codebook).codes[:, 0]
        used = [code for code in range(len(codebook)) if (codes == code).any()]
        unused = [code for code in range(len(codebook)) if code not in used]
        moved = codebook.copy()
        for code in used:
            own = vectors[codes == code].astype(np.float64)
            moved[code] = [math.fsum(column) / len(own) for column in own.T]
        found = worst_served(vectors, moved[used], len(unused))
        for number, code in enumerate(unused):
            moved[code] = found[number] if number < len(found) else moved[used[(number - len(found)) % len(used)]]
        codebook = moved
    return codebook


def worst_served(vectors: NDArray[Any], codebook: NDArray[Any], wanted: int) -> list[NDArray[Any]]:
    """At most `wanted` different vectors that no code equals, the farthest first, the earlier one where they tie."""
    distances = search(vectors, codebook).distances[:, 0]
    found: list[NDArray[Any]] = []
    for row in sorted(range(len(vectors)), key=lambda row: (-distances[row], row)):
        new = not any(np.array_equal(vectors[row], other) for other in found)
        if len(found) < wanted and distances[row] > 0 and new:
            found.append(vectors[row])
    return found


def inertia(vectors: NDArray[Any], codebook: NDArray[Any]) -> float:
    """Sum of the squared distances of all vectors to their codes."""
    return math.fsum(search(vectors, codebook).distances[:, 0])


def minibatch(vectors: NDArray[Any], codebook: NDArray[Any], batch_size: int) -> NDArray[np.float64]:
    """One pass of Sculley's algorithm 1, vector by vector."""
    codebook = codebook.astype(np.float64)
    won = [0] * len(codebook)
    for start in range(0, len(vectors), batch_size):
        batch = vectors[start : start + batch_size]
        codes = search(batch, codebook.astype(np.float32)).codes[:, 0].tolist()
        for vector, code in zip(batch.astype(np.float64), codes, strict=True):
            won[code] += 1
            codebook[code] += (vector - codebook[code]) / won[code]
    return codebook
