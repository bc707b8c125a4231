"""`torch.compile` keeps every quantiser whole, and its steps give what they give without: codes, bits, statistics."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch

from multitok.quantize import Quantizer, ResidualVQ, VectorQuantizer
from tests.quantize.kinds import DIM, KINDS, draw, loss_of

FAST = ("vq-cosine-gradient", "fsq")
EAGER = [pytest.param(kind, "aot_eager", marks=[] if kind in FAST else [pytest.mark.slow]) for kind in KINDS]
INDUCTOR = [
    pytest.param(
        kind,
        "inductor",
        marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")],
    )
    for kind in KINDS
]


@pytest.mark.parametrize(("kind", "backend"), [*EAGER, *INDUCTOR])
def test_training_steps(kind: str, backend: str) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    plain = KINDS[kind]()
    compare(plain, copy.deepcopy(plain), backend)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_quantiser_dropout_and_revival(backend: str) -> None:
    torch.compiler.reset()
    levels = [VectorQuantizer(DIM, 300, dead_below=0.9, decay=0.5) for _ in range(2)]
    plain = ResidualVQ(levels, dropout=0.5)
    compare(plain, copy.deepcopy(plain), backend)
    assert int(levels[0].steps) == 3


def compare(plain: Quantizer, other: Quantizer, backend: str) -> None:
    compiled = torch.compile(other, fullgraph=True, backend=backend)
    for step in range(3):
        given = [draw(step, 4, 50, DIM).requires_grad_() for _ in range(2)]
        found = []
        for module, vectors in zip((plain, compiled), given, strict=True):
            torch.manual_seed(step)  # of the quantiser dropout
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = module(vectors)
            loss_of(out).backward()
            found.append(out)
        # inductor draws its random numbers its own way, then other levels are dropped
        if not (backend == "inductor" and getattr(plain, "dropout", 0)):
            assert torch.equal(found[0].codes, found[1].codes)
            assert torch.equal(found[0].quantized, found[1].quantized)
            torch.testing.assert_close(found[0][2:], found[1][2:])
            torch.testing.assert_close(given[0].grad, given[1].grad)
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(parameter.grad, dict(other.named_parameters())[name].grad)
        for name, tensor in plain.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["vq-cosine-gradient", pytest.param("residual", marks=pytest.mark.slow)])
def test_encoding_and_decoding(kind: str) -> None:
    torch.compiler.reset()
    quantizer = KINDS[kind]().eval()

    def there_and_back(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = quantizer.encode(vectors)
        return codes, quantizer.decode(codes)

    compiled = torch.compile(there_and_back, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (5, 9):
        vectors = draw(count, 2, count, DIM)
        for left, right in zip(compiled(vectors), there_and_back(vectors), strict=True):
            assert torch.equal(left, right)
