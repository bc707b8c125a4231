"""One small quantiser of each kind, D = 8, for the tests that all of them have to pass."""

from __future__ import annotations

from collections.abc import Callable

import torch

from multitok.quantize import (
    BSQ,
    FSQ,
    IBQ,
    LFQ,
    GroupedVQ,
    Quantizer,
    QuantizerOutput,
    ResidualFSQ,
    ResidualVQ,
    SimVQ,
    VectorQuantizer,
)

DIM = 8

KINDS: dict[str, Callable[[], Quantizer]] = {
    "vq": lambda: VectorQuantizer(DIM, 32),
    "vq-gradient": lambda: VectorQuantizer(DIM, 32, learning="gradient", rotation_trick=True),
    "vq-cosine": lambda: VectorQuantizer(DIM, 32, metric="cosine"),
    "vq-cosine-gradient": lambda: VectorQuantizer(DIM, 32, metric="cosine", learning="gradient"),
    "vq-dot": lambda: VectorQuantizer(DIM, 32, metric="dot", learning="gradient"),
    "simvq": lambda: SimVQ(DIM, 32, frozen_dim=5),
    "ibq": lambda: IBQ(DIM, 32),
    "residual": lambda: ResidualVQ([VectorQuantizer(DIM, size) for size in (16, 8, 8)]),
    "residual-simvq": lambda: ResidualVQ([SimVQ(DIM, 16), SimVQ(DIM, 16)], rotation_trick=True),
    "grouped": lambda: GroupedVQ([VectorQuantizer(5, 16), VectorQuantizer(3, 8, learning="gradient")]),
    "grouped-residual": lambda: GroupedVQ([ResidualVQ([VectorQuantizer(4, 8) for _ in range(2)]) for _ in range(2)]),
    "fsq": lambda: FSQ([8, 8, 8, 5, 5, 5, 3, 4]),
    "grouped-fsq": lambda: GroupedVQ([FSQ([5, 5, 4, 4]), FSQ([7, 3, 3, 3])]),
    "residual-fsq": lambda: ResidualFSQ([4, 5, 2, 3, 4, 5, 2, 3], 3),
    "lfq": lambda: LFQ(DIM),
    "bsq": lambda: BSQ(DIM, num_codebooks=2),
}


def make(kind: str, *, steps: int = 2) -> Quantizer:
    """A quantiser that has been through a few training steps, which start its codebook."""
    torch.manual_seed(0)
    quantizer = KINDS[kind]()
    for step in range(steps):
        quantizer(draw(100 + step, 200, DIM))
    return quantizer


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss_of(found: QuantizerOutput) -> torch.Tensor:
    return found.quantized.pow(3).mean() + found.commitment_loss + found.codebook_loss + found.entropy_loss / 8
