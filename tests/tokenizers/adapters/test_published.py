"""Folders with published weights: every form that is read, and every damage with the message that names it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import multitok
from multitok import registry
from multitok.errors import CheckpointError, RegistryError
from multitok.protocol import DirectoryReader, TokenizerBase
from tests.tokenizers.adapters import layouts

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return layouts.random_weights(layouts.taming((32, 64)))


@pytest.fixture(scope="module")
def expected(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> str:
    return multitok.fingerprint(load(layouts.write(tmp_path_factory.mktemp("plain"), weights)))


def load(folder: Path, kind: str = "vqgan") -> Any:
    return multitok.load(folder, kind=kind)


def saved(folder: Path, state: Any, name: str = "last.ckpt") -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / name)
    return folder


@pytest.mark.parametrize("kind", sorted(registry.ADAPTERS))
def test_every_adapter_reads_directories(kind: str) -> None:
    adapter = registry.tokenizer_class(kind)
    assert issubclass(adapter, TokenizerBase)
    assert isinstance(adapter, DirectoryReader)
    assert registry.kinds()[kind] == registry.ADAPTERS[kind]


def test_torch_files_flat_and_nested(weights: Weights, expected: str, tmp_path: Path) -> None:
    lightning = {"state_dict": weights | {"loss.logvar": torch.zeros(())}, "epoch": 3, "optimizer_states": [{}]}
    for name, state in {"last.ckpt": lightning, "vq.pt": {"model": weights}, "flat.bin": weights}.items():
        assert multitok.fingerprint(load(saved(tmp_path / name, state, name))) == expected


def test_shards(weights: Weights, expected: str, tmp_path: Path) -> None:
    names = sorted(weights)
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({key: weights[key] for key in names[::2]}, tmp_path / first)
    index = {"weight_map": {key: first if i % 2 == 0 else second for i, key in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"names {second}, which is not there: copy all shards"):
        load(tmp_path)
    save_file({key: weights[key] for key in names[1::2]}, tmp_path / second)
    assert multitok.fingerprint(load(tmp_path)) == expected
    save_file({names[0]: weights[names[0]]}, tmp_path / "copy.safetensors")
    with pytest.raises(CheckpointError, match=rf"{names[0]}.* is in copy\.safetensors and in {first}"):
        load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no index of shards"):
        load(tmp_path)


def test_the_moving_average_of_llamagen_comes_first(tmp_path: Path) -> None:
    shapes = layouts.llamagen((32, 64))
    average, last = layouts.random_weights(shapes, seed=1), layouts.random_weights(shapes, seed=2)
    alone = load(layouts.write(tmp_path / "alone", average), "llamagen")
    both = load(saved(tmp_path / "both", {"model": last, "ema": average}), "llamagen")
    assert multitok.fingerprint(both) == multitok.fingerprint(alone)


def test_a_converted_folder_loads_with_and_without_its_kind(weights: Weights, tmp_path: Path) -> None:
    tokenizer = load(layouts.write(tmp_path / "theirs", weights))
    folder = multitok.save(tokenizer, tmp_path / "ours", card="# Ours\n")
    for again in (multitok.load(folder), load(folder), multitok.load(folder, kind="vqgan", name="other")):
        assert multitok.fingerprint(again) == multitok.fingerprint(tokenizer)
    assert multitok.load(folder, kind="vqgan", name="other").spec.name == "other"
    assert multitok.load(tmp_path / "theirs", kind="vqgan", name="other").spec.name == "other"
    with pytest.raises(CheckpointError, match="holds kind 'vqgan', not 'llamagen': leave kind out"):
        load(folder, "llamagen")


@pytest.mark.parametrize("kind", ["vqgan", "open-magvit2"])
def test_a_config_holds_a_name_alone(kind: str, tmp_path: Path) -> None:
    shapes = layouts.open_magvit2((32, 64)) if kind == "open-magvit2" else layouts.taming((32, 64))
    tokenizer = load(layouts.write(tmp_path / "theirs", layouts.random_weights(shapes)), kind)
    folder = multitok.save(tokenizer, tmp_path / "ours", card="")
    file = folder / "config.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "config": {"name": "image", "channels": 32}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"kind '{kind}' has no setting 'channels'"):
        multitok.load(folder)


def test_every_single_key_is_needed_in_its_shape(weights: Weights, tmp_path: Path) -> None:
    """Half of them by removal, half by another shape; each message names a key, and nearly always this one."""
    keys = [key for i, key in enumerate(weights) if i % 9 == 0 and key != "quantize.embedding.weight"]
    named = 0
    for i, key in enumerate(keys):
        broken = dict(weights)
        if i % 2:
            del broken[key]
        else:
            broken[key] = torch.cat([weights[key], weights[key][:1]])
        with pytest.raises(CheckpointError) as caught:
            load(layouts.write(tmp_path / str(i), broken))
        message = str(caught.value)
        assert str(tmp_path / str(i)) in message
        assert "another kind" in message
        # Sizes are read from some keys; then it is the first of the others that does not fit.
        assert f"key {key!r}" in message or "has shape" in message
        named += f"key {key!r}" in message
    assert named >= len(keys) - 3


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("vqgan", {"decoder.up.0.block.1.norm2.bias": None}, r"'decoder.up.0.block.1.norm2.bias' \[32\] is missing"),
        ("vqgan", {"encoder.conv_in.weight": None}, "'encoder.conv_in.weight' is missing"),
        ("vqgan", {"quantize.embedding.weight": None}, "'quantize.embedding.weight' is missing"),
        ("vqgan", {"quantize.used": torch.ones(3)}, r"'quantize.used' is unexpected \(0 keys are missing and 1"),
        ("vqgan", {"quant_conv.bias": torch.ones(5)}, r"'quant_conv.bias' has shape \[5\], expected is \[4\]"),
        ("vqgan", {"quant_conv.bias": torch.ones(4, dtype=torch.int64)}, "is torch.int64, expected are floats"),
        ("vqgan", {"quant_conv.bias": torch.full((4,), torch.nan)}, "'quant_conv.bias' holds NaN or infinity"),
        ("vqgan", {"encoder.conv_in.weight": torch.ones(3)}, r"'encoder.conv_in.weight' has shape \[3\], expected"),
        ("llamagen", {"decoder.conv_blocks.0.attn.2.q.bias": None}, "'decoder.conv_blocks.0.attn.2.q.bias'.* missing"),
        ("llamagen", {"decoder.mid.1.k.bias": torch.ones(2)}, "'decoder.mid.1.k.bias' has shape"),
        ("open-magvit2", {"decoder.adaptive.1.beta.bias": None}, "'decoder.adaptive.1.beta.bias'.* is missing"),
        ("open-magvit2", {"encoder.down.0.attn.0.q.weight": torch.ones(32, 32, 1, 1)}, r"attn\.0.* is unexpected"),
        ("open-magvit2", {"encoder.conv_out.weight": torch.ones(31, 64, 1, 1)}, "of 31 bits: 30 are the most"),
        ("chameleon", {"encoder.mid.attn_1.q.weight": None}, "'encoder.mid.attn_1.q.weight'.* is missing"),
    ],
)  # fmt: skip
def test_the_first_key_that_differs_is_named(
    kind: str, change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    shapes = {
        "vqgan": layouts.taming((32, 64)),
        "llamagen": layouts.llamagen((32, 64)),
        "open-magvit2": layouts.open_magvit2((32, 64)),
        "chameleon": layouts.taming((32, 64)),
    }[kind]
    changed = {**layouts.random_weights(shapes), **change}
    folder = layouts.write(tmp_path / "changed", {key: value for key, value in changed.items() if value is not None})
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder, kind)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", ["llamagen", "open-magvit2", "chameleon"])
def test_a_checkpoint_of_another_kind_is_refused(kind: str, tmp_path: Path) -> None:
    gumbel = layouts.random_weights(layouts.taming((32, 64), attention=(1,), gumbel=True))
    with pytest.raises(CheckpointError, match="another kind"):
        load(layouts.write(tmp_path, gumbel), kind)


def test_half_a_checkpoint(weights: Weights, tmp_path: Path) -> None:
    half = {key: value for key, value in weights.items() if key.startswith(("encoder.", "quantize."))}
    with pytest.raises(CheckpointError, match=r"'decoder.conv_in.weight' \[64, 8, 3, 3\] is missing \(\d+ keys"):
        load(layouts.write(tmp_path / "half", half))
    folder = layouts.write(tmp_path / "cut", weights)
    raw = (folder / "model.safetensors").read_bytes()
    for length in (0, 7, 1000, len(raw) - 1):
        (folder / "model.safetensors").write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            load(folder)


def test_torch_files_cut_short(weights: Weights, tmp_path: Path) -> None:
    folder = saved(tmp_path, weights)
    raw = (folder / "last.ckpt").read_bytes()
    for length in (0, 100, len(raw) // 2, len(raw) - 10):
        (folder / "last.ckpt").write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"last\.ckpt"):
            load(folder)


class Trap:
    """Unpickled, this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "ran")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_not_run(weights: Weights, tmp_path: Path, legacy: bool) -> None:
    ran = tmp_path / "ran"
    state = {"state_dict": weights, "callbacks": Trap(ran)}
    torch.save(state, tmp_path / "last.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"Python objects besides tensors.*it is not loaded.*save_file"):
        load(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(state))
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        load(tmp_path)
    assert not ran.exists()


def test_folders_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no weights, no \*\.safetensors, \*\.ckpt"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.yaml").write_text("model:", encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load(tmp_path)
    for state in ([1, 2], {"epoch": 1}, {"state_dict": {"a": 1}}):
        with pytest.raises(CheckpointError, match="holds no tensors by name"):
            load(saved(tmp_path, state))
    saved(tmp_path, {}, "other.pt")
    with pytest.raises(CheckpointError, match=r"several checkpoints, last\.ckpt, other\.pt: leave one"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="is no folder"):
        load(tmp_path / "last.ckpt")


def test_kinds_that_read_no_directories(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"kind 'text-bytes' reads no checkpoints of others.*vqgan"):
        load(tmp_path, "text-bytes")
    with pytest.raises(RegistryError, match="'vqgan-2'"):
        load(tmp_path, "vqgan-2")


def test_tensors_that_share_memory_are_no_trouble(weights: Weights, expected: str, tmp_path: Path) -> None:
    buffer = torch.cat([value.flatten() for value in weights.values()])
    views, start = {}, 0
    for key, value in weights.items():
        views[key] = buffer[start : start + value.numel()].view(value.shape)
        start += value.numel()
    tokenizer = load(saved(tmp_path, {"state_dict": views}))
    assert multitok.fingerprint(tokenizer) == expected
    assert all(np.isfinite(value).all() for value in tokenizer.get_tensors().values())
