"""Training with each quantiser works: an autoencoder's error falls, and its codes are in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from multitok.quantize import (
    BSQ,
    FSQ,
    IBQ,
    LFQ,
    CodeStatistics,
    GroupedVQ,
    Quantizer,
    QuantizerOutput,
    ResidualFSQ,
    ResidualVQ,
    SimVQ,
    VectorQuantizer,
)
from tests.quantize.kinds import draw

STEPS, BATCH = 150, 256


class OfEvenLength(nn.Module):
    """Vectors of length 2: by dot products, code vectors of any length compete fairly for these only."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer, self.codebook_sizes = quantizer, quantizer.codebook_sizes

    def forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        return self.quantizer(2 * nn.functional.normalize(vectors, dim=-1))


# A quantiser of D = 4, the error it has to reach as a share of the variance, and the least usage of its codebooks.
CASES: dict[str, tuple[Callable[[], Any], float, float]] = {
    "vq": (lambda: VectorQuantizer(4, 64, decay=0.9), 0.17, 0.95),
    "vq-gradient": (lambda: VectorQuantizer(4, 64, decay=0.9, learning="gradient"), 0.17, 0.95),
    "vq-cosine": (lambda: VectorQuantizer(4, 64, decay=0.9, metric="cosine"), 0.3, 0.95),
    "vq-dot": (lambda: OfEvenLength(VectorQuantizer(4, 64, decay=0.9, metric="dot", learning="gradient")), 0.25, 0.95),
    "vq-rotation": (lambda: VectorQuantizer(4, 64, decay=0.9, rotation_trick=True), 0.17, 0.95),
    "vq-random": (lambda: VectorQuantizer(4, 64, decay=0.9, start="random"), 0.17, 0.95),
    "simvq": (lambda: SimVQ(4, 64), 0.23, 0.95),
    "ibq": (lambda: IBQ(4, 64), 0.3, 0.65),
    "residual": (lambda: ResidualVQ([VectorQuantizer(4, 32, decay=0.9) for _ in range(3)], dropout=0.3), 0.03, 0.95),
    "grouped": (lambda: GroupedVQ([VectorQuantizer(2, 16, decay=0.9) for _ in range(2)]), 0.14, 0.95),
    "fsq": (lambda: FSQ([5, 4, 4, 4]), 0.2, 0.6),
    "residual-fsq": (lambda: ResidualFSQ([3, 3, 3, 3], 2, dropout=0.3), 0.1, 0.95),
    "lfq": (lambda: LFQ(4, inverse_temperature=1.0), 0.4, 1.0),
    "bsq": (lambda: BSQ(4, inverse_temperature=1.0), 0.4, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_falls_and_the_codes_are_used(case: str) -> None:
    build, most, least = CASES[case]
    torch.manual_seed(0)
    quantizer = build()
    mixing = draw(0, 4, 8)
    encoder, decoder = nn.Linear(8, 4), nn.Linear(4, 8)
    parameters = [p for module in (encoder, decoder, quantizer) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    errors = []
    for step in range(STEPS):
        signal = draw(step + 1, BATCH, 4) @ mixing
        found = quantizer(encoder(signal))
        error = (decoder(found.quantized) - signal).square().mean() / signal.square().mean()
        loss = error + 0.25 * found.commitment_loss + found.codebook_loss + 0.1 * found.entropy_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    signal = draw(9999, 2000, 4) @ mixing
    found = quantizer.eval()(encoder(signal))
    with torch.no_grad():
        final = float((decoder(found.quantized) - signal).square().mean() / signal.square().mean())
    assert final < most
    assert final < 0.5 * errors[0]
    statistics = CodeStatistics(quantizer.codebook_sizes)
    statistics.update(found.codes)
    assert min(statistics.usage()) >= least
