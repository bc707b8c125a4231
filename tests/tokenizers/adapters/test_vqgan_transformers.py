"""Chameleon and Janus against `transformers`, which has the first's encoder and the whole of the second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ChameleonVQVAEConfig, JanusVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
from transformers.models.janus.modeling_janus import JanusVQVAE

import multitok
from multitok.errors import CheckpointError
from tests.tokenizers.adapters import layouts

GRID = 6
SIZES = {"embed_dim": 4, "num_embeddings": 64, "latent_channels": 8, "base_channels": 32}


def fill(model: Any) -> dict[str, torch.Tensor]:
    """Random weights for a model of transformers, whose own first ones hide many mistakes; a copy of them."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    weights = layouts.random_weights(shapes)
    weights["quantize.embedding.weight"] = torch.nn.functional.normalize(weights["quantize.embedding.weight"], dim=1)
    model.load_state_dict(weights)
    return weights


def pictures(stride: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    ramp = np.linspace(0, 150, GRID * stride)[:, None, None]
    return [(ramp + rng.integers(0, 100, (GRID * stride, GRID * stride, 3))).astype(np.uint8) for _ in range(3)]


def as_input(tokenizer: Any, raw: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(tokenizer.pixel_values()[raw]).permute(2, 0, 1)[None]


@pytest.mark.parametrize("attention", [None, [16]])
def test_chameleon_encodes_as_transformers_does(tmp_path: Path, attention: list[int] | None) -> None:
    config = ChameleonVQVAEConfig(
        **SIZES, channel_multiplier=[1, 2, 2], num_res_blocks=2, attn_resolutions=attention, resolution=64
    )
    model = ChameleonVQVAE(config).eval()
    weights = fill(model)
    levels = (2,) if attention else ()
    whole = layouts.taming((32, 64, 64), attention=levels, z=8, dim=4, codes=64)
    assert {key: tuple(value.shape) for key, value in weights.items()} == {
        key: shape for key, shape in whole.items() if not key.startswith("decoder.")
    }
    inside = {f"model.vqmodel.{key}": value for key, value in weights.items()}
    tokenizer = multitok.load(layouts.write(tmp_path, inside), kind="chameleon")
    for raw in pictures(4):
        with torch.no_grad():
            expected = model.encode(as_input(tokenizer, raw), return_dict=True).image_tokens
        codes = tokenizer.encode(raw)
        assert codes.values.ravel().tolist() == expected.tolist()
        assert len(expected.unique()) > 5
        with pytest.raises(CheckpointError, match=r"encoder alone.*original vqgan\.ckpt"):
            tokenizer.decode(codes)


@pytest.fixture(scope="module")
def janus() -> tuple[Any, dict[str, torch.Tensor]]:
    config = JanusVQVAEConfig(**SIZES, channel_multiplier=[1, 2, 2], num_res_blocks=2, num_patches=GRID)
    model = JanusVQVAE(config).eval()
    return model, fill(model)


def test_janus_encodes_as_transformers_does(janus: tuple[Any, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    """Rows have length 1 here: transformers leaves out what the original does to others."""
    model, weights = janus
    tokenizer = multitok.load(layouts.write(tmp_path, weights), kind="llamagen")
    for raw in pictures(4):
        with torch.no_grad():
            found = model.encode(as_input(tokenizer, raw), return_dict=True)
            latents = model.quant_conv(found.last_hidden_state)
            ours = tokenizer.module.latents(as_input(tokenizer, raw))  # type: ignore[attr-defined]
        assert torch.allclose(ours, latents, atol=1e-4, rtol=1e-4)
        assert tokenizer.encode(raw).values.ravel().tolist() == found.image_tokens.tolist()


def test_janus_decodes_as_transformers_does(janus: tuple[Any, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    model, weights = janus
    # Lengths of rows matter to neither side here.
    weights = weights | {"quantize.embedding.weight": weights["quantize.embedding.weight"] * 3}
    module = multitok.load(layouts.write(tmp_path, weights), kind="llamagen").module  # type: ignore[attr-defined]
    codes = torch.randint(64, (2, GRID * GRID), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.decode(codes)
        ours = module.decode(codes.reshape(2, 1, GRID, GRID))
    assert ours.shape == expected.shape == (2, 3, 4 * GRID, 4 * GRID)
    assert torch.allclose(ours, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.05


def test_janus_and_llamagen_name_one_network(janus: tuple[Any, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    """The keys of both, in the order in which LlamaGen runs, have the same tensors."""
    _, weights = janus
    names = _janus_names(layouts.llamagen((32, 64, 64)))
    renamed = {llamagen: weights[key] for llamagen, key in names.items()}
    assert sorted(names.values()) == sorted(weights)
    renamed["quantize.codebook_used"] = torch.zeros(65536)
    one = multitok.load(layouts.write(tmp_path / "one", weights), kind="llamagen")
    other = multitok.load(layouts.write(tmp_path / "other", renamed), kind="llamagen")
    in_janus = {f"gen_vision_model.{key}": value for key, value in renamed.items()} | {"aligner.weight": torch.ones(2)}
    third = multitok.load(layouts.write(tmp_path / "third", in_janus), kind="llamagen")
    assert multitok.fingerprint(one) == multitok.fingerprint(other) == multitok.fingerprint(third)


def _janus_names(shapes: layouts.Shapes) -> dict[str, str]:
    """LlamaGen's key -> transformers' key; both number the levels as they run."""
    names = {}
    for key in shapes:
        side = key.partition(".")[0]
        levels = "up" if side == "decoder" else "down"
        name = key.replace("conv_blocks", levels).replace(".res.", ".block.")
        for number, part in enumerate(("block_1", "attn_1", "block_2")):
            name = name.replace(f".mid.{number}.", f".mid.{part}.")
        if name != "quantize.codebook_used":
            names[key] = name
    return names
