"""Vectors and codebooks that try a search: where scores are close, equal, far off, or of every size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

Pair = tuple[torch.Tensor, torch.Tensor]


def gaussian(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    return torch.randn(count, dim, generator=random), torch.randn(size, dim, generator=random)


def clustered(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    """Vectors near codes, codes in a few clusters."""
    middles = 5 * torch.randn(7, dim, generator=random)
    codes = middles[torch.randint(7, (size,), generator=random)] + 0.3 * torch.randn(size, dim, generator=random)
    picked = codes[torch.randint(size, (count,), generator=random)]
    return picked + 0.05 * torch.randn(count, dim, generator=random), codes


def duplicated(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    """Every code several times: the lowest index has to win."""
    vectors, codes = gaussian(count, size, dim, random)
    return vectors, codes[torch.randint(max(size // 3, 1), (size,), generator=random)]


def tight(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    """All codes within 1e-4 of each other: more candidates than lists hold."""
    codes = torch.randn(1, dim, generator=random) + 1e-4 * torch.randn(size, dim, generator=random)
    picked = codes[torch.randint(size, (count,), generator=random)]
    return picked + 1e-5 * torch.randn(count, dim, generator=random), codes


def neighbours(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    """Codes in families of about eight that differ in the last bits: float32 scores cannot tell them apart."""
    families = torch.randn(size // 8 + 1, dim, generator=random)
    of_each = torch.randint(len(families), (size,), generator=random)
    codes = families[of_each] * (1 + 2.0**-23 * torch.randint(-2, 3, (size, dim), generator=random))
    return families[torch.randint(len(families), (count,), generator=random)] + 0.01, codes


def offset(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    """Everything far from 0, where scores cancel."""
    vectors, codes = gaussian(count, size, dim, random)
    return vectors + 100, codes + 100


def integers(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    """Exact ties between different codes."""
    return (
        torch.randint(-2, 3, (count, dim), generator=random).float(),
        torch.randint(-2, 3, (size, dim), generator=random).float(),
    )


def scattered(count: int, size: int, dim: int, random: torch.Generator) -> Pair:
    """Sizes from 1e-30 to 1e18, some vectors and codes 0: bounds that do not hold, norms that are 0."""
    vectors, codes = gaussian(count, size, dim, random)
    vectors = vectors * 10.0 ** torch.randint(-30, 19, (count, 1), generator=random).float()
    codes = codes * 10.0 ** torch.randint(-3, 4, (size, 1), generator=random).float()
    vectors[::7] = 0
    codes[::5] = 0
    return vectors, codes


KINDS: dict[str, Callable[[int, int, int, torch.Generator], Pair]] = {
    kind.__name__: kind for kind in (gaussian, clustered, duplicated, tight, neighbours, offset, integers, scattered)
}


def make(kind: str, count: int, size: int, dim: int, seed: int = 0) -> Pair:
    """Vectors [count, dim] and a codebook [size, dim], float32."""
    return KINDS[kind](count, size, dim, torch.Generator().manual_seed(seed))


@contextmanager
def far_apart(vectors: torch.Tensor) -> Iterator[torch.Tensor]:
    """The same rows, 2^30 + 8 values apart, so that offsets pass 2^31: in a file of which hardly anything is stored."""
    count, dim = vectors.shape
    step = 2**30 + 8
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(4 * ((count - 1) * step + dim))
        values = torch.from_numpy(np.memmap(file.name, np.float32, "r+"))
        rows = values.as_strided((count, dim), (step, 1))
        rows.copy_(vectors)
        yield rows
