"""Sound on the command line: any file, in pieces, with the codes and the samples of the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import multitok
from multitok.codes_file import read_codes
from multitok.frontend import media
from multitok.protocol import Modality, Waveform
from tests.cli.test_cli import ok, run
from tests.frontend.media.samples import encoded_sound
from tests.frontend.media.test_sounds import file, video_with_sound
from tests.stream_contract import sound

ROOT = Path(__file__).parents[2]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("long.wav", encoded_sound(sound(90_000, 22_050, channels=2).samples, "WAV", "PCM_16", 22_050)),
        ("speech.m4a", file("speech.m4a")),
        ("phone.g722", file("phone.g722")),
        ("clip.mp4", video_with_sound()),
    ],
)
def test_there_and_back(name: str, data: bytes, tmp_path: Path) -> None:
    path, tokenizer = write(tmp_path / name, data), multitok.load("dmel-80hz")
    said = ok("encode", path, *(["--with", "dmel-80hz"] if name == "clip.mp4" else []))
    assert f"{name}.codes: dmel-80hz, 80x" in said
    wave = media.read(path, modality=Modality.AUDIO)
    assert isinstance(wave, Waveform)
    ((_, codes),) = read_codes(tmp_path / f"{name}.codes").items
    assert codes == tokenizer.encode(wave)
    ok("decode", tmp_path / f"{name}.codes", "--out", tmp_path / "back.flac")
    back = media.read(tmp_path / "back.flac")
    assert isinstance(back, Waveform)
    expected = np.clip(tokenizer.decode(codes).samples, -1, 1)
    assert back.samples.shape == expected.shape
    assert np.abs(back.samples - expected).max() <= 1 / 32_768


def test_standard_input_takes_sound(tmp_path: Path) -> None:
    data = encoded_sound(sound(3_000, 16_000).samples, "WAV", "PCM_16")
    command = [sys.executable, "-m", "multitok.cli", "encode", "-", "--print"]
    out = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    assert json.loads(out)["extent"] == [3_000]


def test_damage_behind_the_first_chunk_leaves_no_file(tmp_path: Path) -> None:
    samples = sound(100_000, 16_000).samples.copy()
    samples[0, 99_000] = np.nan
    path = write(tmp_path / "late.wav", encoded_sound(samples, "WAV", "FLOAT"))
    result = run("encode", path)
    assert result.exit_code == 1
    assert "late.wav: sample 99,000 is nan" in result.output
    assert not (tmp_path / "late.wav.codes").exists()


@pytest.mark.slow
def test_memory_stays_bounded_and_torch_away() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/audio_memory.py"), "--quick", "--json", "dmel-80hz"]
    rows = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    for row in rows:
        assert not row["encode"]["torch"]
        assert not row["decode"]["torch"]
        assert row["encode"]["peak_mb"] < 150
        assert row["decode"]["peak_mb"] < 250
