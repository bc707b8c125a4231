"""FSQ, residual FSQ, LFQ, BSQ: thresholds against exact arithmetic, the published orders, the entropy loss by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from multitok.errors import SpecError
from multitok.quantize import BSQ, FSQ, LFQ, ResidualFSQ
from multitok.quantize.binary import BinaryQuantizer
from tests.quantize.kinds import draw


def neighbours(thresholds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The next float32 numbers below and above."""
    return torch.nextafter(thresholds, thresholds - 1), torch.nextafter(thresholds, thresholds + 1)


@pytest.mark.parametrize("count", [3, 4, 5, 8, 16, 101])
def test_fsq_thresholds_are_where_the_bound_rounds_up(count: int) -> None:
    quantizer = FSQ([count])
    (thresholds,) = quantizer.thresholds
    reach, offset = (count - 1) * 1.001 / 2, 0.5 * (count % 2 == 0)
    bounded = np.tanh(thresholds.double().numpy() + math.atanh(offset / reach)) * reach - offset
    np.testing.assert_allclose(bounded, np.arange(count - 1) - count // 2 + 0.5, atol=3e-6)
    below, above = neighbours(thresholds)
    expected = torch.arange(count - 1)
    for value, digit in ((below, expected), (thresholds, expected), (above, expected + 1)):
        assert torch.equal(quantizer.encode(value[:, None])[:, 0], digit)
    found = quantizer(torch.tensor([[-1e30], [1e30], [0.0]]))
    assert found.codes[:, 0].tolist() == [0, count - 1, count // 2]
    assert found.quantized[:2, 0].tolist() == [-1.0, pytest.approx((count - 1 - count // 2) / (count // 2))]
    assert found.quantized[2, 0] == 0


def test_fsq_first_dimension_is_the_fastest() -> None:
    quantizer = FSQ([3, 4, 5])
    assert quantizer.codebook_sizes == (60,)
    expected = [[a, b, c] for c, b, a in itertools.product(range(5), range(4), range(3))]
    codes = torch.arange(60)[:, None]
    assert quantizer.to_digits(codes).tolist() == expected
    assert torch.equal(quantizer.from_digits(torch.tensor(expected)), codes)
    values = [[(a - 1) / 1, (b - 2) / 2, (c - 2) / 2] for a, b, c in expected]
    torch.testing.assert_close(quantizer.decode(codes), torch.tensor(values))


def test_fsq_gradient_is_the_slope_of_the_bound() -> None:
    quantizer, vectors = FSQ([8, 5]), draw(0, 50, 2).requires_grad_()
    (found,) = torch.autograd.grad(quantizer(vectors).quantized.sum(), vectors)
    wide = vectors.detach().double().requires_grad_()
    shift = torch.tensor([math.atanh(0.5 / 3.5035), 0.0])
    bounded = torch.tanh(wide + shift) * torch.tensor([3.5035, 2.002]) / torch.tensor([4, 2])
    torch.testing.assert_close(found.double(), torch.autograd.grad(bounded.sum(), wide)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("count", "levels"), [(2, 5), (3, 3), (5, 2), (4, 3), (256, 2)])
def test_residual_fsq_is_an_even_division_whose_digits_are_the_codes(count: int, levels: int) -> None:
    quantizer = ResidualFSQ([count], levels)
    cells = count**levels
    (thresholds,) = quantizer.thresholds
    reach = count / (count - 1)
    np.testing.assert_allclose(
        np.tanh(thresholds.double().numpy() / reach), 2 * np.arange(1, cells) / cells - 1, atol=1e-6
    )
    middle = torch.atanh((2 * torch.arange(cells).double() + 1) / cells - 1) * reach
    codes = quantizer.encode(middle.float()[:, None])
    number = sum(codes[:, k] * count ** (levels - 1 - k) for k in range(levels))
    assert torch.equal(number, torch.arange(cells))
    # Greedy, by definition: each level the value nearest to what is left.
    residual = torch.tanh(middle / reach) * reach
    for k in range(levels):
        values = (2 * torch.arange(count).double() / (count - 1) - 1) * float(count) ** -k
        picked = (residual[:, None] - values).abs().argmin(dim=1)
        assert torch.equal(picked, codes[:, k])
        residual = residual - values[picked]
        error = residual.abs().max()
        torch.testing.assert_close(quantizer.decode(codes[:, : k + 1])[:, 0].double() + residual,
                                   torch.tanh(middle / reach) * reach, atol=1e-5, rtol=0)  # fmt: skip
    assert float(error) < 2.0 / cells * reach


def test_residual_fsq_prefixes() -> None:
    quantizer = ResidualFSQ([4, 5, 2], 3).eval()
    vectors = draw(1, 40, 3)
    codes = quantizer.encode(vectors)
    assert quantizer.codebook_sizes == (40, 40, 40)
    for k in (1, 2, 3):
        found = quantizer(vectors, num_codebooks=k)
        assert torch.equal(found.codes, codes[:, :k])
        assert torch.equal(quantizer.encode(vectors, num_codebooks=k), codes[:, :k])
        assert torch.equal(found.quantized, quantizer.decode(codes[:, :k]))


@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_bits_have_their_published_order(kind: type[LFQ | BSQ]) -> None:
    for count in (1, 2):
        quantizer = kind(6, num_codebooks=count)
        width = 6 // count
        assert quantizer.codebook_sizes == (2**width,) * count
        for signs in itertools.product((-1, 1), repeat=6):
            bits = [int(sign > 0) for sign in signs]
            parts = [bits[i : i + width] for i in range(0, 6, width)]
            if kind is LFQ:  # little-endian
                parts = [part[::-1] for part in parts]
            expected = [int("".join(map(str, part)), 2) for part in parts]
            codes = quantizer.encode(torch.tensor(signs) * 0.3)
            assert codes.tolist() == expected
            assert torch.equal(quantizer.to_bits(codes), torch.tensor(bits).bool())
            assert quantizer.from_bits(torch.tensor(bits).bool()).tolist() == expected
            scale = 1.0 if kind is LFQ else 6**-0.5
            torch.testing.assert_close(quantizer.decode(codes), torch.tensor(signs) * scale)


def test_a_bit_is_decided_by_its_sign_alone() -> None:
    tiny = torch.tensor([0.0, -0.0, 1e-38, -1e-38, 3e38, -3e38])
    for quantizer in (LFQ(6), BSQ(6)):
        assert quantizer.to_bits(quantizer.encode(tiny)).tolist() == [False, False, True, False, True, False]
        assert quantizer.thresholds.shape == (6, 1)


def entropy_by_hand(quantizer: BinaryQuantizer, vectors: torch.Tensor, diversity: float) -> torch.Tensor:
    """Over all 2^D code vectors, in float64."""
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=quantizer.dim))).double() * quantizer.scale
    distances = torch.cdist(vectors.double(), corners).square()
    soft = torch.softmax(-quantizer.inverse_temperature * distances, dim=1)
    return torch.special.entr(soft).sum(dim=1).mean() - diversity * torch.special.entr(soft.mean(dim=0)).sum()


@pytest.mark.parametrize("diversity", [0.0, 0.7])
def test_the_entropy_loss_is_that_of_all_codes(diversity: float) -> None:
    vectors = draw(2, 60, 6)
    lfq, bsq = (kind(6, inverse_temperature=1.5, diversity=diversity) for kind in (LFQ, BSQ))
    expected = entropy_by_hand(lfq, vectors, diversity)
    torch.testing.assert_close(lfq(vectors).entropy_loss.double(), expected, rtol=1e-5, atol=1e-5)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    expected = entropy_by_hand(bsq, unit, diversity)
    torch.testing.assert_close(bsq(vectors).entropy_loss.double(), expected, rtol=1e-5, atol=1e-5)
    assert float(lfq.eval()(vectors).entropy_loss) == 0
    # Groups of bits bound the entropy of the mean from above, and change nothing else.
    grouped = LFQ(6, inverse_temperature=1.5, diversity=diversity, entropy_bits=4)
    difference = float(lfq.train()(vectors).entropy_loss - grouped(vectors).entropy_loss)
    assert difference == 0 if diversity == 0 else 0 < difference < 0.5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FSQ([]), r"levels=\(\)"),
        (lambda: FSQ([5, 2]), "each at least 3; for two values take LFQ"),
        (lambda: FSQ([1000] * 4), "codebook sizes"),
        (lambda: ResidualFSQ([5, 1], 2), "levels of at least 2"),
        (lambda: ResidualFSQ([16], 5), "at most 65536 cells"),
        (lambda: ResidualFSQ([5], 0), "num_codebooks=0"),
        (lambda: LFQ(7, num_codebooks=2), "dim=7, num_codebooks=2: give a multiple"),
        (lambda: BSQ(36), "1 to 30 bits a codebook"),
        (lambda: LFQ(0), "dim=0"),
        (lambda: LFQ(4, entropy_bits=17), "entropy_bits=17"),
        (lambda: LFQ(4, inverse_temperature=0), "inverse_temperature=0"),
    ],
)
def test_what_cannot_be(build: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build()
