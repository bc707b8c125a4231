"""VQGAN, LlamaGen, Chameleon and Open-MAGVIT2: real key names, the networks against plain ones, the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import multitok
from multitok import registry
from multitok.errors import CheckpointError, InputError, ShapeError
from multitok.protocol import Codes, DirectoryReader
from multitok.tokenizers.chameleon import Chameleon
from multitok.tokenizers.llamagen import LlamaGen
from multitok.tokenizers.open_magvit2 import OpenMagvit2
from multitok.tokenizers.vqgan import Vqgan
from tests.contract import check_tokenizer
from tests.tokenizers.adapters import layouts, reference

LLAMAGEN_NAMES = {"level": "conv_blocks.{}.res", "middle": "0 1 2"}
Weights = dict[str, torch.Tensor]


class Case(NamedTuple):
    kind: str
    shapes: layouts.Shapes
    stride: int
    codes: int
    latents: Callable[[Weights, torch.Tensor], torch.Tensor]
    pixels: Callable[[Weights, torch.Tensor], torch.Tensor]


CASES = {
    "vqgan": Case(
        "vqgan",
        layouts.taming((32, 32, 64), attention=(2,)),
        4,
        64,
        reference.taming_latents,
        lambda w, z: reference.taming_pixels(w, z, [2, 1, 0]),
    ),
    "vqgan-gumbel": Case(
        "vqgan",
        layouts.taming((32, 64), attention=(0, 1), blocks=1, z=4, dim=4, gumbel=True),
        2,
        64,
        reference.taming_latents,
        lambda w, z: reference.taming_pixels(w, z, [1, 0]),
    ),
    "llamagen": Case(
        "llamagen",
        layouts.llamagen((32, 64, 64)),
        4,
        64,
        lambda w, x: reference.taming_latents(w, x, **LLAMAGEN_NAMES),
        lambda w, z: reference.taming_pixels(w, z, [0, 1, 2], **LLAMAGEN_NAMES),
    ),
    "chameleon": Case(
        "chameleon",
        layouts.taming((32, 64), codes=100),
        2,
        100,
        reference.taming_latents,
        lambda w, z: reference.taming_pixels(w, z, [1, 0]),
    ),
    "open-magvit2": Case(
        "open-magvit2",
        layouts.open_magvit2((32, 32, 64), bits=6),
        4,
        64,
        reference.magvit_latents,
        lambda w, z: reference.magvit_pixels(w, z, [2, 1, 0]),
    ),
}


@pytest.fixture(scope="module", params=sorted(CASES))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Weights, Any]:
    case = CASES[request.param]
    weights = layouts.random_weights(case.shapes)
    folder = layouts.write(tmp_path_factory.mktemp(request.param), weights)
    return case, weights, multitok.load(folder, kind=case.kind)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """Noise over a gradient, so that codes differ from place to place."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 190, shape[0])[:, None, None] + np.zeros((*shape, 3))
    return (ramp + rng.integers(0, 65, (*shape, 3))).astype(np.uint8)


def quantized(case: Case, weights: Weights, codes: np.ndarray) -> torch.Tensor:
    """Code vectors [1, D, h, w] of codes [h, w], one position after the other."""
    table = weights.get("quantize.embedding.weight", weights.get("quantize.embed.weight"))
    rows = []
    for code in codes.ravel().tolist():
        if case.kind == "open-magvit2":
            bits = len(weights["encoder.conv_out.bias"])
            rows.append(torch.tensor([1.0 if code >> bit & 1 else -1.0 for bit in range(bits)]))
        else:
            assert table is not None
            row = table[code]
            rows.append(row / row.norm() if case.kind == "llamagen" else row)
    return torch.stack(rows).T.reshape(1, -1, *codes.shape)


def test_published_sizes_have_the_published_number_of_keys() -> None:
    f16, f8 = (128, 128, 256, 256, 512), (128, 256, 256, 512)
    assert len(layouts.llamagen(f16)) == 344
    assert len(layouts.llamagen(f8)) == 300
    assert len(layouts.taming(f16)) == 293  # Chameleon
    assert len(layouts.taming(f16, attention=(4,))) == 343


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("vqgan", layouts.taming((128, 128, 256, 256, 512), attention=(4,), z=256, dim=256, codes=16384)),
        ("vqgan", layouts.taming((128, 128, 256, 512), attention=(3,), z=256, dim=256, codes=8192, gumbel=True)),
        ("llamagen", layouts.llamagen((128, 128, 256, 256, 512), z=256, dim=8, codes=16384)),
        ("llamagen", layouts.llamagen((128, 256, 256, 512), z=256, dim=8, codes=16384)),
        ("chameleon", layouts.taming((128, 128, 256, 256, 512), z=256, dim=256, codes=8192)),
        ("open-magvit2", layouts.open_magvit2((128, 128, 256, 256, 512), blocks=4, bits=18)),
    ],
)
def test_networks_of_published_size_have_exactly_the_published_keys(
    kind: str, shapes: layouts.Shapes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without their memory: the comparison of keys is where the construction stops."""
    seen: dict[str, Any] = {}

    class Stop(Exception):
        pass

    def stop(where: str, given: Weights, expected: dict[str, Any]) -> None:
        seen.update(given={key: tuple(value.shape) for key, value in given.items()})
        seen.update(expected={key: tuple(shape) for key, shape in expected.items()})
        raise Stop

    adapter: Any = registry.tokenizer_class(kind)
    reader = "open_magvit2" if kind == "open-magvit2" else "_vqgan"
    published = {**shapes, "loss.discriminator.main.0.weight": (64, 3, 4, 4)}
    on_meta = {key: torch.empty(shape, device="meta") for key, shape in published.items()}
    monkeypatch.setattr(f"multitok.tokenizers.{reader}.read_weights", lambda folder, **_: on_meta)
    for checker in ("llamagen", "_anchor_network"):
        monkeypatch.setattr(f"multitok.tokenizers.{checker}.check_keys", stop)
    with pytest.raises(Stop):
        adapter.from_directory(tmp_path, name=None)
    shapes.pop("quantize.codebook_used", None)
    assert seen["expected"] == shapes
    assert seen["given"] == shapes


def test_the_contract(loaded: tuple[Case, Weights, Any], tmp_path: Path) -> None:
    _, _, tokenizer = loaded
    check_tokenizer(tokenizer, [picture(24, 17), picture(9, 40, seed=1), picture(1, 1, seed=2)], tmp_path)


def test_what_the_codes_look_like(loaded: tuple[Case, Weights, Any]) -> None:
    case, _, tokenizer = loaded
    assert isinstance(type(tokenizer), DirectoryReader)
    spec = tokenizer.spec
    assert (spec.kind, spec.name, spec.codebook_sizes) == (case.kind, "image", (case.codes,))
    assert (spec.grid_axes, spec.stride) == (("h", "w"), (case.stride, case.stride))


def test_latents_are_those_of_the_plain_network(loaded: tuple[Case, Weights, Any]) -> None:
    case, weights, tokenizer = loaded
    pixels = torch.tensor(picture(24, 16).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        ours = tokenizer.module.latents(pixels)
    theirs = case.latents(weights, pixels)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    # Random weights tell positions apart, or the comparison would show little.
    assert theirs.std((2, 3)).min() > 1e-3


def test_codes_are_what_the_definition_says(loaded: tuple[Case, Weights, Any]) -> None:
    case, weights, tokenizer = loaded
    pixels = torch.tensor(picture(24, 16).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        codes = tokenizer.module.encode(pixels)
        latents = tokenizer.module.latents(pixels).double()
    assert codes.shape == (1, 1, *latents.shape[2:])
    if case.kind == "open-magvit2":
        expected = sum((latents[:, bit] > 0).long() << bit for bit in range(latents.shape[1]))
    elif "quantize.proj.weight" in weights:
        proj = weights["quantize.proj.weight"].double(), weights["quantize.proj.bias"].double()
        expected = F.conv2d(latents, *proj).argmax(1)
    else:
        table, vectors = weights["quantize.embedding.weight"].double(), latents.permute(0, 2, 3, 1)
        if case.kind == "llamagen":
            table, vectors = F.normalize(table, dim=-1), F.normalize(vectors, dim=-1)
        expected = ((vectors[..., None, :] - table) ** 2).sum(-1).argmin(-1)
    assert torch.equal(codes[:, 0], torch.as_tensor(expected))
    assert len(codes.unique()) > 5


def test_decoded_pictures_are_those_of_the_plain_network(loaded: tuple[Case, Weights, Any]) -> None:
    case, weights, tokenizer = loaded
    codes = np.random.default_rng(3).integers(0, case.codes, (1, 3, 4))
    extent = (3 * case.stride - 1, 4 * case.stride)
    decoded = tokenizer.decode(Codes(codes, extent))
    exact = case.pixels(weights, quantized(case, weights, codes[0]))[0].permute(1, 2, 0)
    expected = (exact * 127.5 + 127.5).clamp(0, 255).numpy()[: extent[0], : extent[1]]
    assert decoded.shape == (*extent, 3)
    assert np.abs(decoded - expected).max() <= 0.5 + 1e-2
    assert expected.std() > 10


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 8), (8, 8), (13, 21)])
def test_sizes_between_strides_repeat_the_edge(loaded: tuple[Case, Weights, Any], height: int, width: int) -> None:
    case, _, tokenizer = loaded
    raw = picture(height, width)
    rows, columns = (-(-n // case.stride) * case.stride for n in (height, width))
    by_hand = raw[np.minimum(np.arange(rows), height - 1)][:, np.minimum(np.arange(columns), width - 1)]
    assert np.array_equal(tokenizer.encode(raw).values, tokenizer.encode(by_hand).values)
    assert tokenizer.encode(raw).extent == (height, width)
    assert tokenizer.decode(tokenizer.encode(raw)).shape == raw.shape


def test_what_is_no_picture_is_refused(loaded: tuple[Case, Weights, Any]) -> None:
    _, _, tokenizer = loaded
    with pytest.raises(ShapeError, match="batch use encode_batch"):
        tokenizer.encode(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="at least 1 long"):
        tokenizer.encode(np.zeros((0, 8, 3), np.uint8))
    with pytest.raises(ShapeError, match="grid"):
        tokenizer.decode(Codes(np.zeros((1, 2, 2), np.int32), (40, 40)))


def test_gradients_flow_through_the_codes(loaded: tuple[Case, Weights, Any], tmp_path: Path) -> None:
    case, weights, _ = loaded
    module = multitok.load(layouts.write(tmp_path, weights), kind=case.kind).module  # type: ignore[attr-defined]
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).requires_grad_()
    back = module(pixels)
    assert back.shape == pixels.shape
    assert torch.allclose(back, module.decode(module.encode(pixels)), atol=1e-3)
    (back - pixels.detach()).square().mean().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.encoder.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_dtype_are_computed_with_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = layouts.random_weights(CASES["vqgan"].shapes)
    rounded = {key: value.to(dtype) for key, value in weights.items()}
    small = multitok.load(layouts.write(tmp_path / "small", rounded), kind="vqgan")
    full = {key: value.float() for key, value in rounded.items()}
    same = multitok.load(layouts.write(tmp_path / "full", full), kind="vqgan")
    assert {value.dtype for value in small.get_tensors().values()} == {np.dtype(np.float32)}
    assert multitok.fingerprint(small) == multitok.fingerprint(same)


def test_pixels_enter_as_the_publishers_have_them() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    to_tensor = values.float().div(255)
    kinds: list[Any] = [Vqgan, LlamaGen, Chameleon, OpenMagvit2]
    pixels = {kind.kind: kind.pixel_values() for kind in kinds}
    assert np.array_equal(pixels["llamagen"], ((to_tensor - 0.5) / 0.5).numpy())
    assert np.array_equal(pixels["vqgan"], (values.numpy() / 127.5 - 1.0).astype(np.float32))
    assert np.array_equal(pixels["open-magvit2"], pixels["vqgan"])
    chameleon = torch.from_numpy(values.numpy() / 255.0 * 2 - 1).float()
    assert np.array_equal(pixels["chameleon"], chameleon.numpy())


def test_lengths_of_llamagens_code_vectors_do_not_matter(tmp_path: Path) -> None:
    weights = layouts.random_weights(CASES["llamagen"].shapes)
    scaled = dict(weights)
    scaled["quantize.embedding.weight"] = weights["quantize.embedding.weight"] * torch.linspace(0.5, 8, 64)[:, None]
    one = multitok.load(layouts.write(tmp_path / "one", weights), kind="llamagen")
    other = multitok.load(layouts.write(tmp_path / "other", scaled), kind="llamagen")
    codes = one.encode(picture(24, 24))
    assert other.encode(picture(24, 24)) == codes
    assert np.abs(one.decode(codes).astype(int) - other.decode(codes)).max() <= 1


@given(st.lists(st.floats(-2, 2, width=32), min_size=5, max_size=5))
def test_signs_are_bits_the_lowest_first(values: list[float]) -> None:
    from multitok.nets.anchors.lookup import SignLookup

    lookup = SignLookup(5)
    latents = torch.tensor(values).reshape(1, 5, 1, 1)
    code = lookup.encode(latents)
    assert code.item() == sum(2**bit for bit, value in enumerate(values) if value > 0)
    signs = lookup.decode(code)
    assert signs.flatten().tolist() == [1.0 if value > 0 else -1.0 for value in values]
    assert torch.equal(lookup.encode(signs), code)


def test_a_larger_model_around_the_tokenizer_is_left_alone(tmp_path: Path) -> None:
    weights = layouts.random_weights(CASES["chameleon"].shapes)
    inside = {f"model.vqmodel.{key}": value for key, value in weights.items()}
    inside["model.layers.0.mlp.weight"] = torch.ones(2, 2)
    alone = multitok.load(layouts.write(tmp_path / "alone", weights), kind="chameleon")
    taken = multitok.load(layouts.write(tmp_path / "inside", inside), kind="chameleon")
    assert multitok.fingerprint(taken) == multitok.fingerprint(alone)


def test_open_magvit2_uses_the_moving_averages(tmp_path: Path) -> None:
    shapes = CASES["open-magvit2"].shapes
    weights, averages = layouts.random_weights(shapes, seed=1), layouts.random_weights(shapes, seed=2)
    both = weights | {f"model_ema.{key.replace('.', '')}": value for key, value in averages.items()}
    both |= {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
    both |= {"loss.discriminator.main.0.weight": torch.ones(2), "model_ema.lossdiscriminatormain0weight": torch.ones(2)}
    expected = multitok.load(layouts.write(tmp_path / "averages", averages), kind="open-magvit2")
    loaded = multitok.load(layouts.write(tmp_path / "both", both), kind="open-magvit2")
    assert multitok.fingerprint(loaded) == multitok.fingerprint(expected)
    lacking = {key: value for key, value in both.items() if key != "model_ema.decoderconv_outbias"}
    with pytest.raises(CheckpointError, match=r"'model_ema\.decoderconv_outbias' is missing"):
        multitok.load(layouts.write(tmp_path / "lacking", lacking), kind="open-magvit2")
    with pytest.raises(CheckpointError, match=r"'model_ema\.surprise' is unexpected"):
        multitok.load(
            layouts.write(tmp_path / "more", both | {"model_ema.surprise": torch.ones(1)}), kind="open-magvit2"
        )
