"""Cosmos: real key names, a plain network of the same tensors, TorchScript files, rules of time, the contract."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import multitok
from multitok.errors import CheckpointError, InputError, ShapeError
from multitok.nets.anchors.cosmos import LEVELS, CosmosConfig
from multitok.nets.anchors.cosmos import Cosmos as Network
from multitok.nets.anchors.cosmos_parts import CausalConv3d, haar, unhaar
from multitok.protocol import Codes, Modality
from multitok.quantize import FSQ
from tests.contract import check_tokenizer
from tests.tokenizers.adapters import layouts

Weights = dict[str, Tensor]


def layout(channels: int, *, z: int, patch: int = 4, video: bool = False, downs: int = 1) -> layouts.Shapes:
    """NVIDIA's names and shapes; `downs` halvings after the wavelets, which only images' tensors tell."""
    shapes: layouts.Shapes = {}

    def conv(name: str, before: int, after: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (after, before, *kernel)
        shapes[f"{name}.bias"] = (after,)

    def causal(name: str, before: int, after: int, *kernel: int) -> None:
        conv(f"{name}.conv3d", before, after, *kernel)

    def wide(name: str, before: int, after: int) -> None:
        if not video:
            return conv(name, before, after, 3, 3)
        causal(f"{name}.0", before, after, 1, 3, 3)
        return causal(f"{name}.1", after, after, 3, 1, 1)

    def point(name: str, before: int, after: int) -> None:
        causal(name, before, after, 1, 1, 1) if video else conv(name, before, after, 1, 1)

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}{'.norm' if video else ''}.{part}": (width,) for part in ("weight", "bias")})

    def block(name: str, before: int, after: int) -> None:
        norm(f"{name}.norm1", before)
        wide(f"{name}.conv1", before, after)
        norm(f"{name}.norm2", after)
        wide(f"{name}.conv2", after, after)
        if before != after:
            point(f"{name}.nin_shortcut", before, after)

    def attention(name: str, width: int) -> None:
        for part in (f"{name}.0", f"{name}.1") if video else (name,):
            norm(f"{part}.norm", width)
            for projection in ("q", "k", "v", "proj_out"):
                point(f"{part}.{projection}", width, width)

    def resample(name: str, width: int) -> None:
        if not video:
            return conv(f"{name}.conv", width, width, 3, 3)
        causal(f"{name}.conv1", width, width, *((1, 3, 3) if "down" in name else (3, 1, 1)))
        causal(f"{name}.conv2", width, width, *((3, 1, 1) if "down" in name else (1, 3, 3)))
        return causal(f"{name}.conv3", width, width, 1, 1, 1)

    widths = [2 * channels, 4 * channels, 4 * channels]
    pixels = 3 * patch ** (3 if video else 2)
    wide("encoder.conv_in", pixels, channels)
    before = channels
    for i, width in enumerate(widths):
        for j in range(2):
            block(f"encoder.down.{i}.block.{j}", before, width)
            before = width
        if i < (2 if video else downs):
            resample(f"encoder.down.{i}.downsample", width)
    wide("encoder.conv_out", before, z)
    wide("decoder.conv_in", z, before)
    for side in ("encoder", "decoder"):
        block(f"{side}.mid.block_1", before, before)
        attention(f"{side}.mid.attn_1", before)
        block(f"{side}.mid.block_2", before, before)
        norm(f"{side}.norm_out", before if side == "encoder" else widths[0])
    for i in (2, 1, 0):
        for j in range(3):
            block(f"decoder.up.{i}.block.{j}", before, widths[i])
            before = widths[i]
        if i > (0 if video else 2 - downs):
            resample(f"decoder.up.{i}.upsample", before)
    wide("decoder.conv_out", before, pixels)
    point("quant_conv", z, 6)
    point("post_quant_conv", 6, z)
    return shapes


class Case(NamedTuple):
    kind: str
    name: str
    shapes: layouts.Shapes
    time: int
    space: int
    patch: int


CASES = {
    "DI8x8": Case("cosmos-image", "DI8x8", layout(32, z=8), 1, 8, 4),
    "DI16x16": Case("cosmos-image", "DI16x16", layout(32, z=8, downs=2), 1, 16, 4),
    "DI8x8-patch2": Case("cosmos-image", "anything", layout(32, z=8, patch=2, downs=2), 1, 8, 2),
    "DV4x8x8": Case("cosmos-video", "Cosmos-0.1-Tokenizer-DV4x8x8", layout(8, z=4, video=True), 4, 8, 4),
    "DV8x8x8": Case("cosmos-video", "Cosmos-0.1-Tokenizer-DV8x8x8", layout(8, z=4, video=True), 8, 8, 4),
    "DV8x16x16": Case("cosmos-video", "Cosmos-Tokenize1-DV8x16x16-720p", layout(8, z=4, video=True), 8, 16, 4),
    "DV4x8x8-patch2": Case("cosmos-video", "my-DV4x8x8", layout(8, z=4, patch=2, video=True), 4, 8, 2),
}
VIDEOS = [name for name, case in CASES.items() if case.kind == "cosmos-video"]


def weights_of(case: Case) -> Weights:
    weights = layouts.random_weights(case.shapes)
    # Wide enough that codes differ.
    key = "quant_conv.conv3d.weight" if case.kind == "cosmos-video" else "quant_conv.weight"
    weights[key] = weights[key] * 4
    return weights


@pytest.fixture(scope="module", params=CASES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Weights, Any]:
    return load(request.param, tmp_path_factory.mktemp("cosmos"))


@pytest.fixture(scope="module", params=VIDEOS)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Weights, Any]:
    return load(request.param, tmp_path_factory.mktemp("cosmos"))


def load(name: str, folder: Path) -> tuple[Case, Weights, Any]:
    case = CASES[name]
    weights = weights_of(case)
    return case, weights, multitok.load(layouts.write(folder / case.name, weights), kind=case.kind)


def raw_of(case: Case, *extent: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise over gradients; the first number is left out for images."""
    shape = extent if case.kind == "cosmos-video" else extent[1:]
    rng = np.random.default_rng(seed)
    ramps = [np.linspace(0, 80, n).reshape(-1, *[1] * (len(shape) - i)) for i, n in enumerate(shape)]
    return (sum(ramps) / len(shape) * 2 + rng.integers(0, 90, (*shape, 3))).astype(np.uint8)


def to_input(raw: NDArray[np.uint8]) -> Tensor:
    return torch.tensor(np.moveaxis(2.0 * (raw / 255.0) - 1.0, -1, 0)[None], dtype=torch.float32)


# A plain network: functions of a checkpoint's tensors, one line for one step.


def plain_haar(x: Tensor, order: str) -> Tensor:
    """One level on [1, C, (T,) H, W]; `order` names the axes, the slowest in the channels first."""
    axes = {name: i - 3 for i, name in enumerate("THW")}
    out = []
    for signs in itertools.product((1, -1), repeat=len(order)):
        total = torch.zeros(())
        for corner in itertools.product((0, 1), repeat=len(order)):
            part = x
            for name, start in zip(order, corner, strict=True):
                index = torch.arange(start, part.shape[axes[name]], 2)
                part = part.index_select(x.ndim + axes[name], index)
            sign = math.prod(s if c else 1 for s, c in zip(signs, corner, strict=True))
            total = total + sign * part / 2 ** len(order)
        out.append(total)
    return torch.cat(out, 1)


def plain_conv(w: Weights, name: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
    if f"{name}.conv3d.weight" not in w:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=w[f"{name}.weight"].shape[-1] // 2)
    weight, bias = w[f"{name}.conv3d.weight"], w[f"{name}.conv3d.bias"]
    for _ in range(weight.shape[2] - stride[0]):
        x = torch.cat([x[:, :, :1], x], 2)
    edge = weight.shape[3] // 2 if stride[1] == 1 else 0
    return F.conv3d(F.pad(x, (edge,) * 4), weight, bias, stride=stride)


def plain_wide(w: Weights, name: str, x: Tensor) -> Tensor:
    if f"{name}.0.conv3d.weight" in w:
        return plain_conv(w, f"{name}.1", plain_conv(w, f"{name}.0", x))
    return plain_conv(w, name, x)


def plain_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    if f"{name}.norm.weight" in w:
        scale, shift = w[f"{name}.norm.weight"], w[f"{name}.norm.bias"]
        return torch.stack([F.group_norm(frame, 1, scale, shift, 1e-6) for frame in x.unbind(2)], 2)
    return F.group_norm(x, 32, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def plain_block(w: Weights, name: str, x: Tensor) -> Tensor:
    y = plain_wide(w, f"{name}.conv1", swish(plain_norm(w, f"{name}.norm1", x)))
    y = plain_wide(w, f"{name}.conv2", swish(plain_norm(w, f"{name}.norm2", y)))
    has = any(key.startswith(f"{name}.nin_shortcut.") for key in w)
    return y + (plain_conv(w, f"{name}.nin_shortcut", x) if has else x)


def plain_attention(w: Weights, name: str, x: Tensor) -> Tensor:
    if f"{name}.0.q.conv3d.weight" in w:
        x = plain_attention(w, f"{name}.0", x)
        return plain_attention(w, f"{name}.1", x)
    normed = plain_norm(w, f"{name}.norm", x)
    q, k, v = (plain_conv(w, f"{name}.{part}", normed) for part in "qkv")
    out = torch.zeros_like(q)
    in_time = name.endswith(".1")
    for position in itertools.product(*(range(n) for n in q.shape[2:])):
        here = (0, slice(None), *position)
        if in_time:
            others: tuple[Any, ...] = (0, slice(None), slice(0, position[0] + 1), *position[1:])
        else:
            others = (0, slice(None), *position[:-2])
        keys, values = k[others].flatten(1), v[others].flatten(1)
        shares = torch.softmax(q[here] @ keys / q.shape[1] ** 0.5, 0)
        out[here] = values @ shares
    return x + plain_conv(w, f"{name}.proj_out", out)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def pairs_mean(x: Tensor, axis: int) -> Tensor:
    even = torch.arange(0, x.shape[axis] - 1, 2)
    return (x.index_select(axis, even) + x.index_select(axis, even + 1)) / 2


def plain_latents(case: Case, w: Weights, x: Tensor) -> Tensor:
    is_video = case.kind == "cosmos-video"
    if is_video:
        x = torch.cat([x[:, :, :1]] * (case.patch - 1) + [x], 2)
    for _ in range(int(math.log2(case.patch))):
        x = plain_haar(x, "THW" if is_video else "WH")
    x = plain_wide(w, "encoder.conv_in", x)
    space, time = (int(math.log2(n // case.patch)) if n > 1 else 0 for n in (case.space, case.time))
    for i in range(3):
        for j in range(2):
            x = plain_block(w, f"encoder.down.{i}.block.{j}", x)
        name = f"encoder.down.{i}.downsample"
        if not is_video and i < space:
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], stride=2)
        if is_video and i < 2 and i < max(space, time):
            if i < space:
                strided = plain_conv(w, f"{name}.conv1", F.pad(x, (0, 1, 0, 1)), (1, 2, 2))
                x = strided + pairs_mean(pairs_mean(x, 3), 4)
            if i < time:
                x = torch.cat([x[:, :, :1], x], 2)
                x = plain_conv(w, f"{name}.conv2", x, (2, 1, 1)) + pairs_mean(x, 2)
            x = plain_conv(w, f"{name}.conv3", x)
    x = plain_block(w, "encoder.mid.block_1", x)
    x = plain_attention(w, "encoder.mid.attn_1", x)
    x = plain_block(w, "encoder.mid.block_2", x)
    x = plain_wide(w, "encoder.conv_out", swish(plain_norm(w, "encoder.norm_out", x)))
    return plain_conv(w, "quant_conv", x)


# What happens after each of the decoder's resolutions, the coarsest first, written out.
UPS = {
    "DV4x8x8": ["space", ""],
    "DV8x8x8": ["", "both"],
    "DV8x16x16": ["space", "both"],
    "DV4x8x8-patch2": ["space", "both"],
}


def plain_pixels(key: str, case: Case, w: Weights, z: Tensor) -> Tensor:
    is_video = case.kind == "cosmos-video"
    x = plain_wide(w, "decoder.conv_in", plain_conv(w, "post_quant_conv", z))
    x = plain_block(w, "decoder.mid.block_1", x)
    x = plain_attention(w, "decoder.mid.attn_1", x)
    x = plain_block(w, "decoder.mid.block_2", x)
    for i in (2, 1, 0):
        for j in range(3):
            x = plain_block(w, f"decoder.up.{i}.block.{j}", x)
        name = f"decoder.up.{i}.upsample"
        if f"{name}.conv.weight" in w:
            x = plain_conv(w, f"{name}.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        if is_video and i > 0 and UPS[key][2 - i]:
            if UPS[key][2 - i] == "both":
                x = torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(2, 2)], 2)
                x = x + plain_conv(w, f"{name}.conv1", x)
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
            x = plain_conv(w, f"{name}.conv3", x + plain_conv(w, f"{name}.conv2", x))
    x = plain_wide(w, "decoder.conv_out", swish(plain_norm(w, "decoder.norm_out", x)))
    order = "THW" if is_video else "WH"
    for _ in range(int(math.log2(case.patch))):
        x = plain_unhaar(x, order)
    return x[:, :, case.patch - 1 :] if is_video else x


def plain_unhaar(x: Tensor, order: str) -> Tensor:
    blocks = x.chunk(2 ** len(order), 1)
    axes = {name: x.ndim + i - 3 for i, name in enumerate("THW")}
    out = torch.zeros([n * (2 if i in axes.values() and i > 1 else 1) for i, n in enumerate(blocks[0].shape)])
    for corner in itertools.product((0, 1), repeat=len(order)):
        total = torch.zeros(())
        for signs, block in zip(itertools.product((1, -1), repeat=len(order)), blocks, strict=True):
            total = total + math.prod(s if c else 1 for s, c in zip(signs, corner, strict=True)) * block
        where = [slice(None)] * x.ndim
        for name, start in zip(order, corner, strict=True):
            where[axes[name]] = slice(start, None, 2)
        out[tuple(where)] = total
    return out


def plain_fsq(numbers: list[float]) -> tuple[list[float], int]:
    """Code vector and code of six numbers, by the formula of the paper's appendix in float64."""
    code, step, vector = 0, 1, []
    for number, levels in zip(numbers, LEVELS, strict=True):
        reach = (levels - 1) * 1.001 / 2
        offset = 0.5 if levels % 2 == 0 else 0.0
        rounded = round(math.tanh(number + math.atanh(offset / reach)) * reach - offset)
        vector.append(rounded / (levels // 2))
        code += (rounded + levels // 2) * step
        step *= levels
    return vector, code


# Tests.


# Tensors of steps between resolutions that a video network does not use, though NVIDIA's module has them.
UNUSED = {
    (4, 8): "encoder.down.0.downsample.conv2 encoder.down.1.downsample.conv1 encoder.down.1.downsample.conv2 "
    "encoder.down.1.downsample.conv3 decoder.up.2.upsample.conv1 decoder.up.1.upsample.conv1 "
    "decoder.up.1.upsample.conv2 decoder.up.1.upsample.conv3",
    (8, 8): "encoder.down.1.downsample.conv1 encoder.down.1.downsample.conv2 encoder.down.1.downsample.conv3 "
    "decoder.up.2.upsample.conv1 decoder.up.2.upsample.conv2 decoder.up.2.upsample.conv3",
    (8, 16): "encoder.down.1.downsample.conv2 decoder.up.2.upsample.conv1",
}


@pytest.mark.parametrize(
    ("shapes", "keys", "millions", "compression"),
    [
        (layout(128, z=256), 198, 79.0, None),
        (layout(128, z=256, downs=2), 202, 83.7, None),
        (layout(128, z=16, video=True), 322, 112.5, (4, 8)),
        (layout(128, z=16, video=True), 322, 112.5, (8, 8)),
        (layout(128, z=16, video=True), 322, 112.5, (8, 16)),
    ],
    ids=["DI8x8", "DI16x16", "DV4x8x8", "DV8x8x8", "DV8x16x16"],
)
def test_published_sizes_have_the_published_number_of_weights(
    shapes: layouts.Shapes, keys: int, millions: float, compression: tuple[int, int] | None
) -> None:
    assert len(shapes) == keys
    assert sum(map(math.prod, shapes.values())) == pytest.approx(millions * 1e6, abs=0.05e6)
    config = CosmosConfig.of_image(shapes) if compression is None else None
    if compression is not None:
        config = CosmosConfig.of_video(shapes, time=compression[0], space=compression[1])
    assert config is not None
    with torch.device("meta"):
        network = Network(config)
    unused = tuple(f"{name}." for name in UNUSED[compression].split()) if compression else ("none",)
    used = {key: shape for key, shape in shapes.items() if not key.startswith(unused)}
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == used


def test_unused_tensors_may_be_there_or_not(tmp_path: Path) -> None:
    case, weights, tokenizer = load("DV4x8x8", tmp_path)
    names = tuple(f"{name}." for name in UNUSED[4, 8].split())
    fewer = {key: value for key, value in weights.items() if not key.startswith(names)}
    assert len(fewer) == len(weights) - 16
    loaded = multitok.load(layouts.write(tmp_path / "fewer" / case.name, fewer), kind=case.kind)
    assert multitok.fingerprint(loaded) == multitok.fingerprint(tokenizer)
    del fewer["encoder.down.0.downsample.conv1.conv3d.bias"]
    with pytest.raises(CheckpointError, match=r"'encoder\.down\.0\.downsample\.conv1\.conv3d\.bias' \[16\] is missing"):
        multitok.load(layouts.write(tmp_path / "too few" / case.name, fewer), kind=case.kind)


def test_what_the_codes_look_like(loaded: tuple[Case, Weights, Any]) -> None:
    case, _, tokenizer = loaded
    spec = tokenizer.spec
    assert (spec.kind, spec.codebook_sizes) == (case.kind, (64000,))
    if case.kind == "cosmos-video":
        assert (spec.name, spec.modality, spec.grid_axes) == ("video", Modality.VIDEO, ("t", "h", "w"))
        assert spec.stride == (case.time, case.space, case.space)
    else:
        assert (spec.name, spec.modality, spec.grid_axes) == ("image", Modality.IMAGE, ("h", "w"))
        assert spec.stride == (case.space, case.space)


def test_codes_are_those_of_the_plain_network(loaded: tuple[Case, Weights, Any]) -> None:
    case, weights, tokenizer = loaded
    raw = raw_of(case, 1 + 2 * case.time, 2 * case.space, case.space)
    latents = plain_latents(case, weights, to_input(raw))
    with torch.no_grad():
        ours = tokenizer.module.latents(to_input(raw)).movedim(-1, 1)
    assert torch.allclose(ours, latents, atol=1e-4, rtol=1e-4)
    # Weights and frames that tell positions apart, or the comparison would show little.
    assert all(latents.std(axis).max() > 1e-2 for axis in range(2, latents.ndim) if latents.shape[axis] > 1)
    expected = [plain_fsq(numbers)[1] for numbers in latents[0].flatten(1).T.tolist()]
    assert tokenizer.encode(raw).values.ravel().tolist() == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("key", sorted(CASES))
def test_decoded_pixels_are_those_of_the_plain_network(key: str, tmp_path: Path) -> None:
    case, weights, tokenizer = load(key, tmp_path)
    grid = (3, 2, 1) if case.kind == "cosmos-video" else (2, 1)
    extent = (1 + 2 * case.time, 2 * case.space, case.space)[-len(grid) :]
    codes = np.random.default_rng(1).integers(0, 64000, (1, *grid))
    digits = [[code // math.prod(LEVELS[:i]) % levels for i, levels in enumerate(LEVELS)] for code in codes.ravel()]
    vectors = [[(d - n // 2) / (n // 2) for d, n in zip(row, LEVELS, strict=True)] for row in digits]
    exact = plain_pixels(key, case, weights, torch.tensor(vectors, dtype=torch.float32).T.reshape(1, 6, *grid))[0]
    expected = np.moveaxis((exact * 127.5 + 127.5).clamp(0, 255).numpy(), 0, -1)
    decoded = tokenizer.decode(Codes(codes, extent))
    assert decoded.shape == (*extent, 3)
    assert np.abs(decoded - expected).max() <= 0.5 + 1e-2
    assert expected.std() > 10


@settings(deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6))
def test_fsq_is_the_published_formula(numbers: list[float]) -> None:
    vector, code = plain_fsq(numbers)
    ours, codes = FSQ(LEVELS)(torch.tensor(numbers))[:2]
    if code != codes.item():
        # Float32 cannot tell a number from a threshold next to it.
        assert codes.item() in {plain_fsq([x + nudge for x in numbers])[1] for nudge in (-1e-5, 1e-5)}
    else:
        assert torch.allclose(ours, torch.tensor(vector))


def test_codes_begin_at_0_and_the_first_number_is_fastest() -> None:
    vectors = FSQ(LEVELS).decode(torch.arange(64000)[:, None])
    assert vectors[0].tolist() == [-1.0] * 6
    assert vectors[1].tolist() == [-0.75, *[-1.0] * 5]
    assert vectors[8].tolist() == [-1.0, -0.75, *[-1.0] * 4]
    assert vectors[512].tolist() == [-1.0] * 3 + [-0.5, -1.0, -1.0]
    assert vectors[-1].tolist() == [0.75, 0.75, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("axes", "order"), [((3, 2), "WH"), ((2, 3, 4), "THW")])
def test_wavelets_equal_sums_and_differences_and_invert(axes: tuple[int, ...], order: str) -> None:
    shape = (2, 3, 4, 6, 8)[: 2 + len(axes)]
    x = torch.randint(-8, 8, shape).double()
    assert torch.equal(haar(x, axes), plain_haar(x, order))
    assert torch.equal(unhaar(haar(x, axes), axes), x)
    assert torch.equal(plain_unhaar(haar(x, axes).float(), order), x.float())
    # The first block is the mean of each patch.
    patches = x.reshape(2, 3, *(n for size in shape[2:] for n in (size // 2, 2)))
    assert torch.equal(haar(x, axes)[:, :3], patches.mean(tuple(range(3, 3 + 2 * len(axes), 2))))


@pytest.mark.parametrize(("kernel", "stride"), [((3, 1, 1), (1, 1, 1)), ((1, 3, 3), (1, 1, 1)), ((3, 1, 1), (2, 1, 1))])
def test_causal_convolutions_by_hand(kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    layer = CausalConv3d(2, 3, kernel, stride=stride)
    x = torch.rand(1, 2, 5 if stride[0] == 1 else 6, 4, 3)
    with torch.no_grad():
        out = layer(x)
        weight, bias = layer.conv3d.weight, layer.conv3d.bias
        assert bias is not None
        for t, y, z in itertools.product(*(range(n) for n in out.shape[2:])):
            total = bias.clone()
            for dt, dy, dz in itertools.product(*(range(n) for n in kernel)):
                # The last tap in time sees the newest frame of this step, none later.
                frame = max(t * stride[0] + dt - (kernel[0] - stride[0]), 0)
                row, column = y + dy - kernel[1] // 2, z + dz - kernel[2] // 2
                if 0 <= row < 4 and 0 <= column < 3:
                    total += weight[:, :, dt, dy, dz] @ x[0, :, frame, row, column]
            assert torch.allclose(out[0, :, t, y, z], total, atol=1e-5)


@pytest.mark.parametrize("key", ["DI8x8", "DV4x8x8", "DV8x16x16"])
def test_the_contract(key: str, tmp_path: Path) -> None:
    case, _, tokenizer = load(key, tmp_path)
    sizes = [(case.time + 2, 9, 17), (1, 1, 1), (1 + case.time, case.space, 3)]
    check_tokenizer(tokenizer, [raw_of(case, *size, seed=i) for i, size in enumerate(sizes)], tmp_path)


def test_steps_of_time(video: tuple[Case, Weights, Any]) -> None:
    case, _, tokenizer = video
    raw = raw_of(case, 2 + 2 * case.time, case.space, case.space)
    steps = {1: 1, 2: 2, case.time: 2, case.time + 1: 2, case.time + 2: 3, 1 + 2 * case.time: 3, 2 + 2 * case.time: 4}
    for frames, expected in steps.items():
        codes = tokenizer.encode(raw[:frames])
        assert codes.grid[0] == expected
        assert tokenizer.num_tokens(codes.extent) == codes.num_tokens
        whole = 1 + (expected - 1) * case.time
        filled = raw[np.minimum(np.arange(whole), frames - 1)]
        assert np.array_equal(tokenizer.encode(filled).values, codes.values)
        assert tokenizer.decode(codes).shape == raw[:frames].shape


def test_later_frames_change_no_earlier_code(video: tuple[Case, Weights, Any]) -> None:
    case, _, tokenizer = video
    raw = raw_of(case, 1 + 2 * case.time, case.space, 2 * case.space)
    whole = tokenizer.encode(raw)
    for steps in (1, 2):
        part = tokenizer.encode(raw[: 1 + (steps - 1) * case.time])
        assert np.array_equal(part.values, whole.values[:, :steps])
        beginning = tokenizer.decode(whole)[: part.extent[0]].astype(int)
        assert np.abs(tokenizer.decode(part) - beginning).max() <= 1


def test_codes_without_an_extent_give_every_frame(video: tuple[Case, Weights, Any]) -> None:
    case, _, tokenizer = video
    grid = (3, 1, 1)
    values = np.random.default_rng(0).integers(0, 64000, (1, *grid))
    nominal = tokenizer.decode(Codes(values, tokenizer.spec.full_extent(grid)))
    assert nominal.shape == (1 + 2 * case.time, case.space, case.space, 3)
    assert np.array_equal(nominal, tokenizer.decode(Codes(values, nominal.shape[:3])))
    with pytest.raises(ShapeError, match=r"grid \(3, 1, 1\) for extent"):
        tokenizer.decode(Codes(values, (2 + 2 * case.time, case.space, case.space)))


class Fixed(nn.Module):
    """Holds tensors under dotted names."""

    def forward(self, x: Tensor) -> Tensor:
        """Nothing."""
        return x


def write_jit(file: Path, tensors: Weights, buffers: Weights) -> None:
    """A TorchScript file whose state has these names; buffers are not persistent, as in NVIDIA's modules."""
    root = Fixed()
    for key, value in itertools.chain(tensors.items(), buffers.items()):
        module: nn.Module = root
        *path, last = key.split(".")
        for name in path:
            if name not in module._modules:
                module.add_module(name, Fixed())
            module = module._modules[name]  # type: ignore[assignment]
        if key in buffers:
            module.register_buffer(last, value, persistent=False)
        else:
            module.register_parameter(last, nn.Parameter(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # NVIDIA's files are TorchScript, whatever torch recommends
        torch.jit.save(torch.jit.script(root.eval()), str(file))


def read_jit(file: Path) -> Weights:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return dict(torch.jit.load(str(file)).state_dict())


def buffers_of(case: Case) -> Iterator[tuple[str, Tensor]]:
    """What NVIDIA's modules register besides, by the names they have in encoder.jit and decoder.jit."""
    suffix = "3d" if case.kind == "cosmos-video" else ""
    for name in (f"encoder.patcher{suffix}", f"decoder.unpatcher{suffix}"):
        yield f"{name}.wavelets", torch.tensor([0.5**0.5] * 2)
        yield f"{name}._arange", torch.arange(2)
    if suffix:
        yield "encoder.patcher3d.patch_size_buffer", torch.tensor([case.patch])
    for name in ("quantizer", "inv_quant.quantizer"):
        yield f"{name}._levels", torch.tensor(LEVELS, dtype=torch.int32)
        yield f"{name}._basis", torch.tensor([1, 8, 64, 512, 2560, 12800], dtype=torch.int32)
        yield f"{name}.implicit_codebook", torch.zeros(64000, 6)


@pytest.mark.parametrize(("key", "files"), [("DI8x8", "encoder.jit decoder.jit"), ("DV4x8x8", "autoencoder.jit")])
def test_torchscript_files_are_read_for_their_tensors(tmp_path: Path, key: str, files: str) -> None:
    case = CASES[key]
    weights = {name: value.to(torch.bfloat16) for name, value in weights_of(case).items()}
    expected = multitok.load(layouts.write(tmp_path / "plain" / case.name, weights), kind=case.kind)
    folder = tmp_path / case.name
    folder.mkdir()
    buffers, in_encoder = dict(buffers_of(case)), ("encoder.", "quant_conv.", "quantizer.")
    for file in files.split():
        holds = {name: file == "autoencoder.jit" or name.startswith(in_encoder) is (file == "encoder.jit")
                 for name in (*weights, *buffers)}  # fmt: skip
        tensors = ({name: value for name, value in some.items() if holds[name]} for some in (weights, buffers))
        write_jit(folder / file, *tensors)
    # The test is about something only if the files hold the buffers.
    assert any(name.endswith("quantizer._levels") for name in read_jit(folder / files.split()[0]))
    assert multitok.fingerprint(multitok.load(folder, kind=case.kind)) == multitok.fingerprint(expected)

    last = folder / files.split()[-1]
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=rf"{last.name} is not a whole TorchScript file"):
        multitok.load(folder, kind=case.kind)


def test_half_of_a_torchscript_pair_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "encoder.jit").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"holds encoder\.jit but no decoder\.jit: copy both, or autoencoder\.jit"
    ):
        multitok.load(tmp_path, kind="cosmos-image")


def test_other_levels_are_refused(tmp_path: Path) -> None:
    case = CASES["DI8x8"]
    buffers = {"quantizer._levels": torch.tensor([8, 5, 5, 5])}
    write_jit(tmp_path / "autoencoder.jit", weights_of(case), buffers)
    with pytest.raises(CheckpointError, match=r"'quantizer\._levels' says FSQ levels \[8, 5, 5, 5\], known are \[8, 8"):
        multitok.load(tmp_path, kind="cosmos-image")


def test_the_compression_of_video_comes_from_the_folders_name(tmp_path: Path) -> None:
    weights = weights_of(CASES["DV8x16x16"])
    below = tmp_path / "models--nvidia--Cosmos-0.1-Tokenizer-DV8x16x16" / "snapshots" / "2f6c"
    assert multitok.load(layouts.write(below, weights), kind="cosmos-video").spec.stride == (8, 16, 16)
    nearest = tmp_path / "DV8x16x16" / "DV4x8x8"
    assert multitok.load(layouts.write(nearest, weights), kind="cosmos-video").spec.stride == (4, 8, 8)
    for name, message in {
        "tokenizer": "have the same shapes: rename the folder so that its name holds the right one, as in 'Cosmos-",
        "DV4x8x16": "DV4x8x16 says 8 x 16 pixels a code, not a square",
        "DV2x8x8": "DV2x8x8 cannot be made of patches of 4 and 3 resolutions",
        "DV16x16x16": "DV16x16x16 cannot be made",
        "DV8x32x32": "DV8x32x32 cannot be made",
        "DV6x12x12": "DV6x12x12 cannot be made",
        "DV0x0x0": "DV0x0x0 cannot be made",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            multitok.load(layouts.write(tmp_path / "x" / name, weights), kind="cosmos-video")


def test_the_other_kind_is_named(tmp_path: Path) -> None:
    image = layouts.write(tmp_path / "DV4x8x8", weights_of(CASES["DI8x8"]))
    with pytest.raises(CheckpointError, match="give kind='cosmos-image'"):
        multitok.load(image, kind="cosmos-video")
    video = layouts.write(tmp_path / "v", weights_of(CASES["DV4x8x8"]))
    with pytest.raises(CheckpointError, match="give kind='cosmos-video'"):
        multitok.load(video, kind="cosmos-image")
    continuous = layouts.random_weights({**CASES["DI8x8"].shapes, "quant_conv.weight": (16, 8, 1, 1)})
    with pytest.raises(CheckpointError, match="16 numbers a position instead of 6: a continuous tokenizer"):
        multitok.load(layouts.write(tmp_path / "CI8x8", continuous), kind="cosmos-image")


@pytest.mark.parametrize("key", ["DI8x8", "DV8x8x8"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "is missing"),
        ("extra", r"'encoder\.surprise' is unexpected"),
        ("shape", "expected is"),
        ("first", r"key 'encoder\.conv_in.*weight' is missing"),
    ],
)
def test_damaged_checkpoints_name_the_first_key_that_differs(
    tmp_path: Path, key: str, change: str, message: str
) -> None:
    case = CASES[key]
    weights = weights_of(case)
    names = list(weights)
    if change == "missing":
        del weights[names[-3]]
    if change == "extra":
        weights["encoder.surprise"] = torch.ones(2)
    if change == "shape":
        weights[names[7]] = torch.ones(5)
    if change == "first":
        del weights[names[0]]
    with pytest.raises(CheckpointError, match=message):
        multitok.load(layouts.write(tmp_path / case.name, weights), kind=case.kind)


def test_wrong_input(loaded: tuple[Case, Weights, Any]) -> None:
    _, _, tokenizer = loaded
    axes = len(tokenizer.spec.grid_axes)
    with pytest.raises(ShapeError, match="give uint8"):
        tokenizer.encode(np.zeros((8,) * axes + (4,), np.uint8))
    with pytest.raises(InputError, match="at least 1 long"):
        tokenizer.encode(np.zeros((0,) + (8,) * (axes - 1) + (3,), np.uint8))
    with pytest.raises(ShapeError, match="makes a grid"):
        tokenizer.decode(Codes(np.zeros((1,) + (2,) * axes, np.int32), (100,) * axes))
    with pytest.raises(ShapeError, match="makes a grid"):
        tokenizer.decode(Codes(np.zeros((1,) + (0,) * axes, np.int32), (0,) * axes))


@pytest.mark.parametrize("key", ["DI16x16", "DV8x16x16"])
def test_gradients_pass_through_the_codes(tmp_path: Path, key: str) -> None:
    case, _, tokenizer = load(key, tmp_path)
    pixels = to_input(raw_of(case, 1 + case.time, case.space, 2 * case.space))
    module = tokenizer.module
    out = module(pixels)
    assert out.shape == pixels.shape
    assert torch.allclose(out.detach(), module.decode(module.encode(pixels)), atol=1e-3)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert next(module.encoder.conv_in.parameters()).grad.abs().max() > 0
