"""Training with each quantiser works: an autoencoder's error falls, and its codes are in use."""

from __future__ import annotations

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
    ResidualFSQ,
    ResidualVQ,
    SimVQ,
    VectorQuantizer,
)
from tests.quantize.kinds import draw

STEPS, BATCH = 150, 256

# A quantiser of D = 4, the error it has to reach as a share of the variance, and the least usage of its codebooks.
CASES: dict[str, tuple[Any, float, float]] = {
    "vq": (lambda: VectorQuantizer(4, 64, decay=0.9), 0.3, 0.9),
    "vq-gradient": (lambda: VectorQuantizer(4, 64, decay=0.9, learning="gradient"), 0.3, 0.9),
    "vq-cosine": (lambda: VectorQuantizer(4, 64, decay=0.9, metric="cosine"), 0.5, 0.9),
    "vq-dot": (lambda: VectorQuantizer(4, 64, decay=0.9, metric="dot", learning="gradient"), 0.7, 0.5),
    "vq-rotation": (lambda: VectorQuantizer(4, 64, decay=0.9, rotation_trick=True), 0.3, 0.9),
    "vq-random": (lambda: VectorQuantizer(4, 64, decay=0.9, start="random"), 0.3, 0.9),
    "simvq": (lambda: SimVQ(4, 64), 0.35, 0.8),
    "ibq": (lambda: IBQ(4, 64, entropy_temperature=1.0), 0.6, 0.6),
    "residual": (lambda: ResidualVQ([VectorQuantizer(4, 32, decay=0.9) for _ in range(3)], dropout=0.3), 0.15, 0.9),
    "grouped": (lambda: GroupedVQ([VectorQuantizer(2, 16, decay=0.9) for _ in range(2)]), 0.3, 0.9),
    "fsq": (lambda: FSQ([5, 4, 4, 4]), 0.3, 0.5),
    "residual-fsq": (lambda: ResidualFSQ([3, 3, 3, 3], 2, dropout=0.3), 0.2, 0.4),
    "lfq": (lambda: LFQ(4, inverse_temperature=1.0), 0.6, 0.9),
    "bsq": (lambda: BSQ(4, inverse_temperature=1.0), 0.6, 0.9),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_falls_and_the_codes_are_used(case: str) -> None:
    build, most, least = CASES[case]
    torch.manual_seed(0)
    quantizer: Quantizer = build()
    mixing = draw(0, 4, 8)
    encoder, decoder = nn.Linear(8, 4), nn.Linear(4, 8)
    parameters = [p for module in (encoder, decoder, quantizer) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    errors = []
    for step in range(STEPS):
        signal = draw(step + 1, BATCH, 4) @ mixing
        found = quantizer(encoder(signal))
        error = (decoder(found.quantized) - signal).square().mean() / signal.square().mean()
        loss = error + 0.25 * found.commitment_loss + found.codebook_loss + 0.02 * found.entropy_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    signal = draw(9999, 2000, 4) @ mixing
    found = quantizer.eval()(encoder(signal))
    final = float((decoder(found.quantized) - signal).square().mean() / signal.square().mean())
    assert final < most
    assert final < 0.8 * errors[0]
    statistics = CodeStatistics(quantizer.codebook_sizes)
    statistics.update(found.codes)
    assert min(statistics.usage()) >= least
    print(case, errors[0], final, statistics.usage(), statistics.perplexity())
