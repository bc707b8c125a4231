"""The same weights and vectors in vector-quantize-pytorch, where it has the quantiser.

Where it differs on purpose, the test says how: it sums the straight-through gradients of residual levels, so that
theirs is K times ours, and it decides codes in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as peer
from torch import nn

from multitok.quantize import BSQ, FSQ, LFQ, GroupedVQ, Quantizer, ResidualFSQ, ResidualVQ, SimVQ, VectorQuantizer
from tests.quantize.kinds import draw

DIM, SIZE, DECAY = 8, 40, 0.8


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def theirs_vq(**options: Any) -> Any:
    return peer.VectorQuantize(
        dim=DIM, codebook_size=SIZE, decay=DECAY, threshold_ema_dead_code=0, commitment_weight=1.0, **options
    )


def ours_vq(codebook: torch.Tensor, **options: Any) -> VectorQuantizer:
    quantizer = VectorQuantizer(codebook.shape[1], len(codebook), decay=DECAY, dead_below=0, start="given", **options)
    quantizer.set_codebook(codebook.detach())
    return quantizer


def run(module: Any, vectors: torch.Tensor, seed: int) -> tuple[Any, torch.Tensor]:
    """What it returns, and the gradient of a random projection of what comes out."""
    vectors = vectors.clone().requires_grad_()
    found = module(vectors)
    found[0].backward(draw(seed, *found[0].shape), retain_graph=True)
    assert vectors.grad is not None
    return found, vectors.grad


def gradient(loss: torch.Tensor, of: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, of, retain_graph=True)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("rotation_trick", [False, True])
def test_vq_by_averages(metric: str, rotation_trick: bool) -> None:
    theirs = theirs_vq(use_cosine_sim=metric == "cosine", rotation_trick=rotation_trick)
    ours = ours_vq(theirs.codebook, metric=metric, rotation_trick=rotation_trick)
    for step in range(5):
        vectors = draw(step, 3, 50, DIM)
        (quantized, codes, loss), their_gradient = run(theirs, vectors, step)
        found, our_gradient = run(ours, vectors, step)
        assert torch.equal(found.codes[..., 0], codes)
        torch.testing.assert_close(found.quantized, quantized)
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.commitment_loss, loss.squeeze())
        torch.testing.assert_close(ours.codebook, theirs.codebook)
    torch.testing.assert_close(ours.decode(codes[..., None]), theirs.get_codes_from_indices(codes))


def test_vq_by_gradients() -> None:
    theirs = theirs_vq(learnable_codebook=True, ema_update=False, rotation_trick=False)
    ours = ours_vq(theirs.codebook, learning="gradient")
    vectors = draw(0, 3, 50, DIM).requires_grad_()
    _, _, loss = theirs(vectors)
    found = ours(vectors)
    # Their one loss has the gradients of both of ours.
    expected = gradient(loss.sum(), [vectors, theirs._codebook.embed])
    given = gradient(found.commitment_loss + found.codebook_loss, [vectors, ours.codebook])
    torch.testing.assert_close(given[0], expected[0])
    torch.testing.assert_close(given[1], expected[1][0])


@pytest.mark.parametrize("rotation_trick", [False, True])
def test_simvq(rotation_trick: bool) -> None:
    theirs = peer.SimVQ(DIM, SIZE, rotation_trick=rotation_trick, frozen_codebook_dim=5)
    ours = SimVQ(DIM, SIZE, rotation_trick=rotation_trick, frozen_dim=5)
    ours.load_state_dict({"frozen": theirs.frozen_codebook, "transform": theirs.code_transform.weight})
    vectors = draw(1, 3, 50, DIM)
    (quantized, codes, loss), their_gradient = run(theirs, vectors, 2)
    found, our_gradient = run(ours, vectors, 2)
    assert torch.equal(found.codes[..., 0], codes)
    torch.testing.assert_close(found.quantized, quantized)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.codebook_loss + 0.25 * found.commitment_loss, loss)
    expected = gradient(loss, [theirs.code_transform.weight])
    torch.testing.assert_close(gradient(found.codebook_loss, [ours.transform]), expected)
    torch.testing.assert_close(ours.decode(codes[..., None]), theirs.indices_to_codes(codes))


def test_residual() -> None:
    theirs = peer.ResidualVQ(
        dim=DIM, num_quantizers=4, codebook_size=SIZE, decay=DECAY, threshold_ema_dead_code=0, commitment_weight=1.0,
        rotation_trick=False,
    )  # fmt: skip
    ours = ResidualVQ([ours_vq(codebook) for codebook in theirs.codebooks])
    for step in range(3):
        vectors = draw(step, 3, 50, DIM)
        (quantized, codes, losses), their_gradient = run(theirs, vectors, step)
        found, our_gradient = run(ours, vectors, step)
        assert torch.equal(found.codes, codes)
        torch.testing.assert_close(found.quantized, quantized)
        torch.testing.assert_close(4 * our_gradient, their_gradient)
        torch.testing.assert_close(found.commitment_loss, losses.mean())
    theirs.eval()
    assert torch.equal(ours.encode(vectors), theirs(vectors)[1])
    torch.testing.assert_close(ours.decode(codes), theirs.get_output_from_indices(codes))


@pytest.mark.parametrize("beam", [2, 4])
def test_beam_search(beam: int) -> None:
    theirs = peer.ResidualVQ(dim=DIM, num_quantizers=4, codebook_size=SIZE, beam_size=beam).eval()
    ours = ResidualVQ([ours_vq(codebook) for codebook in theirs.codebooks])
    vectors = draw(9, 3, 50, DIM)
    codes = ours.encode(vectors, beam=beam)
    errors = (ours.decode(codes) - vectors).square().sum(dim=-1)
    # Theirs ranks beams by the sum of the errors after all levels, which is not what remains: ours may only be nearer.
    other = (ours.decode(theirs(vectors)[1]) - vectors).square().sum(dim=-1)
    assert float((errors <= other + 1e-5).float().mean()) > 0.9
    assert float(errors.mean()) < float(other.mean())


def test_grouped_residual() -> None:
    theirs = peer.GroupedResidualVQ(
        dim=DIM, groups=2, num_quantizers=3, codebook_size=SIZE, threshold_ema_dead_code=0, commitment_weight=1.0
    )
    ours = GroupedVQ([ResidualVQ([ours_vq(each) for each in codebooks]) for codebooks in theirs.codebooks])
    vectors = draw(3, 3, 50, DIM)
    quantized, codes, losses = theirs(vectors)
    found = ours(vectors)
    assert torch.equal(found.codes, torch.cat([*codes], dim=-1))
    torch.testing.assert_close(found.quantized, quantized)
    torch.testing.assert_close(found.commitment_loss, losses.mean())


def test_product() -> None:
    theirs = theirs_vq(heads=2, separate_codebook_per_head=True, codebook_dim=DIM // 2)
    theirs.project_in, theirs.project_out = nn.Identity(), nn.Identity()
    ours = GroupedVQ([ours_vq(codebook) for codebook in theirs.codebook])
    vectors = draw(3, 3, 50, DIM)
    theirs.eval(), ours.eval()
    quantized, codes, _ = theirs(vectors)
    found = ours(vectors)
    assert torch.equal(found.codes, codes)
    torch.testing.assert_close(found.quantized, quantized)


@pytest.mark.parametrize("levels", [(8, 8, 8, 5, 5, 5), (3,), (4, 7, 16, 3), (8, 6, 5)])
def test_fsq(levels: tuple[int, ...]) -> None:
    theirs, ours = peer.FSQ(list(levels)), FSQ(levels)
    vectors = draw(4, 3, 2000, len(levels)) * 1.5
    (_, codes), their_gradient = run(theirs, vectors, 5)
    found, our_gradient = run(ours, vectors, 5)
    assert torch.equal(found.codes[..., 0], codes)
    assert torch.equal(found.quantized, theirs.indices_to_codes(codes))
    torch.testing.assert_close(our_gradient, their_gradient)
    assert torch.equal(ours.to_digits(codes[..., None]), theirs.indices_to_level_indices(codes))


def test_grouped_fsq() -> None:
    theirs, ours = peer.FSQ([5, 4, 3], num_codebooks=2), GroupedVQ([FSQ([5, 4, 3]), FSQ([5, 4, 3])])
    vectors = draw(4, 3, 500, 6)
    quantized, codes = theirs(vectors)
    found = ours(vectors)
    assert torch.equal(found.codes, codes.long())
    torch.testing.assert_close(found.quantized, quantized)


@pytest.mark.parametrize(("levels", "count"), [((5, 5, 5), 3), ((4, 8, 3, 2), 4), ((3,), 1)])
def test_residual_fsq(levels: tuple[int, ...], count: int) -> None:
    theirs = peer.ResidualFSQ(levels=list(levels), num_quantizers=count, force_quantization_f32=False).double().eval()
    ours = ResidualFSQ(levels, count)
    vectors = draw(4, 3, 500, len(levels)) * 1.5
    quantized, codes = theirs(vectors.double())
    found = ours(vectors)
    # What lies next to a boundary may fall to either side in theirs, which rounds at each level.
    near = (vectors[..., None] - ours.thresholds).abs().amin(dim=(-2, -1)) < 1e-5
    assert float(near.float().mean()) < 0.1
    assert torch.equal(found.codes[~near], codes.long()[~near])
    torch.testing.assert_close(found.quantized[~near], quantized[~near].float())


def signs_first(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes with their bits in the other order."""
    return sum(((codes >> b) & 1) << (bits - 1 - b) for b in range(bits))  # type: ignore[return-value]


@pytest.mark.parametrize("spherical", [False, True])
def test_lookup_free(spherical: bool) -> None:
    theirs = peer.LFQ(dim=DIM, spherical=spherical, commitment_loss_weight=1.0, entropy_loss_weight=1.0)
    ours: Quantizer = (BSQ if spherical else LFQ)(DIM, inverse_temperature=3.0)
    vectors = (draw(5, 3, 50, DIM)).requires_grad_()
    found = ours(vectors)
    (quantized, codes, _), parts = theirs(vectors, inv_temperature=3.0, return_loss_breakdown=True)
    # Theirs is big-endian, as our BSQ; our LFQ is little-endian, as Open-MAGVIT2.
    assert torch.equal(found.codes[..., 0], codes.long() if spherical else signs_first(codes.long(), DIM))
    torch.testing.assert_close(found.quantized, quantized)
    torch.testing.assert_close(found.commitment_loss, parts.commitment)
    expected = parts.per_sample_entropy - parts.batch_entropy
    # Theirs drops the logarithm of what is below 1e-5.
    torch.testing.assert_close(found.entropy_loss, expected, rtol=0.01, atol=0.01)
    for ours_, theirs_ in ((found.entropy_loss, expected), (found.commitment_loss, parts.commitment)):
        given, wanted = gradient(ours_, [vectors]), gradient(theirs_, [vectors])
        torch.testing.assert_close(given[0], wanted[0], rtol=0.05, atol=2e-4)
    cotangent = draw(6, 3, 50, DIM)
    torch.testing.assert_close(
        torch.autograd.grad(found.quantized, vectors, cotangent), torch.autograd.grad(quantized, vectors, cotangent)
    )
    assert math.isclose(float(ours.decode(found.codes).abs().amax()), DIM**-0.5 if spherical else 1, rel_tol=1e-6)
