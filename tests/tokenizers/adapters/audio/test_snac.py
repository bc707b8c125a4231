"""SNAC: published sizes, a plain network of the same tensors, levels on one grid and back, the contract."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import multitok
from multitok.errors import CheckpointError, ShapeError, SpecError
from multitok.nets.anchors.snac import Snac as Network
from multitok.nets.anchors.snac import SnacConfig
from multitok.protocol import Codes
from tests.contract import check_tokenizer
from tests.tokenizers.adapters.audio import small

Weights = dict[str, Tensor]
PUBLISHED: dict[str, dict[str, Any]] = {
    "24khz": {**small.SNAC, "encoder_dim": 48, "decoder_dim": 1024, "codebook_size": 4096},
    "32khz": {
        **small.SNAC,
        "sampling_rate": 32_000,
        "encoder_dim": 64,
        "encoder_rates": [2, 3, 8, 8],
        "decoder_dim": 1536,
        "decoder_rates": [8, 8, 3, 2],
        "attn_window_size": 32,
        "codebook_size": 4096,
        "vq_strides": [8, 4, 2, 1],
    },
}
ROWS = {"24khz": [1, 2, 4], "44khz": [1, 2, 4, 8]}
Loaded = tuple[str, dict[str, Any], Weights, Any]


def layout(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint, written from the published files."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, bias: int | None = None) -> None:
        if bias != 0:
            shapes[f"{name}.bias"] = (shape[0] if bias is None else bias,)
        shapes[f"{name}.parametrizations.weight.original0"] = (shape[0], 1, 1)
        shapes[f"{name}.parametrizations.weight.original1"] = shape

    def unit(name: str, width: int) -> None:
        for place in (0, 2):
            shapes[f"{name}.block.{place}.alpha"] = (1, width, 1)
        conv(f"{name}.block.1", width, 1 if config["depthwise"] else width, 7)
        conv(f"{name}.block.3", width, width, 1)

    def attention(name: str, width: int) -> None:
        shapes[f"{name}.norm.weight"] = shapes[f"{name}.norm.bias"] = (width,)
        shapes[f"{name}.to_qkv.weight"] = (3 * width, width)
        shapes[f"{name}.rel_pos.inv_freq"] = (32,)
        shapes[f"{name}.to_out.weight"] = (width, width)

    width, place = config["encoder_dim"], 1
    conv("encoder.block.0", width, 1, 7)
    for rate in config["encoder_rates"]:
        for j in range(3):
            unit(f"encoder.block.{place}.block.{j}", width)
        shapes[f"encoder.block.{place}.block.3.alpha"] = (1, width, 1)
        conv(f"encoder.block.{place}.block.4", 2 * width, width, 2 * rate)
        width, place = 2 * width, place + 1
    if config["attn_window_size"]:
        attention(f"encoder.block.{place}", width)
        place += 1
    conv(f"encoder.block.{place}", width, 1 if config["depthwise"] else width, 7)
    for i in range(len(config["vq_strides"])):
        conv(f"quantizer.quantizers.{i}.in_proj", config["codebook_dim"], width, 1)
        conv(f"quantizer.quantizers.{i}.out_proj", width, config["codebook_dim"], 1)
        shapes[f"quantizer.quantizers.{i}.codebook.weight"] = (config["codebook_size"], config["codebook_dim"])
    conv("decoder.model.0", width, 1, 7)
    conv("decoder.model.1", config["decoder_dim"], width, 1)
    width, place = config["decoder_dim"], 2
    if config["attn_window_size"]:
        attention("decoder.model.2", width)
        place = 3
    for rate in config["decoder_rates"]:
        name = f"decoder.model.{place}.block"
        shapes[f"{name}.0.alpha"] = (1, width, 1)
        conv(f"{name}.1", width, width // 2, 2 * rate, bias=width // 2)
        width, place = width // 2, place + 1
        conv(f"{name}.2.linear", width, width, 1, bias=0)
        for j in (3, 4, 5):
            unit(f"{name}.{j}", width)
    shapes[f"decoder.model.{place}.alpha"] = (1, width, 1)
    conv(f"decoder.model.{place + 1}", 1, width, 7)
    return shapes


def weights_of(config: dict[str, Any]) -> Weights:
    """Random, but for the angles' frequencies, which are no weights."""
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for key, shape in layout(config).items():
        drawn = torch.randn(shape, generator=generator)
        if key.endswith("original0"):
            drawn = (0.4 if key.startswith("decoder") else 0.8) + 0.25 * drawn.abs()
        elif key.endswith(("alpha", "norm.weight")):
            drawn = 0.8 + 0.3 * drawn.abs()
        elif key.endswith("bias"):
            drawn = 0.1 * drawn
        elif key.endswith(("qkv.weight", "out.weight")):
            drawn = drawn / shape[1] ** 0.5
        elif key.endswith("inv_freq"):
            drawn = 1.0 / 10_000 ** (torch.arange(0, 64, 2) / 64)
        weights[key] = drawn
    return weights


@pytest.fixture(scope="module", params=small.SNACS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    config = small.SNACS[request.param]
    weights = weights_of(config)
    folder = small.write_snac(config, weights, tmp_path_factory.mktemp("snac"))
    return request.param, config, weights, multitok.load(folder, kind="snac")


# A plain network: functions of a checkpoint's tensors.


def weight(w: Weights, name: str) -> Tensor:
    """Each first-axis row of the direction, at the length that its magnitude gives."""
    direction = w[f"{name}.parametrizations.weight.original1"]
    rows = [row / row.square().sum().sqrt() for row in direction]
    return torch.stack(rows) * w[f"{name}.parametrizations.weight.original0"]


def conv(w: Weights, name: str, x: Tensor, *, dilation: int = 1, stride: int = 1, padding: int | None = None) -> Tensor:
    kernel = weight(w, name)
    groups = x.shape[1] // kernel.shape[1]
    padding = (kernel.shape[2] - 1) * dilation // 2 if padding is None else padding
    return F.conv1d(x, kernel, w.get(f"{name}.bias"), stride, padding, dilation, groups)


def snake(w: Weights, name: str, x: Tensor) -> Tensor:
    alpha = w[f"{name}.alpha"]
    return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)


def unit(w: Weights, name: str, x: Tensor, dilation: int) -> Tensor:
    y = conv(w, f"{name}.block.1", snake(w, f"{name}.block.0", x), dilation=dilation)
    return x + conv(w, f"{name}.block.3", snake(w, f"{name}.block.2", y))


def attention(w: Weights, name: str, x: Tensor, window: int) -> Tensor:
    width, steps = x.shape[1:]
    h = F.layer_norm(x[0].T, (width,), w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])
    q, k, v = (h @ w[f"{name}.to_qkv.weight"].T).split(width, 1)
    out = torch.empty_like(q)
    for start in range(0, steps, window):
        for head in range(0, width, 64):
            where = slice(start, start + window), slice(head, head + 64)
            turned = [torch.stack([turn(w, name, part[where][i], i) for i in range(window)]) for part in (q, k)]
            shares = torch.softmax(turned[0] @ turned[1].T / 8, 1)
            out[where] = shares @ v[where]
    return x + (out @ w[f"{name}.to_out.weight"].T).T[None]


def turn(w: Weights, name: str, vector: Tensor, position: int) -> Tensor:
    angles = position * w[f"{name}.rel_pos.inv_freq"]
    a, b = vector[:32], vector[32:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()])


def plain_latents(config: dict[str, Any], w: Weights, x: Tensor) -> Tensor:
    x = conv(w, "encoder.block.0", x)
    for i, rate in enumerate(config["encoder_rates"]):
        name = f"encoder.block.{i + 1}.block"
        for j, dilation in enumerate((1, 3, 9)):
            x = unit(w, f"{name}.{j}", x, dilation)
        x = conv(w, f"{name}.4", snake(w, f"{name}.3", x), stride=rate, padding=math.ceil(rate / 2))
    place = len(config["encoder_rates"]) + 1
    if config["attn_window_size"]:
        x = attention(w, f"encoder.block.{place}", x, config["attn_window_size"])
        place += 1
    return conv(w, f"encoder.block.{place}", x)


def plain_levels(config: dict[str, Any], w: Weights, latents: Tensor) -> list[list[int]]:
    """Each level by itself: means, projection, the largest cosine."""
    found = []
    for i, stride in enumerate(config["vq_strides"]):
        name = f"quantizer.quantizers.{i}"
        means = latents.unfold(2, stride, stride).mean(3)
        vectors = conv(w, f"{name}.in_proj", means)[0].T
        table = w[f"{name}.codebook.weight"]
        codes = [int(torch.cosine_similarity(vector[None], table).argmax()) for vector in vectors]
        latents = latents - plain_vectors(w, name, codes, stride)
        found.append(codes)
    return found


def plain_vectors(w: Weights, name: str, codes: list[int], stride: int) -> Tensor:
    rows = w[f"{name}.codebook.weight"][[code for code in codes for _ in range(stride)]]
    return conv(w, f"{name}.out_proj", rows.T[None])


def plain_sound(config: dict[str, Any], w: Weights, levels: list[list[int]]) -> Tensor:
    x: Any = 0
    for i, (stride, codes) in enumerate(zip(config["vq_strides"], levels, strict=False)):
        x = x + plain_vectors(w, f"quantizer.quantizers.{i}", codes, stride)
    x = conv(w, "decoder.model.1", conv(w, "decoder.model.0", x))
    place = 2
    if config["attn_window_size"]:
        x = attention(w, "decoder.model.2", x, config["attn_window_size"])
        place = 3
    for i, rate in enumerate(config["decoder_rates"]):
        name = f"decoder.model.{place + i}.block"
        x = F.conv_transpose1d(
            snake(w, f"{name}.0", x), weight(w, f"{name}.1"), w[f"{name}.1.bias"], rate, math.ceil(rate / 2), rate % 2
        )
        noise = torch.randn(x.shape[2], generator=torch.Generator().manual_seed(i))
        x = x + noise * conv(w, f"{name}.2.linear", x)
        for j, dilation in enumerate((1, 3, 9)):
            x = unit(w, f"{name}.{3 + j}", x, dilation)
    place += len(config["decoder_rates"])
    return conv(w, f"decoder.model.{place + 1}", snake(w, f"decoder.model.{place}", x)).tanh()[0]


# Tests.


@pytest.mark.parametrize(("which", "keys", "millions"), [("24khz", 269, 19.8), ("32khz", 286, 54.5)])
def test_published_sizes_have_the_published_number_of_weights(which: str, keys: int, millions: float) -> None:
    shapes = layout(PUBLISHED[which])
    assert len(shapes) == keys
    assert sum(map(math.prod, shapes.values())) == pytest.approx(millions * 1e6, abs=0.05e6)
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in PUBLISHED[which].items()}
    with torch.device("meta"):
        network = Network(SnacConfig(**settings))
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == shapes


def test_what_the_codes_look_like(loaded: Loaded) -> None:
    which, config, _, tokenizer = loaded
    assert tokenizer.spec.codebook_sizes == (64,) * sum(ROWS[which])
    assert tokenizer.spec.sample_rate_hz == config["sampling_rate"]
    assert tokenizer.frame_rate == {"24khz": Fraction(24_000, 2_048), "44khz": Fraction(25, 2)}[which]


def test_codes_and_sound_are_those_of_the_plain_network(loaded: Loaded) -> None:
    which, config, weights, tokenizer = loaded
    at_once = {"24khz": 2_048, "44khz": 441 * 32}[which]
    raw = small.sound(2 * at_once - 100, config["sampling_rate"])
    padded = F.pad(torch.from_numpy(raw.samples)[None], (0, 100))
    with torch.no_grad():
        latents = plain_latents(config, weights, padded)
        expected = plain_levels(config, weights, latents)
        sound = plain_sound(config, weights, expected)
    codes = tokenizer.encode(raw)
    levels = tokenizer.levels(codes)
    assert [level.tolist() for level in levels] == expected
    assert [len(level) for level in levels] == [rows * codes.grid[0] for rows in ROWS[which]]
    assert len(set(expected[-1])) > 3
    made = tokenizer.decode(codes).samples
    assert np.abs(made - sound[:, :-100].numpy()).max() < 1e-4
    assert 0.05 < sound.std() < 0.9


def test_levels_lie_on_one_grid_and_come_back(loaded: Loaded) -> None:
    which, _, _, tokenizer = loaded
    frames, rows = (3, 7) if which == "24khz" else (4, 15)
    values = np.random.default_rng(0).integers(0, 64, (rows, frames)).astype(np.int32)
    codes = Codes(values, tokenizer.spec.full_extent((frames,)))
    levels = tokenizer.levels(codes)
    assert tokenizer.from_levels(levels) == codes
    assert tokenizer.from_levels([level.tolist() for level in levels], codes.extent[0] - 5).extent == (
        codes.extent[0] - 5,
    )
    # Frame 1's codes of the last level follow frame 0's in time.
    first = sum(ROWS[which][:-1])
    assert levels[-1].tolist() == [int(values[first + j, f]) for f in range(frames) for j in range(ROWS[which][-1])]
    with pytest.raises(ShapeError, match=r"levels of .* codes: give"):
        tokenizer.from_levels([levels[0], levels[1][1:], *levels[2:]])


def test_first_levels_are_the_first_rows(loaded: Loaded) -> None:
    which, config, _, tokenizer = loaded
    raw = small.sound(6_000, config["sampling_rate"])
    codes = tokenizer.encode(raw)
    counts = np.cumsum(ROWS[which]).tolist()
    for count in counts:
        few = tokenizer.first_codebooks(count)
        assert np.array_equal(few.encode(raw).values, codes.values[:count])
        assert np.array_equal(few.decode(few.encode(raw)).samples, tokenizer.decode(codes, num_codebooks=count).samples)
        assert few.from_levels(few.levels(few.encode(raw)), 6_000) == few.encode(raw)
    assert not tokenizer.level_droppable
    assert tokenizer.first_codebooks(1).level_droppable
    with pytest.raises(SpecError, match=r"first_codebooks\(2\): 'snac' has 1, 3, 7"):
        tokenizer.first_codebooks(2)
    bitrate = 6 * 3 * float(tokenizer.frame_rate)
    assert tokenizer.at_bitrate(bitrate + 1).spec.num_codebooks == 3


def test_frames_are_counted_exactly(loaded: Loaded) -> None:
    which, config, _, tokenizer = loaded
    at_once = {"24khz": 2_048, "44khz": 441 * 32}[which]
    few = tokenizer.first_codebooks(1)
    for length in (1, at_once - 1, at_once, at_once + 1):
        codes = few.encode(small.sound(length, config["sampling_rate"]))
        assert few.num_tokens((length,)) == codes.num_tokens
        assert codes.grid[0] * few.spec.stride[0] == -(-length // at_once) * at_once
        assert few.decode(codes).samples.shape == (1, length)
    if which == "44khz":
        with pytest.raises(ShapeError, match="codes of 3 frames"):
            few.decode(Codes(np.zeros((1, 3), np.int32), few.spec.full_extent((3,))))


def test_noise_is_the_same_every_time(loaded: Loaded) -> None:
    _, config, weights, tokenizer = loaded
    codes = tokenizer.encode(small.sound(3_000, config["sampling_rate"]))
    torch.manual_seed(1)
    once = tokenizer.decode(codes).samples
    torch.manual_seed(2)
    assert np.array_equal(tokenizer.decode(codes).samples, once)
    silent = {key: value * 0 if ".linear." in key and "original0" in key else value for key, value in weights.items()}
    without = type(tokenizer)(silent, config=config).decode(codes).samples
    assert np.abs(without - once).max() > 1e-3


def test_the_contract(loaded: Loaded, tmp_path: Path) -> None:
    _, config, _, tokenizer = loaded
    check_tokenizer(tokenizer, [small.sound(n, config["sampling_rate"]) for n in (5_001, 1)], tmp_path)


def test_folders_as_published(tmp_path: Path) -> None:
    """SNAC's own have pytorch_model.bin."""
    config = small.SNAC
    weights = weights_of(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert multitok.load(tmp_path, kind="snac").spec.num_codebooks == 7
    for words, damaged in {
        r"'vq_strides'": {key: value for key, value in config.items() if key != "vq_strides"},
        r"has 'model_type'": config | {"model_type": "dac"},
        r"vq_strides \[1, 2\] are to fall": config | {"vq_strides": [1, 2]},
        r"attention of width 100: give a multiple of 64": config | {"attn_window_size": 32, "decoder_dim": 100},
        r"key 'encoder\.block\.0\.bias' has shape \[8\]": config | {"encoder_dim": 16},
    }.items():
        (tmp_path / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(CheckpointError, match=words):
            multitok.load(tmp_path, kind="snac")
    torch.save(dict(list(weights.items())[1:]), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"'encoder\.block\.0\.bias' \[8\] is missing"):
        multitok.load(tmp_path, kind="snac")
