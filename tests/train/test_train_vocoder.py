"""Training of a vocoder: it learns, repeats, resumes to the bit, and keeps the codes of its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

import multitok
from multitok.cli import cli
from multitok.errors import CheckpointError, JobError, SpecError
from multitok.nets.causal.config import CausalConfig
from multitok.nets.vocoder import VocoderConfig
from multitok.train.options import TrainingOptions
from multitok.train.sound_training import SoundRun
from multitok.train.state_files import StateFiles
from multitok.train.train_vocoder import VocoderResult, preset, train_vocoder
from tests.stream_contract import sound

TINY = VocoderConfig(
    net=CausalConfig(in_dim=80, out_dim=802, channels=8, hidden=16, taps=3, dilations=(1,), lookahead=1)
)
OPTIONS = TrainingOptions(steps=6, batch=2, eval_every=3, save_every=2, held_out=1, tensorboard="off", device="cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for seed in range(3):
        soundfile.write(folder / f"{seed}.wav", sound(24_000, 16_000, seed=seed).samples[0], 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def _train(sounds: Path, run: Path, options: TrainingOptions = OPTIONS, *, resume: bool = False) -> VocoderResult:
    return train_vocoder([sounds], run, config=TINY, options=options, resume=resume, show=False)


def _same(left: VocoderResult, right: VocoderResult) -> bool:
    others = right.vocoder.tensors()
    return all(np.array_equal(value, others[key]) for key, value in left.vocoder.tensors().items())


def test_a_killed_run_ends_with_the_same_bits(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _train(sounds, tmp_path / "whole")
    save = StateFiles.save

    def save_and_die(self: StateFiles, step: int, state: dict[str, object]) -> None:
        save(self, step, state)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StateFiles, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            _train(sounds, tmp_path / "killed")
    resumed = _train(sounds, tmp_path / "killed", resume=True)
    assert _same(whole, resumed)
    assert whole.held_out == resumed.held_out
    assert whole.steps == 6
    assert sorted(path.name for path in (tmp_path / "killed" / "states").iterdir()) == ["00000004", "00000006"]
    # Resumed once more, there is nothing left to do.
    assert _same(whole, _train(sounds, tmp_path / "killed", resume=True))


def test_the_tokenizer_keeps_its_codes(sounds: Path, tmp_path: Path) -> None:
    result = _train(sounds, tmp_path / "run")
    plain, wave = multitok.load("dmel-80hz"), sound(16_000, 16_000)
    assert result.tokenizer.encode(wave) == plain.encode(wave)
    saved = multitok.save(result.tokenizer, tmp_path / "saved", card=result.card)
    loaded = multitok.load(saved)
    codes = plain.encode(wave)
    assert np.array_equal(loaded.decode(codes).samples, result.tokenizer.decode(codes).samples)
    assert "2 sound files trained on" in result.card
    assert "1 could not be read" in result.card
    # From there on, by its own shape.
    further = train_vocoder(
        [sounds], tmp_path / "more", tokenizer=saved, options=replace(OPTIONS, steps=2), start_from=saved, show=False
    )
    assert further.vocoder.config == TINY


def test_it_learns(sounds: Path, tmp_path: Path) -> None:
    _train(sounds, tmp_path / "run", replace(OPTIONS, steps=40, eval_every=10, save_every=40))
    log = SoundRun(tmp_path / "run", {}, OPTIONS, steps=1).folder.read_log()
    losses = [line["held_out"]["loss"] for line in log if "held_out" in line]
    assert len(losses) == 4
    assert losses[-1] < 0.96 * losses[0]


def test_refusals(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no run to resume"):
        _train(sounds, tmp_path / "none", resume=True)
    _train(sounds, tmp_path / "run", replace(OPTIONS, steps=1))
    with pytest.raises(JobError, match="holds a run already"):
        _train(sounds, tmp_path / "run")
    with pytest.raises(JobError, match=r"options.seed=0 \(now 1\)"):
        _train(sounds, tmp_path / "run", replace(OPTIONS, steps=1, seed=1), resume=True)
    with pytest.raises(CheckpointError, match="holds no vocoder"):
        train_vocoder([sounds], tmp_path / "other", start_from="dmel-80hz", options=OPTIONS)
    with pytest.raises(CheckpointError, match="goes with audio-dmel"):
        train_vocoder([sounds], tmp_path / "other", tokenizer="text-bytes", options=OPTIONS)
    with pytest.raises(SpecError, match="vocoder-small"):
        preset("huge")


def test_command_line(sounds: Path, tmp_path: Path) -> None:
    def ok(*arguments: str | Path) -> str:
        result = CliRunner().invoke(cli, [str(each) for each in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    options = ("--codebooks", "2", "--codebook-size", "8", "--latent-dim", "6")
    output = ok("train", "mel-vq", sounds, *options, "--out", tmp_path / "vq")
    assert "left out" in output
    options = ("--tokenizer", tmp_path / "vq", "--preset", "vocoder-small", "--steps", "1", "--batch", "2")
    ok("train", "vocoder", sounds, *options, "--tensorboard", "off", "--no-live", "--out", tmp_path / "voiced")
    voiced, wave = multitok.load(tmp_path / "voiced"), sound(8_000, 16_000)
    assert voiced.encode(wave) == multitok.load(tmp_path / "vq").encode(wave)
    assert voiced.spec.codebook_sizes == (8, 8)


def test_states_of_any_nesting(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "states")
    assert files.load() is None
    state = {
        "a": {0: {"step": torch.tensor(3.0)}, "b/c": [torch.arange(4), None, "text", (1, 2.5)]},
        "flags": [True, {}],
    }
    files.save(7, state)
    found = files.load()
    assert found is not None
    assert found["flags"] == [True, {}]
    assert found["a"][0]["step"] == 3
    assert torch.equal(found["a"]["b/c"][0], torch.arange(4))
    assert found["a"]["b/c"][1:] == [None, "text", [1, 2.5]]
    (tmp_path / "states" / "00000007" / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="remove this folder"):
        files.load()
