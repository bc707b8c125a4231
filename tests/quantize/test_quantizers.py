"""What every quantiser module has to keep."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

import multitok.quantize
from multitok.errors import CodeRangeError, InputError, ShapeError
from multitok.quantize import Quantizer
from tests.quantize.kinds import DIM, KINDS, draw, loss_of, make

MADE = {kind: make(kind) for kind in KINDS}


def fresh(kind: str) -> Quantizer:
    return copy.deepcopy(MADE[kind])


@settings(deadline=None, max_examples=15)
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_the_codes_gives_the_quantised_vectors(kind: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    seed, scale = data.draw(st.integers(0, 10**6)), data.draw(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 30.0, 1e6]))
    quantizer = fresh(kind).train(data.draw(st.booleans()))
    vectors = draw(seed, *shape, DIM) * scale
    codes = quantizer.encode(vectors)
    decoded = quantizer.decode(codes)
    found = quantizer(vectors.requires_grad_())  # moves the codebook only afterwards
    assert codes.dtype == torch.int64
    assert codes.shape == (*shape, quantizer.num_codebooks)
    assert torch.equal(found.codes, codes)
    assert decoded.dtype == found.quantized.dtype == torch.float32
    assert bits(decoded) == bits(found.quantized)
    assert all(loss.shape == () and bool(loss.isfinite()) for loss in found[2:])
    sizes = torch.tensor(quantizer.codebook_sizes)
    assert bool(((codes >= 0) & (codes < sizes)).all())


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_decodes_and_encodes_alike_alone_and_in_a_batch(kind: str) -> None:
    quantizer = fresh(kind).eval()
    vectors = draw(1, 6, 7, DIM)
    codes, quantized = quantizer.encode(vectors), quantizer(vectors).quantized
    for i in range(6):
        assert torch.equal(quantizer.encode(vectors[i]), codes[i])
        assert bits(quantizer(vectors[i, :3]).quantized) == bits(quantized[i, :3])
    assert torch.equal(quantizer.encode(vectors.transpose(0, 1)), codes.transpose(0, 1))
    assert torch.equal(quantizer.decode(codes.int().transpose(0, 1)), quantized.transpose(0, 1))
    last = torch.tensor([size - 1 for size in quantizer.codebook_sizes])
    assert quantizer.decode(last).shape == (DIM,)
    assert quantizer.dim == DIM


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_changes_nothing_and_a_state_dict_brings_everything(kind: str) -> None:
    quantizer = fresh(kind)
    other = KINDS[kind]()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer.eval()(draw(2, 50, DIM))
    quantizer.train().encode(draw(2, 50, DIM))
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name])
    other.load_state_dict(load_safetensors(save_safetensors(before)))  # strict
    for each in (other, pickle.loads(pickle.dumps(quantizer))):
        each.train(), quantizer.train()
        ours, theirs = each(draw(3, 50, DIM)), copy.deepcopy(quantizer)(draw(3, 50, DIM))
        assert torch.equal(ours.codes, theirs.codes)
        assert bits(ours.quantized) == bits(theirs.quantized)
    quantizer(draw(3, 50, DIM))
    for name, tensor in other.state_dict().items():  # the same step with the same seeds
        assert torch.equal(tensor, quantizer.state_dict()[name]), name
    torch.save(quantizer, io.BytesIO())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_around_it_changes_nothing(kind: str, half: torch.dtype) -> None:
    """Halves in, autocast on, the model cast to half: as in float32, where squares of these vectors leave float16."""
    vectors = (draw(4, 60, DIM) * 300).to(half)
    plain, cast = fresh(kind), nn.Sequential(fresh(kind)).to(half).half()
    expected_in, given_in = vectors.float().requires_grad_(), vectors.clone().requires_grad_()
    expected = plain(expected_in)
    with torch.autocast("cpu", dtype=half):
        found = cast(given_in)
    assert torch.equal(found.codes, expected.codes)
    assert bits(found.quantized) == bits(expected.quantized)
    for ours, theirs in zip(found[2:], expected[2:], strict=True):
        assert bits(ours) == bits(theirs)
        assert math.isfinite(ours)
    for name, tensor in cast[0].state_dict().items():
        assert bits(tensor) == bits(plain.state_dict()[name])
    # 16-bit gradients need the loss to be scaled down, as always.
    for found_, given_ in ((found, given_in), (expected, expected_in)):
        (loss_of(found_) / 4096).backward()
        assert given_.grad is not None
        assert bool(given_.grad.isfinite().all())
    assert given_in.grad is not None
    assert expected_in.grad is not None
    torch.testing.assert_close(given_in.grad, expected_in.grad.to(half))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_vectors_and_all_that_learns(kind: str) -> None:
    quantizer = fresh(kind)
    vectors = draw(5, 40, DIM).requires_grad_()
    found = quantizer(vectors)
    assert not found.codes.requires_grad
    found.quantized.backward(draw(6, 40, DIM), retain_graph=True)
    assert vectors.grad is not None
    assert float(vectors.grad.abs().sum(dim=1).min()) > 0
    losses = found.commitment_loss + found.codebook_loss + found.entropy_loss
    assert losses.requires_grad != ("fsq" in kind)  # which has no losses
    (losses + vectors.sum()).backward()
    for name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    with torch.no_grad():
        assert not quantizer(vectors).quantized.requires_grad


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_finite_are_refused(kind: str, bad: float) -> None:
    quantizer, vectors = fresh(kind), draw(7, 3, 4, DIM)
    vectors[1, 2, 3] = bad
    for call in (quantizer, quantizer.encode):
        with pytest.raises(InputError, match="finite values only"):
            call(vectors)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_the_wrong_shape_or_range_is_refused(kind: str) -> None:
    quantizer = fresh(kind)
    wrong: list[Any] = [draw(8, 3, DIM + 1), torch.zeros(3, DIM).long(), torch.zeros(()), [[0.0] * DIM]]
    for vectors in wrong:
        for call in (quantizer, quantizer.encode):
            with pytest.raises(ShapeError, match=r"give"):
                call(vectors)
    count = quantizer.num_codebooks
    for codes in (torch.zeros(2, count + 1).long(), torch.zeros(2, count), torch.zeros(()).long(), [0] * count):
        with pytest.raises(ShapeError, match="give an integer tensor"):
            quantizer.decode(codes)
    for k, size in enumerate(quantizer.codebook_sizes):
        for bad in (size, -2):
            codes = torch.zeros(2, count).long()
            codes[1, k] = bad
            with pytest.raises(CodeRangeError, match=f"code {bad} in codebook {k}: allowed are 0 to {size - 1}"):
                quantizer.decode(codes)


def test_public_names() -> None:
    for name in multitok.quantize.__all__:
        assert getattr(multitok.quantize, name) is not None
    assert set(multitok.quantize._MODULES) <= set(multitok.quantize.__all__)
    with pytest.raises(AttributeError, match="no attribute 'RVQ'"):
        multitok.quantize.RVQ  # noqa: B018
