"""`tokenizer.module`: the tokenizer's codes and pixels on tensors, with gradients, on any device."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import CodeRangeError, ShapeError
from multitok.tokenizers._nd_vq import NdVq
from tests.tokenizers.test_nd_vq import ALL, IMAGE, VIDEO, VOLUME, WINDOW, each, noise

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def batch_of(tokenizer: NdVq, extent: tuple[int, ...], count: int = 2) -> tuple[list[NDArray[Any]], torch.Tensor]:
    """Raw items and the same as a tensor [B, C, *axes]."""
    raws = [noise(tokenizer, extent[-len(tokenizer.spec.grid_axes) :], seed) for seed in range(count)]
    stacked = torch.from_numpy(np.stack(raws))
    return raws, stacked[:, None] if tokenizer is VOLUME else stacked.movedim(-1, 1)


def raw_of(tokenizer: NdVq, values: torch.Tensor) -> NDArray[Any]:
    """[C, *axes] as a raw item."""
    array = values.detach().cpu().numpy()
    return array[0] if tokenizer is VOLUME else np.moveaxis(array, 0, -1).astype(np.uint8)


@pytest.mark.parametrize("device", DEVICES)
@each
def test_codes_and_pixels_are_the_tokenizers(tokenizer: NdVq, device: str) -> None:
    module = copy.deepcopy(tokenizer.module).to(device)
    for extent in ((5, 33, 42), (1, 1, 1), (4, 8, 8)):
        raws, values = batch_of(tokenizer, extent)
        for given_values in (values.to(device), values.float().to(device)):
            codes = module.encode(given_values)
            assert codes.dtype == torch.int64
            assert codes.device.type == device
            expected = [tokenizer.encode(raw) for raw in raws]
            for found, wanted in zip(codes.cpu().numpy(), expected, strict=True):
                assert np.array_equal(found, wanted.values)
        decoded = module.decode(codes, tuple(values.shape[2:]))
        forward = module(values.float().to(device))
        assert torch.equal(forward, decoded)
        for found, wanted in zip(decoded, expected, strict=True):
            assert np.array_equal(raw_of(tokenizer, found), tokenizer.decode(wanted))


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(list(ALL.values())), st.integers(1, 5), st.integers(1, 20), st.integers(1, 20))
def test_any_size(tokenizer: NdVq, t: int, h: int, w: int) -> None:
    raws, values = batch_of(tokenizer, (t, h, w), 1)
    codes = tokenizer.module.encode(values)
    assert np.array_equal(codes[0].numpy(), tokenizer.encode(raws[0]).values)
    whole = tokenizer.module.decode(codes)
    assert tuple(whole.shape[2:]) == tokenizer.spec.full_extent(tuple(codes.shape[2:]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("setting", ["autocast", "medium", "bfloat16", "half"])
def test_settings_of_a_training_loop_do_not_show(setting: str, device: str) -> None:
    module, (raws, values) = copy.deepcopy(VIDEO.module).to(device), batch_of(VIDEO, (5, 20, 24))
    before = torch.get_float32_matmul_precision()
    try:
        if setting == "medium":
            torch.set_float32_matmul_precision("medium")
        if setting == "bfloat16":
            module = module.to(torch.bfloat16)
        if setting == "half":
            module = torch.nn.ModuleList([module]).half()[0]
        with torch.autocast(device, torch.bfloat16, enabled=setting == "autocast"):
            codes = module.encode(values.to(device))
            decoded = module.decode(codes, tuple(values.shape[2:]))
            assert torch.equal(module(values.float().to(device)), decoded)
    finally:
        torch.set_float32_matmul_precision(before)
    for raw, found, frames in zip(raws, codes.cpu().numpy(), decoded, strict=True):
        assert np.array_equal(found, VIDEO.encode(raw).values)
        assert np.array_equal(raw_of(VIDEO, frames), VIDEO.decode(VIDEO.encode(raw)))


@each
def test_first_codebooks(tokenizer: NdVq) -> None:
    _, values = batch_of(tokenizer, (3, 9, 10))
    codes = tokenizer.module.encode(values)
    first = tokenizer.first_codebooks(1).module
    assert torch.equal(first.encode(values), codes[:, :1])
    assert torch.equal(first.decode(codes[:, :1]), tokenizer.module.decode(codes[:, :1]))
    assert torch.equal(first(values), tokenizer.module.decode(codes[:, :1], tuple(values.shape[2:])))


@each
def test_gradients_pass_straight_through(tokenizer: NdVq) -> None:
    _, values = batch_of(tokenizer, (3, 9, 10))
    inputs = values.float().requires_grad_()
    outputs = tokenizer.module(inputs)
    outputs.square().mean().backward()
    assert inputs.grad is not None
    assert torch.isfinite(inputs.grad).all()
    assert (inputs.grad != 0).float().mean() > 0.5
    assert not list(tokenizer.module.parameters())
    assert not tokenizer.module.state_dict()


def test_gradients_are_those_of_the_linear_part_where_the_branches_are_silent() -> None:
    """With branches that give nothing, output = basis basis^T input, rounded: so is the gradient."""
    silent = {
        key: np.zeros_like(value) if ".exit." in key and not key.endswith("scale") else value
        for key, value in IMAGE.get_tensors().items()
    }
    tokenizer = type(IMAGE).from_state(IMAGE.get_config(), silent)
    values = torch.full((1, 3, 8, 8), 128.0, requires_grad=True)
    weights = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    module = tokenizer.module
    # Before pixels are cut off at 0 and 255: beyond the ends there is no gradient.
    outputs = module._reconstruct(_straight(module, values))
    frames = outputs[:, 0].permute(0, 3, 1, 2)
    (frames * weights).sum().backward()
    basis = torch.from_numpy(tokenizer.net.tensors["basis"] / 2**12)
    patches = weights.double().reshape(1, 3, 2, 4, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 24)
    expected = (patches @ basis @ basis.T).reshape(1, 2, 4, 4, 2, 3).permute(0, 5, 1, 3, 2, 4).reshape(1, 3, 8, 8)
    assert values.grad is not None
    torch.testing.assert_close(values.grad.double(), expected, rtol=1e-5, atol=1e-6)


def _straight(module: Any, values: torch.Tensor) -> torch.Tensor:
    latents = module._latents(module._levels(values))
    return module._quantize(latents.detach())[1] + (latents - latents.detach())


def test_pixels_can_be_fitted_through_the_module() -> None:
    """A training loop in small: pixels that follow the gradient come closer to what a target decodes to."""
    _, values = batch_of(VOLUME, (2, 8, 8), 1)
    target = VOLUME.module(values)
    pixels = torch.full_like(values, sum(WINDOW) / 2).requires_grad_()
    optimizer = torch.optim.Adam([pixels], 1.0)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = (VOLUME.module(pixels) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.7 * losses[0]


def test_tensors_that_do_not_fit() -> None:
    module = IMAGE.module
    for shape in ((3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8), (1, 3, 1, 8, 8)):
        with pytest.raises(ShapeError, match=r"give \[B, 3, \*axes\] with 2 axes"):
            module.encode(torch.zeros(shape))
    for shape in ((1, 4, 2, 2), (1, 3, 2), (1, 0, 2, 2)):
        with pytest.raises(ShapeError, match=r"give \[B, n, \*grid\], n from 1 to 3"):
            module.decode(torch.zeros(shape, dtype=torch.long))
    for size in ((8, 5), (8,), (9, 4)):
        with pytest.raises(ShapeError, match=r"these codes hold \(8, 4\)"):
            module.decode(torch.zeros((1, 1, 2, 2), dtype=torch.long), size)
    for bad in (-1, 16):
        with pytest.raises(CodeRangeError, match=f"code {bad} in codebook 0: allowed are 0 to 15"):
            module.decode(torch.full((1, 1, 2, 2), bad))
