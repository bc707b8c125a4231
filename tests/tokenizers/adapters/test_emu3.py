"""Emu3: real key names, transformers' network on the same weights, both of its layouts, time, the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import multitok
from multitok.errors import CheckpointError, InputError, ShapeError
from multitok.nets.anchors.emu3 import Emu3 as Network
from multitok.nets.anchors.emu3 import Emu3Config
from multitok.protocol import Codes, Modality
from tests.contract import check_tokenizer
from tests.tokenizers.adapters import layouts

Weights = dict[str, torch.Tensor]
CODES = 512


def layout(channels: int, *, codes: int = CODES, dim: int = 4) -> layouts.Shapes:
    """The names and shapes of transformers' Emu3VQVAE at its real depth."""
    shapes: layouts.Shapes = {"quantize.embedding.weight": (codes, dim)}

    def conv(name: str, before: int, after: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (after, before, *kernel)
        shapes[f"{name}.bias"] = (after,)

    def norm(name: str, width: int, follows: bool) -> None:
        shapes.update({f"{name}{'.norm_layer' if follows else ''}.{part}": (width,) for part in ("weight", "bias")})
        if follows:
            conv(f"{name}.conv_y", dim, width, 1, 1)
            conv(f"{name}.conv_b", dim, width, 1, 1)

    def block(name: str, before: int, after: int, follows: bool) -> None:
        norm(f"{name}.norm1", before, follows)
        conv(f"{name}.conv1", before, after, 3, 3)
        norm(f"{name}.norm2", after, follows)
        conv(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            conv(f"{name}.nin_shortcut", before, after, 1, 1)

    def attention(name: str, width: int) -> None:
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            conv(f"{name}.{part}", width, width)

    def time_blocks(name: str) -> None:
        for i in range(2):
            for part in ("norm1", "norm2"):
                statistics = ("weight", "bias", "running_mean", "running_var")
                shapes.update({f"{name}.{i}.{part}.{which}": (dim,) for which in statistics})
                shapes[f"{name}.{i}.{part}.num_batches_tracked"] = ()
            for part in ("conv1", "conv2"):
                conv(f"{name}.{i}.{part}.conv", dim, dim, 3, 3, 3)

    widths = [channels, 2 * channels, 2 * channels, 4 * channels]
    top = widths[-1]
    for side, follows in (("encoder", False), ("decoder", True)):
        block(f"{side}.middle_block.block_1", top, top, follows)
        attention(f"{side}.middle_block.attn_1", top)
        norm(f"{side}.middle_block.attn_norm", top, follows)
        block(f"{side}.middle_block.block_2", top, top, follows)
        time_blocks(f"{side}.time_res_stack")
        for i in range(2):
            conv(f"{side}.time_conv.{i}.conv.conv", dim, dim, 3 if follows else 4, 3, 3)
    conv("encoder.conv_in", 3, channels, 3, 3)
    conv("decoder.conv_in", dim, top, 3, 3)
    before = channels
    for i, width in enumerate(widths):
        for j in range(2):
            block(f"encoder.down_block.down.{i}.block.{j}", before, width, False)
            before = width
            if i == 3:
                attention(f"encoder.down_block.down.{i}.attn.{j}", width)
                norm(f"encoder.down_block.down.{i}.attn_norms.{j}", width, False)
        if i < 3:
            conv(f"encoder.down_block.down.{i}.downsample.conv", width, width, 3, 3)
    for i in (3, 2, 1, 0):
        for j in range(3):
            block(f"decoder.up_block.up.{i}.block.{j}", before, widths[i], True)
            before = widths[i]
            if i == 3:
                attention(f"decoder.up_block.up.{i}.attn.{j}", before)
                norm(f"decoder.up_block.up.{i}.attn_norms.{j}", before, True)
        if i > 0:
            conv(f"decoder.up_block.up.{i}.upsample.conv", before, before, 3, 3)
    norm("encoder.norm_out", top, False)
    norm("decoder.norm_out", channels, True)
    conv("encoder.conv_out", top, dim, 3, 3)
    conv("decoder.conv_out", channels, 3, 3, 3)
    conv("quant_conv.conv", dim, dim, 3, 1, 1)
    conv("post_quant_conv.conv", dim, dim, 3, 1, 1)
    return shapes


def random_weights(seed: int = 0) -> Weights:
    weights = layouts.random_weights(layout(32), seed)
    for key in weights:
        if key.endswith("running_var"):
            weights[key] = weights[key].abs() + 0.5
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(7)
    return weights


WEIGHTS = random_weights()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write(tmp_path_factory.mktemp("emu3"), WEIGHTS)


@pytest.fixture(scope="module")
def video_tokenizer(folder: Path) -> Any:
    return multitok.load(folder, kind="emu3")


@pytest.fixture(scope="module")
def image_tokenizer(folder: Path) -> Any:
    return multitok.load(folder, kind="emu3-image")


def clip(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise over gradients in time and height, so that codes differ from place to place."""
    rng = np.random.default_rng(seed)
    ramps = [np.linspace(0, 90, n).reshape(-1, *[1] * (len(shape) - i)) for i, n in enumerate(shape)]
    return (sum(ramps[-3:]) / 1.5 + rng.integers(0, 70, (*shape, 3))).astype(np.uint8)


def to_input(raw: NDArray[np.uint8]) -> torch.Tensor:
    """As transformers' image processor: to [0, 1], then less a half and over a half."""
    return torch.tensor((raw / 255 - 0.5) / 0.5, dtype=torch.float32)


def test_the_published_checkpoint_has_495_keys_and_so_has_ours() -> None:
    shapes = layout(256, codes=32768)
    assert len(shapes) == 495
    weights = [shape for key, shape in shapes.items() if not key.endswith(("_mean", "_var", "_tracked"))]
    assert sum(int(np.prod(shape)) for shape in weights) == pytest.approx(270.7e6, abs=0.05e6)
    with torch.device("meta"):
        network = Network(Emu3Config.of(shapes))
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == shapes


def test_codes_and_pixels_equal_those_of_transformers(video_tokenizer: Any, image_tokenizer: Any) -> None:
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    theirs = Emu3VQVAE(Emu3VQVAEConfig(base_channels=32, hidden_size=128, codebook_size=CODES)).eval()
    theirs.load_state_dict(WEIGHTS)
    raw = clip(8, 16, 24)
    with torch.no_grad():
        frames = to_input(raw).permute(0, 3, 1, 2)[None]
        hidden = theirs.quant_conv(theirs.encoder(frames).permute(0, 2, 1, 3, 4)).permute(0, 2, 1, 3, 4)
        expected = theirs.quantize(hidden)
        codes = video_tokenizer.encode(raw)
        assert np.array_equal(codes.values, expected.numpy())
        assert len(np.unique(codes.values)) > 4
        pixels = theirs.decode(expected)[0].permute(0, 2, 3, 1).numpy()
        assert np.abs(video_tokenizer.decode(codes) - (pixels * 127.5 + 127.5).clip(0, 255)).max() <= 0.5 + 1e-2

        still = frames[:, 0]
        picture = theirs.encode(still, torch.tensor([[16, 24]])).image_tokens[0]
        assert np.array_equal(image_tokenizer.encode(raw[0]).values[0], picture.numpy())
        pixels = theirs.decode(picture[None])[0].permute(1, 2, 0).numpy()
        decoded = image_tokenizer.decode(image_tokenizer.encode(raw[0]))
        assert np.abs(decoded - (pixels * 127.5 + 127.5).clip(0, 255)).max() <= 0.5 + 1e-2
        assert decoded.std() > 5


def test_what_the_codes_look_like(video_tokenizer: Any, image_tokenizer: Any) -> None:
    spec = video_tokenizer.spec
    assert (spec.kind, spec.name, spec.modality) == ("emu3", "video", Modality.VIDEO)
    assert (spec.codebook_sizes, spec.grid_axes, spec.stride) == ((CODES,), ("t", "h", "w"), (4, 8, 8))
    spec = image_tokenizer.spec
    assert (spec.kind, spec.name, spec.modality) == ("emu3-image", "image", Modality.IMAGE)
    assert (spec.codebook_sizes, spec.grid_axes, spec.stride) == ((CODES,), ("h", "w"), (8, 8))


def test_the_contract_of_video(video_tokenizer: Any, tmp_path: Path) -> None:
    check_tokenizer(video_tokenizer, [clip(5, 9, 8), clip(1, 1, 1, seed=1)], tmp_path)


def test_the_contract_of_images(image_tokenizer: Any, tmp_path: Path) -> None:
    check_tokenizer(image_tokenizer, [clip(8, 9), clip(1, 1, seed=1)], tmp_path)


def test_a_picture_is_one_frame_four_times_over(video_tokenizer: Any, image_tokenizer: Any) -> None:
    raw = clip(16, 16)
    still = np.stack([raw] * 4)
    assert np.array_equal(image_tokenizer.encode(raw).values[0], video_tokenizer.encode(still).values[0, 0])
    frames = video_tokenizer.decode(video_tokenizer.encode(still))
    assert np.array_equal(image_tokenizer.decode(image_tokenizer.encode(raw)), frames[0])


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8, 9])
def test_four_frames_are_one_step_and_the_last_frame_fills_it(video_tokenizer: Any, frames: int) -> None:
    raw = clip(frames, 8, 8)
    codes = video_tokenizer.encode(raw)
    assert codes.grid == (-(-frames // 4), 1, 1)
    assert video_tokenizer.num_tokens((frames, 8, 8)) == codes.num_tokens
    filled = raw[np.minimum(np.arange(4 * codes.grid[0]), frames - 1)]
    assert np.array_equal(video_tokenizer.encode(filled).values, codes.values)
    assert video_tokenizer.decode(codes).shape == raw.shape


def test_later_frames_change_no_earlier_code(video_tokenizer: Any) -> None:
    raw = clip(12, 16, 16)
    whole = video_tokenizer.encode(raw).values
    assert np.array_equal(video_tokenizer.encode(raw[:4]).values, whole[:, :1])
    assert np.array_equal(video_tokenizer.encode(raw[:8]).values, whole[:, :2])


def first_release(weights: Weights) -> Weights:
    """The same tensors as BAAI/Emu3-VisionTokenizer names them; its projections are convolutions."""
    renamed = {}
    for key, value in weights.items():
        parts = key.replace("down_block.", "").replace("up_block.", "").replace("middle_block", "mid").split(".")
        if "attn_norms" in parts:
            parts[parts.index("attn_norms")] = "attn"
            parts.insert(parts.index("attn") + 2, "norm")
        if "attn_norm" in parts:
            parts[parts.index("attn_norm") : parts.index("attn_norm") + 1] = ["attn_1", "norm"]
        for ours, theirs in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "proj_out")):
            if ours in parts:
                parts[parts.index(ours)] = theirs
                value = value[..., None, None] if parts[-1] == "weight" else value
        renamed[".".join(parts)] = value.contiguous()
    return renamed


def test_the_first_releases_names_are_read_too(video_tokenizer: Any, tmp_path: Path) -> None:
    weights = first_release(WEIGHTS)
    assert weights["encoder.down.3.attn.0.q.weight"].shape == (128, 128, 1, 1)
    assert {"encoder.mid.attn_1.norm.weight", "decoder.up.3.attn.2.norm.conv_y.bias"} <= weights.keys()
    loaded = multitok.load(layouts.write(tmp_path, weights), kind="emu3")
    assert multitok.fingerprint(loaded) == multitok.fingerprint(video_tokenizer)


@pytest.mark.parametrize("prefix", ["model.vqmodel.", "vqmodel."])
def test_a_larger_model_around_the_tokenizer_is_left_alone(video_tokenizer: Any, tmp_path: Path, prefix: str) -> None:
    inside = {prefix + key: value for key, value in WEIGHTS.items()} | {"model.text_model.norm.weight": torch.ones(3)}
    layouts.write(tmp_path, inside)
    config = {"text_config": {"num_attention_heads": 32}, "vq_config": {"num_attention_heads": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert multitok.fingerprint(multitok.load(tmp_path, kind="emu3")) == multitok.fingerprint(video_tokenizer)


def test_heads_come_from_the_configuration(video_tokenizer: Any, tmp_path: Path) -> None:
    layouts.write(tmp_path, WEIGHTS)
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}', encoding="utf-8")
    two = multitok.load(tmp_path, kind="emu3")
    assert two.get_config()["heads"] == 2
    assert multitok.fingerprint(two) != multitok.fingerprint(video_tokenizer)
    for heads in ("3", "0", '"2"', "true", "1.0"):
        (tmp_path / "config.json").write_text(f'{{"num_attention_heads": {heads}}}', encoding="utf-8")
        with pytest.raises(CheckpointError, match="attention heads: give a whole number that divides the 128 channels"):
            multitok.load(tmp_path, kind="emu3")
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CheckpointError, match="no configuration of Emu3"):
        multitok.load(tmp_path, kind="emu3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder.conv_in.weight": None}, r"key 'encoder\.conv_in\.weight' is missing"),
        (
            {"decoder.time_conv.1.conv.conv.bias": None},
            r"key 'decoder\.time_conv\.1\.conv\.conv\.bias' \[4\] is missing",
        ),
        ({"encoder.surprise": torch.ones(2)}, r"key 'encoder\.surprise' is unexpected"),
        ({"quant_conv.conv.weight": torch.ones(4, 4, 3, 1, 2)}, r"\[4, 4, 3, 1, 2\], expected is \[4, 4, 3, 1, 1\]"),
        ({"quantize.embedding.weight": torch.full((CODES, 4), torch.nan)}, "NaN or infinity"),
        ({"encoder.conv_in.weight": torch.ones(7, 3, 3, 3)}, "no network has tensors of these shapes"),
        ({"encoder.conv_in.weight": torch.ones(0, 3, 3, 3)}, "no network has tensors of these shapes"),
        ({"quantize.embedding.weight": torch.ones(4)}, "no network has tensors of these shapes"),
    ],
)
def test_damaged_checkpoints_name_the_first_key_that_differs(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    weights = {key: value for key, value in {**WEIGHTS, **changes}.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        multitok.load(layouts.write(tmp_path, weights), kind="emu3")


def test_wrong_input(video_tokenizer: Any, image_tokenizer: Any) -> None:
    with pytest.raises(ShapeError, match=r"give uint8 \[T, H, W, 3\]"):
        video_tokenizer.encode(clip(8, 8))
    with pytest.raises(ShapeError, match=r"give uint8 \[H, W, 3\]"):
        image_tokenizer.encode(clip(4, 8, 8))
    with pytest.raises(InputError, match="at least 1 long"):
        video_tokenizer.encode(np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(ShapeError, match=r"grid \(1, 1, 1\) for extent \(5, 8, 8\): 'emu3' makes a grid \(2, 1, 1\)"):
        video_tokenizer.decode(Codes(np.zeros((1, 1, 1, 1), np.int32), (5, 8, 8)))
    with pytest.raises(ShapeError, match="counts along the axes"):
        video_tokenizer.num_tokens((8, 8))


def test_gradients_pass_through_the_codes(folder: Path) -> None:
    module = multitok.load(folder, kind="emu3").module  # type: ignore[attr-defined]
    pixels = to_input(clip(4, 8, 16)).permute(3, 0, 1, 2)[None]
    out = module(pixels)
    assert out.shape == pixels.shape
    assert torch.allclose(out.detach(), module.decode(module.encode(pixels)), atol=1e-3)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.encoder.parameters())
    assert module.encoder.conv_in.weight.grad.abs().max() > 0
    assert module.quantize.embedding.weight.grad is None
