"""TiTok: real key names of both generations, a plain network of the same tensors, squares, the contract."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import multitok
from multitok.errors import CheckpointError, InputError, ShapeError
from multitok.nets.anchors.titok import Titok as Network
from multitok.nets.anchors.titok import TitokConfig
from multitok.protocol import Codes, Modality
from tests.contract import check_tokenizer
from tests.tokenizers.adapters import layouts

Weights = dict[str, Tensor]
# Sizes of the tests: squares of 16 pixels in patches of 4, and 8 codes of 32.
SIDE, PATCH, LATENTS, CODES = 16, 4, 8, 32


def layout(
    *,
    first: bool,
    encoder: tuple[int, int] = (64, 2),
    decoder: tuple[int, int] = (128, 1),
    side: int = SIDE,
    patch: int = PATCH,
    latents: int = LATENTS,
    dim: int = 6,
    codes: int = CODES,
    pixel_widths: tuple[int, ...] = (32, 32, 64),
    pixel_codes: int = 16,
    pixel_dim: int = 10,
) -> layouts.Shapes:
    """ByteDance's names and shapes; `first` is the generation whose decoder ends in MaskGIT's; (width, layers) each."""
    patches = (side // patch) ** 2
    shapes: layouts.Shapes = {"latent_tokens": (latents, encoder[0]), "quantize.embedding.weight": (codes, dim)}

    def pair(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    for name, (width, layers) in (("encoder", encoder), ("decoder", decoder)):
        shapes[f"{name}.class_embedding"] = (1, width)
        shapes[f"{name}.positional_embedding"] = (patches + 1, width)
        shapes[f"{name}.latent_token_positional_embedding"] = (latents, width)
        for norm in ("ln_pre", "ln_post"):
            pair(f"{name}.{norm}", width)
        for i in range(layers):
            layer = f"{name}.transformer.{i}"
            pair(f"{layer}.ln_1", width)
            shapes[f"{layer}.attn.in_proj_weight"] = (3 * width, width)
            shapes[f"{layer}.attn.in_proj_bias"] = (3 * width,)
            pair(f"{layer}.attn.out_proj", width, width)
            pair(f"{layer}.ln_2", width)
            pair(f"{layer}.mlp.c_fc", 4 * width, width)
            pair(f"{layer}.mlp.c_proj", width, 4 * width)
    pair("encoder.patch_embed", encoder[0], 3, patch, patch)
    pair("encoder.conv_out", dim, encoder[0], 1, 1)
    width = decoder[0]
    pair("decoder.decoder_embed", width, dim)
    shapes["decoder.mask_token"] = (1, 1, width)
    if not first:
        pair("decoder.ffn.0", 3 * patch * patch, width, 1, 1)
        pair("decoder.conv_out", 3, 3, 3, 3)
        return shapes
    pair("decoder.ffn.0", 2 * width, width, 1, 1)
    pair("decoder.ffn.2", pixel_codes, 2 * width, 1, 1)
    shapes["pixel_quantize.embedding.weight"] = (pixel_codes, pixel_dim)

    def block(name: str, before: int, after: int) -> None:
        pair(f"pixel_decoder.{name}.norm1", before)
        shapes[f"pixel_decoder.{name}.conv1.weight"] = (after, before, 3, 3)
        pair(f"pixel_decoder.{name}.norm2", after)
        shapes[f"pixel_decoder.{name}.conv2.weight"] = (after, after, 3, 3)
        if before != after:
            shapes[f"pixel_decoder.{name}.nin_shortcut.weight"] = (after, after, 1, 1)

    before = pixel_widths[-1]
    pair("pixel_decoder.conv_in", before, pixel_dim, 3, 3)
    for j in range(2):
        block(f"mid.{j}", before, before)
    for i in reversed(range(len(pixel_widths))):
        for j in range(2):
            block(f"up.{i}.block.{j}", before, pixel_widths[i])
            before = pixel_widths[i]
        if i > 0:
            pair(f"pixel_decoder.up.{i}.upsample_conv", before, before, 3, 3)
    pair("pixel_decoder.norm_out", before)
    pair("pixel_decoder.conv_out", 3, before, 3, 3)
    return shapes


def weights_of(first: bool) -> Weights:
    weights = layouts.random_weights(layout(first=first))
    for key, value in weights.items():
        if ".ln_" in key and key.endswith("weight"):
            weights[key] = value + 1
    # Tokens that differ, and code vectors of different lengths, which the angle does not see.
    weights["latent_tokens"] = weights["latent_tokens"] * 8
    weights["quantize.embedding.weight"] = weights["quantize.embedding.weight"] * torch.linspace(0.5, 4, CODES)[:, None]
    return weights


GENERATIONS = {"first": True, "second": False}


@pytest.fixture(scope="module", params=GENERATIONS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Weights, Any]:
    first = GENERATIONS[request.param]
    weights = weights_of(first)
    folder = layouts.write(tmp_path_factory.mktemp("titok"), weights)
    return first, weights, multitok.load(folder, kind="titok")


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise over a gradient, so that squares differ."""
    ramp = np.linspace(0, 150, height)[:, None, None] + np.linspace(0, 50, width)[:, None]
    return (ramp + np.random.default_rng(seed).integers(0, 55, (height, width, 3))).astype(np.uint8)


# A plain network: functions of a checkpoint's tensors.


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].reshape(len(w[f"{name}.weight"]), -1).T + w[f"{name}.bias"]


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def plain_transformer(w: Weights, side: str, patches: Tensor, latents: Tensor) -> Tensor:
    """[P, W] and [N, W] -> [1 + P + N, W]."""
    image = torch.cat([w[f"{side}.class_embedding"], patches]) + w[f"{side}.positional_embedding"]
    x = torch.cat([image, latents + w[f"{side}.latent_token_positional_embedding"]])
    x = layer_norm(w, f"{side}.ln_pre", x)
    i = 0
    while f"{side}.transformer.{i}.ln_1.weight" in w:
        name = f"{side}.transformer.{i}"
        normed = layer_norm(w, f"{name}.ln_1", x)
        projected = normed @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]
        heads = []
        # Queries of all heads, then keys, then values; 64 numbers a head.
        for part in zip(*(third.split(64, 1) for third in projected.chunk(3, 1)), strict=True):
            query, key, value = part
            heads.append(torch.softmax(query @ key.T / 8, 1) @ value)
        x = x + linear(w, f"{name}.attn.out_proj", torch.cat(heads, 1))
        inner = linear(w, f"{name}.mlp.c_fc", layer_norm(w, f"{name}.ln_2", x))
        inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
        x = x + linear(w, f"{name}.mlp.c_proj", inner)
        i += 1
    return x


def plain_latents(w: Weights, x: Tensor, first: bool) -> Tensor:
    """Pixels [3, S, S] to latents [N, D]."""
    cells = [
        linear(w, "encoder.patch_embed", x[:, r : r + PATCH, c : c + PATCH].flatten())
        for r in range(0, SIDE, PATCH)
        for c in range(0, SIDE, PATCH)
    ]
    out = plain_transformer(w, "encoder", torch.stack(cells), w["latent_tokens"])[1 + len(cells) :]
    tokens = layer_norm(w, "encoder.ln_post", out)
    if first:
        # The first generation's oddity: numbers in memory order, taken for [W, N].
        tokens = torch.tensor(tokens.flatten().tolist()).reshape(-1, LATENTS).T
    return linear(w, "encoder.conv_out", tokens)


def plain_pixels(w: Weights, vectors: Tensor, first: bool) -> Tensor:
    """Code vectors [N, D] to pixels [3, S, S]."""
    grid = SIDE // PATCH
    masks = w["decoder.mask_token"][0].repeat(grid**2, 1)
    x = plain_transformer(w, "decoder", masks, linear(w, "decoder.decoder_embed", vectors))
    x = layer_norm(w, "decoder.ln_post", x[1 : 1 + grid**2])
    x = linear(w, "decoder.ffn.0", x)
    if not first:
        pixels = torch.zeros(3, SIDE, SIDE)
        for cell, numbers in enumerate(x):
            r, c = cell // grid * PATCH, cell % grid * PATCH
            pixels[:, r : r + PATCH, c : c + PATCH] = numbers.reshape(PATCH, PATCH, 3).permute(2, 0, 1)
        return conv(w, "decoder.conv_out", pixels)
    logits = linear(w, "decoder.ffn.2", torch.tanh(x))
    x = torch.softmax(logits, 1) @ w["pixel_quantize.embedding.weight"]
    x = conv(w, "pixel_decoder.conv_in", x.T.reshape(-1, grid, grid))
    for j in range(2):
        x = pixel_block(w, f"pixel_decoder.mid.{j}", x)
    for i in (2, 1, 0):
        for j in range(2):
            x = pixel_block(w, f"pixel_decoder.up.{i}.block.{j}", x)
        if i > 0:
            x = conv(w, f"pixel_decoder.up.{i}.upsample_conv", x.repeat_interleave(2, 1).repeat_interleave(2, 2))
    return conv(w, "pixel_decoder.conv_out", swish(group_norm(w, "pixel_decoder.norm_out", x)))


def pixel_block(w: Weights, name: str, x: Tensor) -> Tensor:
    y = conv(w, f"{name}.conv1", swish(group_norm(w, f"{name}.norm1", x)))
    y = conv(w, f"{name}.conv2", swish(group_norm(w, f"{name}.norm2", y)))
    # The first generation's other oddity: the shortcut starts from the result.
    return y + (conv(w, f"{name}.nin_shortcut", y) if f"{name}.nin_shortcut.weight" in w else x)


def conv(w: Weights, name: str, x: Tensor) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x[None], weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)[0]


def group_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x[None], 32, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)[0]


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


# Tests.


@pytest.mark.parametrize(
    ("shapes", "stride"),
    [
        (
            layout(
                first=True, encoder=(1024, 24), decoder=(1024, 24), side=256, patch=16, latents=32, dim=12, codes=4096,
                pixel_widths=(128, 128, 256, 256, 512), pixel_codes=1024, pixel_dim=256,
            ),
            (256, 8),
        ),
        (
            layout(
                first=False, encoder=(768, 12), decoder=(1024, 24), side=256, patch=16, latents=64, dim=64, codes=8192
            ),
            (256, 4),
        ),
    ],
    ids=["L-32", "BL-64"],
)  # fmt: skip
def test_networks_of_published_size_have_exactly_the_published_keys(
    shapes: layouts.Shapes, stride: tuple[int, int]
) -> None:
    config = TitokConfig.of(shapes)
    with torch.device("meta"):
        network = Network(config)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == shapes
    assert (config.side, config.side // config.latents) == stride
    assert config.cosine is (config.pixels is not None)


def test_what_the_codes_look_like(loaded: tuple[bool, Weights, Any]) -> None:
    _, _, tokenizer = loaded
    spec = tokenizer.spec
    assert (spec.kind, spec.name, spec.modality) == ("titok", "image", Modality.IMAGE)
    assert (spec.codebook_sizes, spec.grid_axes, spec.stride) == ((CODES,), ("h", "w"), (SIDE, SIDE // LATENTS))


def test_codes_are_those_of_the_plain_network(loaded: tuple[bool, Weights, Any]) -> None:
    first, weights, tokenizer = loaded
    seen = set()
    for seed in range(3):
        raw = picture(SIDE, SIDE, seed)
        pixels = torch.tensor(raw / 255, dtype=torch.float32).permute(2, 0, 1)
        latents = plain_latents(weights, pixels, first)
        with torch.no_grad():
            ours = tokenizer.module.encoder(pixels[None], tokenizer.module.latent_tokens)
        assert torch.allclose(ours[0, :, 0].T, latents, atol=1e-4, rtol=1e-4)
        assert latents.std(0).min() > 1e-2
        table = weights["quantize.embedding.weight"]
        if first:
            latents, table = (x / x.norm(dim=1, keepdim=True) for x in (latents, table))
        expected = ((latents[:, None] - table) ** 2).sum(2).argmin(1).tolist()
        codes = tokenizer.encode(raw)
        assert codes.grid == (1, LATENTS)
        assert codes.values[0, 0].tolist() == expected
        seen |= set(expected)
    assert len(seen) > 4


def test_decoded_pictures_are_those_of_the_plain_network(loaded: tuple[bool, Weights, Any]) -> None:
    first, weights, tokenizer = loaded
    codes = np.random.default_rng(1).integers(0, CODES, (1, 1, LATENTS))
    vectors = weights["quantize.embedding.weight"][torch.tensor(codes[0, 0])]
    if first:
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
    expected = plain_pixels(weights, vectors, first).permute(1, 2, 0).mul(255).clamp(0, 255).numpy()
    decoded = tokenizer.decode(Codes(codes, (SIDE, SIDE)))
    assert np.abs(decoded - expected).max() <= 0.5 + 1e-2
    assert expected.std() > 10


def test_the_contract(loaded: tuple[bool, Weights, Any], tmp_path: Path) -> None:
    _, _, tokenizer = loaded
    check_tokenizer(tokenizer, [picture(SIDE, SIDE), picture(1, 1, 1), picture(20, 40, 2)], tmp_path)


def test_squares_are_coded_by_themselves(loaded: tuple[bool, Weights, Any]) -> None:
    _, _, tokenizer = loaded
    raw = picture(2 * SIDE, 3 * SIDE)
    whole = tokenizer.encode(raw)
    assert whole.grid == (2, 3 * LATENTS)
    pixels = tokenizer.decode(whole)
    for y in range(2):
        for x in range(3):
            square = np.s_[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE]
            part = tokenizer.encode(raw[square])
            assert np.array_equal(part.values[0, 0], whole.values[0, y, x * LATENTS : (x + 1) * LATENTS])
            assert np.array_equal(tokenizer.decode(part), pixels[square])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (SIDE, 3), (SIDE + 1, SIDE - 1), (1, 2 * SIDE + 1)])
def test_sizes_between_squares_repeat_the_edge(loaded: tuple[bool, Weights, Any], height: int, width: int) -> None:
    _, _, tokenizer = loaded
    raw = picture(height, width)
    codes = tokenizer.encode(raw)
    rows, columns = (math.ceil(n / SIDE) * SIDE for n in (height, width))
    assert codes.grid == (rows // SIDE, columns // SIDE * LATENTS)
    assert tokenizer.num_tokens((height, width)) == codes.num_tokens
    filled = raw[np.minimum(np.arange(rows), height - 1)][:, np.minimum(np.arange(columns), width - 1)]
    assert np.array_equal(tokenizer.encode(filled).values, codes.values)
    assert tokenizer.decode(codes).shape == raw.shape
    # A model's output knows no extent; then the nominal one is the whole square's.
    nominal = Codes(codes.values, tokenizer.spec.full_extent(codes.grid))
    assert tokenizer.decode(nominal).shape == filled.shape


def test_the_comparison_follows_config_json(loaded: tuple[bool, Weights, Any], tmp_path: Path) -> None:
    first, weights, tokenizer = loaded
    layouts.write(tmp_path, weights)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": {"vq_model": {"use_l2_norm": not first}}}), encoding="utf-8")
    other = multitok.load(tmp_path, kind="titok")
    codes = [tokenizer.encode(picture(3 * SIDE, 3 * SIDE)), other.encode(picture(3 * SIDE, 3 * SIDE))]
    assert codes[0] != codes[1]
    path.write_text(json.dumps({"model": {"vq_model": {"use_l2_norm": first}}}), encoding="utf-8")
    assert multitok.load(tmp_path, kind="titok").encode(picture(3 * SIDE, 3 * SIDE)) == codes[0]
    for text, message in {
        "{": "no configuration of TiTok",
        "[]": "no configuration of TiTok",
        '{"model": {"vq_model": {"use_l2_norm": 1.5}}}': "true or false can be",
    }.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match=message):
            multitok.load(tmp_path, kind="titok")


@pytest.mark.parametrize(
    ("first", "changes", "message"),
    [
        (True, {"latent_tokens": None}, "key 'latent_tokens' is missing"),
        (False, {"encoder.transformer.1.mlp.c_fc.bias": None}, r"'encoder\.transformer\.1\.mlp\.c_fc\.bias' .*missing"),
        (False, {"surprise": torch.ones(1)}, "key 'surprise' is unexpected"),
        (False, {"encoder.transformer.999999999.surprise": torch.ones(1)}, "is missing"),
        (True, {"decoder.mask_token": torch.ones(1, 2, 128)}, r"\[1, 2, 128\], expected is \[1, 1, 128\]"),
        (False, {"quantize.embedding.weight": None}, r"a continuous TiTok \(VAE\) has no codes"),
        (True, {"pixel_decoder.conv_in.weight": None}, "take the checkpoint of the second stage"),
        (False, {"encoder.ln_pre.weight": torch.ones(96)}, "width 96: heads are 64 wide"),
        (False, {"latent_tokens": torch.ones(7, 64)}, "7 latents for 16 pixels"),
        (False, {"latent_tokens": torch.ones(0, 64)}, "no network has tensors of these shapes"),
        (False, {"encoder.patch_embed.weight": torch.ones(64)}, "no network has tensors of these shapes"),
    ],
)
def test_damaged_checkpoints_name_what_differs(
    tmp_path: Path, first: bool, changes: dict[str, Tensor | None], message: str
) -> None:
    weights = {key: value for key, value in {**weights_of(first), **changes}.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        multitok.load(layouts.write(tmp_path, weights), kind="titok")


def test_wrong_input(loaded: tuple[bool, Weights, Any]) -> None:
    _, _, tokenizer = loaded
    with pytest.raises(ShapeError, match="batch use encode_batch"):
        tokenizer.encode(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="at least 1 long"):
        tokenizer.encode(np.zeros((8, 0, 3), np.uint8))
    with pytest.raises(ShapeError, match=r"'titok' makes a grid \(1, 8\)"):
        tokenizer.decode(Codes(np.zeros((1, 1, 7), np.int32), (SIDE, SIDE)))


def test_gradients_pass_through_the_codes(loaded: tuple[bool, Weights, Any], tmp_path: Path) -> None:
    _, weights, _ = loaded
    module = multitok.load(layouts.write(tmp_path, weights), kind="titok").module  # type: ignore[attr-defined]
    pixels = torch.tensor(picture(SIDE, SIDE) / 255, dtype=torch.float32).permute(2, 0, 1)[None]
    out = module(pixels)
    assert out.shape == pixels.shape
    assert torch.allclose(out.detach(), module.decode(module.encode(pixels)), atol=1e-3)
    out.square().mean().backward()
    gradients = [p.grad for p in (*module.encoder.parameters(), module.latent_tokens)]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert module.encoder.patch_embed.weight.grad.abs().max() > 0
