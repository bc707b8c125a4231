"""Data on which searches go wrong: ties, near ties, and magnitudes that float32 or float64 cannot carry.

Values are drawn in float64 and rounded to the dtype asked for, in which they are finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Takes a generator, x [N, D] and c [V, D] from a Gaussian, the dtype's largest and smallest normal number.
Family = Callable[[np.random.Generator, Floats, Floats, float, float], tuple[Floats, Floats]]
DTYPES = ("float16", "bfloat16", "float32", "float64")


class Data(NamedTuple):
    """vectors [N, D] and a codebook [V, D]: NumPy arrays, or tensors where the dtype is bfloat16."""

    vectors: Any
    codebook: Any


def rounded(values: Floats, dtype: str) -> Any:
    """`values` in `dtype`."""
    if dtype == "bfloat16":
        return torch.from_numpy(values).to(torch.bfloat16)
    return values.astype(dtype)


def draw(family: str, dtype: str, count: int, size: int, dim: int, seed: int = 0) -> Data:
    """One of `FAMILIES`, of N = count, V = size, D = dim."""
    rng = np.random.default_rng(seed)
    info = torch.finfo(getattr(torch, dtype))
    x, c = rng.standard_normal((count, dim)), rng.standard_normal((size, dim))
    with np.errstate(over="ignore", under="ignore"):
        vectors, codebook = FAMILIES[family](rng, x, c, float(info.max), float(info.tiny))
    limit = float(info.max) / 2
    return Data(*(rounded(np.clip(values, -limit, limit), dtype) for values in (vectors, codebook)))


def _clustered(rng: np.random.Generator, x: Floats, c: Floats, spread: float) -> tuple[Floats, Floats]:
    centres = rng.standard_normal((5, c.shape[1]))
    return centres[rng.integers(0, 5, len(x))] + spread * x, centres[rng.integers(0, 5, len(c))] + spread * c


def _duplicated(rng: np.random.Generator, x: Floats, c: Floats, top: float, tiny: float) -> tuple[Floats, Floats]:
    half = (len(c) + 1) // 2
    return x, c[rng.permutation(np.arange(len(c)) % half)]


def _midpoints(rng: np.random.Generator, x: Floats, c: Floats, top: float, tiny: float) -> tuple[Floats, Floats]:
    """Vectors halfway between two codes, on a grid that makes it exact in every dtype."""
    c = np.round(c * 4)
    return (c[rng.integers(0, len(c), len(x))] + c[rng.integers(0, len(c), len(x))]) / 2, c


def _outlying_row(rng: np.random.Generator, x: Floats, c: Floats, top: float, tiny: float) -> tuple[Floats, Floats]:
    far = min(top**0.3, 1e12)
    x[len(x) // 2] *= far
    c[len(c) // 3] *= far
    return x, c


def _outlying_coordinate(
    rng: np.random.Generator, x: Floats, c: Floats, top: float, tiny: float
) -> tuple[Floats, Floats]:
    far = min(top**0.3, 1e6)
    x[:, -1] *= far
    c[:, -1] *= far
    return x, c


def _mixed_norms(rng: np.random.Generator, x: Floats, c: Floats, top: float, tiny: float) -> tuple[Floats, Floats]:
    decades = 6 if top > 1e10 else 2
    return (
        x * 10 ** rng.uniform(-decades, decades, (len(x), 1)),
        c * 10 ** rng.uniform(-decades, decades, (len(c), 1)),
    )


def _some_scaled(factor: Callable[[float, float], float]) -> Family:
    def family(rng: np.random.Generator, x: Floats, c: Floats, top: float, tiny: float) -> tuple[Floats, Floats]:
        c[::2] *= factor(top, tiny)
        return x, c

    return family


def _zeros(rng: np.random.Generator, x: Floats, c: Floats, top: float, tiny: float) -> tuple[Floats, Floats]:
    """Some vectors, codes and coordinates of length 0."""
    x[::3], c[1::4] = 0, 0
    x[rng.random(x.shape) < 0.3] = 0
    return x, c


FAMILIES: dict[str, Family] = {
    "gaussian": lambda rng, x, c, top, tiny: (x, c),
    "clustered": lambda rng, x, c, top, tiny: _clustered(rng, x, c, 0.05),
    "tight": lambda rng, x, c, top, tiny: _clustered(rng, x, c, 1e-4),
    "duplicated": _duplicated,
    "one code": lambda rng, x, c, top, tiny: (x, np.repeat(c[:1], len(c), axis=0)),
    "offset": lambda rng, x, c, top, tiny: (x + 100, c + 100),
    "tight and offset": lambda rng, x, c, top, tiny: (1e-3 * x + 100, 1e-3 * c - 100),
    "integers": lambda rng, x, c, top, tiny: (np.round(x), np.round(c)),
    "midpoints": _midpoints,
    "tiny": lambda rng, x, c, top, tiny: (x * tiny * 2**7, c * tiny * 2**7),
    "denormal": lambda rng, x, c, top, tiny: (x * tiny / 4, c * tiny / 4),
    "small squares": lambda rng, x, c, top, tiny: (x * tiny**0.5255, c * tiny**0.5255),
    "large squares": lambda rng, x, c, top, tiny: (x * top**0.52, c * top**0.52),
    "codes with small squares": lambda rng, x, c, top, tiny: (x, c * tiny**0.5255),
    "codes with large squares": lambda rng, x, c, top, tiny: (x, c * top**0.52),
    "some codes with small squares": _some_scaled(lambda top, tiny: tiny**0.5255),
    "some codes with large squares": _some_scaled(lambda top, tiny: top**0.52),
    "huge": lambda rng, x, c, top, tiny: (x * (top / 64), c * (top / 64)),
    "largest": lambda rng, x, c, top, tiny: (x * top, c * top),
    "vectors far away": lambda rng, x, c, top, tiny: (x * min(top**0.3, 1e12), c * 1e-2),
    "outlying row": _outlying_row,
    "outlying coordinate": _outlying_coordinate,
    "mixed norms": _mixed_norms,
    "zeros": _zeros,
}
