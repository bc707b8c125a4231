"""Codes on disk: they come back equal, find their tokenizer, and damaged files are refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

import multitok
from multitok.codes_file import ItemInfo, read_codes, write_codes
from multitok.errors import CheckpointError, FingerprintError
from multitok.frontend.media import VolumeInfo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tokenizer = multitok.load("text-bytes")
    items = [("first", tokenizer.encode("naïve")), ("", tokenizer.encode(""))]
    write_codes(tmp_path / "x.codes", tokenizer, "text-bytes", items)
    return tmp_path / "x.codes"


def test_codes_come_back_and_find_their_tokenizer(path: Path) -> None:
    stored = read_codes(path)
    tokenizer = stored.load_tokenizer()
    assert [(key, tokenizer.decode(codes)) for key, codes in stored.items] == [("first", "naïve"), ("", "")]
    assert stored.spec == tokenizer.spec


def test_a_tokenizer_that_would_decode_differently_is_refused(path: Path, tmp_path: Path) -> None:
    tokenizer = multitok.load("text-bytes")
    write_codes(path, tokenizer, "dna-6mer", [("", tokenizer.encode("a"))])
    with pytest.raises(FingerprintError, match="'dna-6mer' with fingerprint"):
        read_codes(path).load_tokenizer()


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_a_file_cut_short_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="is not a codes file"):
        read_codes(path)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    folder = multitok.save(multitok.load("text-bytes"), tmp_path / "saved", card="")
    with pytest.raises(CheckpointError, match="is not a codes file of version 1"):
        read_codes(folder / "model.safetensors")


def test_what_a_file_said_besides_comes_back_and_may_be_absent(path: Path, tmp_path: Path) -> None:
    assert read_codes(path).about == (ItemInfo(), ItemInfo())
    tokenizer = multitok.load("text-bytes")
    place = VolumeInfo(axes="RAS", stored_axes="LPS", window=(-160.0, 240.0), notes=("x",))
    about = [ItemInfo(place=place), ItemInfo(frame_rate_hz=Fraction(30_000, 1001))]
    items = [("a", tokenizer.encode("a")), ("b", tokenizer.encode("b"))]
    write_codes(tmp_path / "y.codes", tokenizer, "text-bytes", items, about)
    assert read_codes(tmp_path / "y.codes").about == tuple(about)
