"""IBQ against its definition written out: one-hot codes, softmax, and what autograd makes of them."""

from __future__ import annotations

import pytest
import torch

from multitok.errors import SpecError
from multitok.quantize import IBQ
from tests.quantize.kinds import draw


def by_definition(vectors: torch.Tensor, codebook: torch.Tensor, temperature: float) -> tuple[torch.Tensor, ...]:
    """(hard + soft - soft.detach()) @ codebook, and the losses, all differentiable."""
    logits = vectors @ codebook.T
    soft = logits.softmax(dim=1)
    hard = torch.nn.functional.one_hot(logits.argmax(dim=1), len(codebook)).to(soft)
    quantized = (hard + soft - soft.detach()) @ codebook
    chosen = hard @ codebook
    cold = (logits / temperature).softmax(dim=1)
    entropy = torch.special.entr(cold).sum(dim=1).mean() - torch.special.entr(cold.mean(dim=0)).sum()
    commitment_loss = (vectors - chosen.detach()).square().mean()
    return quantized, commitment_loss, (vectors.detach() - chosen).square().mean(), entropy


@pytest.mark.parametrize("block", [None, 100])
def test_values_losses_and_both_gradients(block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if block is not None:
        monkeypatch.setattr("multitok.quantize.ibq.BLOCK_VALUES", block)
    torch.manual_seed(0)
    quantizer = IBQ(6, 20, entropy_temperature=0.3)
    vectors = draw(0, 40, 6).requires_grad_()
    found = quantizer(vectors)
    wide = vectors.detach().double().requires_grad_(), quantizer.codebook.detach().double().requires_grad_()
    expected = by_definition(*wide, 0.3)
    incoming = draw(1, 40, 6)
    ours = [(found.quantized * incoming).sum(), *found[2:]]
    theirs = [(expected[0] * incoming).sum(), *expected[1:]]
    torch.testing.assert_close(found.quantized.double(), expected[0])
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-5, atol=1e-5)
        given = torch.autograd.grad(left, [vectors, quantizer.codebook], retain_graph=True, allow_unused=True)
        wanted = torch.autograd.grad(right, wide, retain_graph=True, allow_unused=True)
        for mine, other in zip(given, wanted, strict=True):
            if other is None:
                assert mine is None
            else:
                assert mine is not None
                torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-6)


def test_the_largest_dot_product_wins_and_ties_go_to_the_lowest() -> None:
    quantizer = IBQ(2, 4)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.tensor([[1.0, 0], [3, 0], [0, 2], [3, 0]]))
    assert quantizer.encode(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, 0]]))[:, 0].tolist() == [1, 2, 2, 0]
    assert torch.equal(quantizer.code_vectors(), quantizer.codebook)


def test_an_evaluation_makes_no_soft_codes() -> None:
    quantizer = IBQ(2, 4).eval()
    found = quantizer(draw(0, 5, 2).requires_grad_())
    assert float(found.entropy_loss) == 0
    found.quantized.sum().backward()  # gradients as in training


def test_what_cannot_be() -> None:
    with pytest.raises(SpecError, match="entropy_temperature=0"):
        IBQ(4, 8, entropy_temperature=0)
