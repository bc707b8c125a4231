"""Checkpoint folders: what is written is what is read, and nothing doubtful is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.numpy

import multitok
from multitok.checkpoint import CARD, CONFIG, TENSORS, sha256_json, shipped_checkpoints
from multitok.errors import CheckpointError, RegistryError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return multitok.save(multitok.load("text-bytes"), tmp_path / "bytes", card="# Bytes\n")


def _edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}), encoding="utf-8")


def test_a_folder_holds_three_readable_files_and_loads_by_path(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, CONFIG, TENSORS])
    assert (folder / CARD).read_text() == "# Bytes\n"
    assert folder.stat().st_mode & 0o777 == 0o755
    assert multitok.load(folder).spec == multitok.load("text-bytes").spec


def test_an_existing_folder_is_never_overwritten(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        multitok.save(multitok.load("text-bytes"), folder, card="")


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    tokenizer = multitok.load("text-bytes")
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        multitok.save(tokenizer, tmp_path / "sub" / "new", card="")
    assert list((tmp_path / "sub").iterdir()) == []


def test_another_version_names_both_and_the_remedy(folder: Path) -> None:
    _edit(folder, format_version=99)
    with pytest.raises(CheckpointError, match=r"format_version 99, this multitok reads 1: upgrade multitok"):
        multitok.load(folder)


def test_altered_tensors_are_refused(folder: Path) -> None:
    path = folder / TENSORS
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"has sha256 .* altered or cut short"):
        multitok.load(folder)


def test_foreign_tensors_are_refused(folder: Path) -> None:
    import hashlib

    import numpy as np

    raw = safetensors.numpy.save({"surprise": np.zeros(3, np.float32)})
    (folder / TENSORS).write_bytes(raw)
    _edit(folder, sha256=hashlib.sha256(raw).hexdigest())
    with pytest.raises(CheckpointError, match=r"do not fit kind 'text-bytes'.*surprise"):
        multitok.load(folder)


def test_broken_configs_are_refused(folder: Path) -> None:
    (folder / CONFIG).write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not JSON"):
        multitok.load(folder)
    (folder / CONFIG).write_text('{"format_version": 1}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="lacks config, kind, sha256"):
        multitok.load(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        multitok.load(folder)


def test_missing_tensors_are_named(folder: Path) -> None:
    (folder / TENSORS).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        multitok.load(folder)


def test_an_unknown_kind_lists_the_known_ones(folder: Path) -> None:
    _edit(folder, kind="smell-vq")
    with pytest.raises(RegistryError, match="'smell-vq'; known are"):
        multitok.load(folder)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint 'nope'.*bpe-32k.*image-patch8"):
        multitok.load("nope")


def test_a_kind_that_needs_a_checkpoint_names_the_shipped_ones() -> None:
    with pytest.raises(CheckpointError, match=r"kind 'text-bpe' cannot be built without a checkpoint.*bpe-32k"):
        multitok.load("text-bpe")


def test_the_name_is_no_part_of_the_fingerprint_and_the_rest_is() -> None:
    tokenizer = multitok.load("text-bytes")
    assert multitok.fingerprint(multitok.load("text-bytes", name="other")) == multitok.fingerprint(tokenizer)
    prints = {multitok.fingerprint(multitok.load(name)) for name in shipped_checkpoints()}
    assert len(prints) == len(shipped_checkpoints())


def test_canonical_json_is_pinned() -> None:
    assert sha256_json({"b": [1, 2.5, None], "a": "ü"}) == sha256_json({"a": "ü", "b": [1, 2.5, None]})
    assert sha256_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
