"""Every example script runs on the sample data."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multitok
from multitok.frontend import media
from multitok.protocol import Modality
from multitok.train import presets
from tests.nets import small_codec
from tests.tokenizers import semantic_models
from tests.train.autoencoder_runs import TINY, write_pictures

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = ("text", "audio", "series", "sequence")


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_modality_script(name: str, tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / f"{name}.py")], tmp_path)
    assert "tokens" in out
    for line in out.splitlines():
        if line.startswith("wrote "):
            assert (tmp_path / line.removeprefix("wrote ")).stat().st_size > 0


@pytest.mark.parametrize("sound", ["speech-russian-1.wav", "piano.flac"])
def test_live_audio(sound: str, tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / "live_audio.py"), str(EXAMPLES / "data/sounds" / sound), "--chunk-ms", "250"], tmp_path)
    pushes = re.findall(r"^ +[\d.]+ s +[\d.]+ ms +(\d+) frames", out, re.MULTILINE)
    assert len(pushes) > 10
    whole = multitok.load("dmel-80hz").encode(media.read(EXAMPLES / "data/sounds" / sound))
    assert 0 <= whole.grid[0] - sum(map(int, pushes)) < 10
    assert f"{whole.num_tokens:,} tokens of" in out
    assert (tmp_path / "live-decoded.wav").stat().st_size > 0


def _beginning_of(sound: str, folder: Path) -> str:
    """A file with the first second, to be quick."""
    wave = media.read(EXAMPLES / "data/sounds" / sound)
    first = multitok.Waveform(wave.samples[:, : wave.sample_rate_hz], wave.sample_rate_hz)
    return str(media.write(folder / "beginning.wav", Modality.AUDIO, first))


def test_music_at_three_bitrates(tmp_path: Path) -> None:
    multitok.save(small_codec.tokenizer(), tmp_path / "codec", card="# c\n")
    out = _run(
        [str(EXAMPLES / "music_codec.py"), _beginning_of("piano.flac", tmp_path), "--checkpoint", "codec"], tmp_path
    )
    rows = re.findall(r"^ *(\d+) codebooks? +([\d.]+) kbit/s +(\d+) tokens/s +([\d.]+) dB", out, re.MULTILINE)
    assert [int(count) for count, *_ in rows] == [1, 2, 4]
    assert [float(rate) for _, rate, *_ in rows] == pytest.approx([0.32, 0.64, 1.28], rel=0.02)
    distances = [float(distance) for *_, distance in rows]
    assert distances == sorted(distances, reverse=True)
    for count in (1, 2, 4):
        assert media.read(tmp_path / f"music-{count}.wav").sample_rate_hz == 16_000


@pytest.mark.parametrize("checkpoint", ["dmel-80hz", "mel-vq"])
def test_a_spectrogram_as_tokens(checkpoint: str, tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / "spectrogram_tokens.py"), "--checkpoint", checkpoint], tmp_path)
    assert "4.00 s -> codes (" in out
    with Image.open(tmp_path / "spectrogram-tokens.png") as sheet:
        pixels = np.asarray(sheet).astype(float)
    panels = [pixels[top + 30 : top + 250, 12:1212] for top in (12, 278, 544)]
    assert all(panel.std() > 30 for panel in panels)
    original, codes, decoded = (panel.mean(2).ravel() for panel in panels)
    assert np.corrcoef(original, decoded)[0, 1] > 0.9
    # dMel's codes look like the sound; the names of vectors do not.
    assert bool(np.corrcoef(original, codes)[0, 1] > 0.8) is (checkpoint == "dmel-80hz")


def test_speech_as_units(tmp_path: Path) -> None:
    multitok.save(semantic_models.tokenizer(semantic_models.small_whisper()), tmp_path / "units", card="# c\n")
    out = _run(
        [str(EXAMPLES / "speech_units.py"), _beginning_of("speech-russian-1.wav", tmp_path), "--checkpoint", "units"],
        tmp_path,
    )
    rates = [float(rate) for rate in re.findall(r"([\d.]+) tokens/s of", out)]
    assert rates[0] == 50
    assert rates == sorted(rates, reverse=True)
    for name in ("units", "merges"):
        assert media.read(tmp_path / f"speech-from-{name}.wav").duration_s == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(("name", "unit"), [("image", "pixel"), ("volume", "voxel")])
def test_every_level_is_better(name: str, unit: str, tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / f"{name}.py")], tmp_path)
    levels = re.findall(rf"^(\d) codebooks? +([\d.]+) bits per {unit}  ([\d.]+) dB$", out, re.MULTILINE)
    assert [int(count) for count, _, _ in levels] == [1, 2, 3, 4]
    assert [float(rate) for _, rate, _ in levels] == pytest.approx([0.625 * k / 4 for k in (1, 2, 3, 4)], abs=6e-4)
    decibels = [float(quality) for _, _, quality in levels]
    assert decibels == sorted(set(decibels))
    assert f"wrote {name}-levels.png" in out
    with Image.open(tmp_path / f"{name}-levels.png") as sheet:
        pixels = np.asarray(sheet)
    assert 400 < len(pixels) < pixels.shape[1] < 2000
    assert pixels[:, -1].min() == 255  # a margin
    assert pixels.std() > 30
    if name == "volume":
        back, _ = media.read_volume(tmp_path / "volume-decoded.nii.gz")
        assert back.shape == np.load(EXAMPLES / "data/volumes/brain.npy").shape


@pytest.mark.parametrize("size", [(1, 1), (700, 2), (33, 57)])
def test_sheet_of_any_picture(size: tuple[int, int], tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    draw = runpy.run_path(str(EXAMPLES / "image.py"))["draw_sheet"]
    sheet = draw([picture, picture, 255 - picture], ["a", "b", "c"])
    assert min(sheet.size) > 100


def test_stream_of_a_clip(tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / "video.py")], tmp_path)
    assert "24 frames, 5,760 tokens" in out
    decibels = [
        float(found) for found in re.findall(r"frames +\d+ to +\d+ -> codes \(4, 2, 12, 20\)  ([\d.]+) dB", out)
    ]
    assert len(decibels) == 3
    assert min(decibels) > 20
    beside = media.read(tmp_path / "video-stream.mp4")
    assert beside.shape == (24, 180, 3 * 320, 3)
    original = media.read(EXAMPLES / "data/video/rabbit.webp").repeat(2, 1).repeat(2, 2)
    difference = np.abs(beside[:, :, :320].astype(int) - original).mean((1, 2, 3))
    assert difference.max() < 6  # every frame is in its place, but for the loss of H.264


def test_tokenizer_in_training_loop(tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / "tokenizer_in_training_loop.py"), "--steps", "16"], tmp_path)
    losses = [float(found) for found in re.findall(r"step +\d+  loss ([\d.]+)", out)]
    assert losses[-1] < 0.6 * losses[0]
    faded, restored, was = (float(found) for found in re.findall(r"decodes to ([\d.]+) dB", out))
    assert faded + 1 < restored < was
    assert (tmp_path / "restored.png").stat().st_size > 0


def test_trained_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pictures = write_pictures(tmp_path / "pictures", 12)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(presets.PRESETS, "image-f8", TINY[Modality.IMAGE])  # the same in small, to be quick
    monkeypatch.setattr(sys, "argv", ["train_image_tokenizer.py", str(pictures), "--minutes", "0.01"])
    runpy.run_path(str(EXAMPLES / "train_image_tokenizer.py"), run_name="__main__")
    assert "wrote my-image-tokenizer" in capsys.readouterr().out
    tokenizer = multitok.load("my-image-tokenizer")
    picture = media.read(pictures / "a.png")
    error = np.abs(tokenizer.decode(tokenizer.encode(picture)).astype(int) - picture).mean()
    assert error < np.abs(picture.astype(int) - picture.mean((0, 1))).mean()
    assert (
        f"train_image_tokenizer.py {pictures} --minutes 0.01" in (tmp_path / "my-image-tokenizer/card.md").read_text()
    )


def test_demo_then_training(tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / "demo.py"), "--out", "demo"], tmp_path)
    decoded = {path.stem for path in (tmp_path / "demo" / "decoded").iterdir()}
    assert decoded == {"text", "image", "video", "volume", "audio", "series", "sequence"}
    assert "0 items in quarantine" in out
    for column in ("items", "tokens", "tokens/s", "bytes in", "bytes out"):
        assert column in out
    trained = _run([str(EXAMPLES / "train_tiny_transformer.py"), "demo/shards", "--steps", "30"], tmp_path)
    assert "all 30 losses are the same to the last bit; the loss fell" in trained


def test_examples_are_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"`{path.name}`" in listed
