"""Training of a student of speech units: it learns, repeats, resumes to the bit, and forgets who speaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import multitok
from multitok.errors import CheckpointError, JobError, SpecError
from multitok.nets.causal.config import CausalConfig
from multitok.protocol import Waveform
from multitok.tokenizers._semantic_frames import MfccFrontEnd
from multitok.tokenizers.audio_semantic import AudioSemantic
from multitok.train.options import TrainingOptions
from multitok.train.semantic import train_semantic
from multitok.train.speech_disturbance import disturbed, played, speed_of, warped
from multitok.train.state_files import StateFiles
from multitok.train.student_data import voice_offsets
from multitok.train.train_student import StudentResult, preset, train_student
from tests.stream_contract import sound

TINY = CausalConfig(
    in_dim=80, out_dim=12, channels=8, hidden=16, taps=3, dilations=(1, 2), stack=2, lookahead=1
)  # fmt: skip
OPTIONS = TrainingOptions(steps=6, batch=2, eval_every=3, save_every=2, held_out=2, tensorboard="off", device="cpu")
SIZES = (4, 8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def teacher() -> AudioSemantic:
    waves = [sound(48_000, 16_000, seed=seed) for seed in range(2)]
    return train_semantic(waves, MfccFrontEnd(), codebook_sizes=SIZES, codebook_size=8, num_tokens=None, iterations=3)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    for seed in range(4):
        (folder / f"voice{seed % 2}").mkdir(exist_ok=True)
        samples = sound(120_000, 16_000, seed=seed).samples[0]
        soundfile.write(folder / f"voice{seed % 2}" / f"{seed}.wav", samples, 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def _train(
    sounds: Path, run: Path, teacher: AudioSemantic, options: TrainingOptions = OPTIONS, *, resume: bool = False
) -> StudentResult:
    return train_student(
        [sounds], run, teacher=teacher, config=TINY, sizes=SIZES, codebook_size=8, noise=[sounds / "voice0"],
        options=options, resume=resume, show=False,
    )  # fmt: skip


def _same(left: StudentResult, right: StudentResult) -> bool:
    return multitok.fingerprint(left.tokenizer) == multitok.fingerprint(right.tokenizer)


def test_a_killed_run_ends_with_the_same_bits(
    sounds: Path, tmp_path: Path, teacher: AudioSemantic, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(sounds, tmp_path / "whole", teacher)
    save = StateFiles.save

    def save_and_die(self: StateFiles, step: int, state: dict[str, object]) -> None:
        save(self, step, state)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(StateFiles, "save", save_and_die)
        _train(sounds, tmp_path / "killed", teacher)
    resumed = _train(sounds, tmp_path / "killed", teacher, resume=True)
    assert _same(whole, resumed)
    assert whole.held_out == resumed.held_out
    assert whole.held_out["loss"] > 0
    assert whole.steps == 6
    assert (tmp_path / "killed" / "quarantine.jsonl").read_text(encoding="utf-8").count("\n") == 1
    other = replace(OPTIONS, seed=1)
    with pytest.raises(JobError, match=r"options\.seed=0"):
        _train(sounds, tmp_path / "killed", teacher, other, resume=True)


def test_the_student_is_a_tokenizer_of_its_own(sounds: Path, tmp_path: Path, teacher: AudioSemantic) -> None:
    result = _train(sounds, tmp_path / "run", teacher)
    assert result.tokenizer.available_codebook_sizes == SIZES
    assert result.tokenizer.lookahead_s == pytest.approx(0.0275)
    folder = multitok.save(result.tokenizer, tmp_path / "checkpoint", card=result.card)
    wave = sound(20_000, 16_000, seed=9)
    assert multitok.load(folder).encode(wave) == result.tokenizer.encode(wave)
    assert "Files of speech: 4," in result.card


def test_it_learns(sounds: Path, tmp_path: Path, teacher: AudioSemantic) -> None:
    short = _train(sounds, tmp_path / "short", teacher, replace(OPTIONS, steps=1))
    long = _train(sounds, tmp_path / "long", teacher, replace(OPTIONS, steps=80, batch=4, eval_every=80))
    assert long.held_out["loss"] < 0.8 * short.held_out["loss"]


def test_what_cannot_be(sounds: Path, tmp_path: Path, teacher: AudioSemantic) -> None:
    with pytest.raises(SpecError, match="student-small"):
        preset("large")
    with pytest.raises(SpecError, match="codebook_size=3"):
        train_student([sounds], tmp_path / "a", teacher=teacher, sizes=SIZES, codebook_size=3)
    with pytest.raises(CheckpointError, match="audio-semantic"):
        train_student([sounds], tmp_path / "b", teacher="dmel-80hz")


def test_speed_moves_samples() -> None:
    rng = np.random.default_rng(0)
    speeds = [speed_of(rng) for _ in range(200)]
    assert 1.0 in speeds
    assert 0.8 < min(speeds) < 0.95 < 1.05 < max(speeds) < 1.25
    line = np.arange(100, dtype=np.float32)
    assert np.allclose(played(line, 1.0, 90), line[:90])
    assert np.allclose(played(line, 1.5, 60)[1:], 1.5 * np.arange(1, 60), atol=1e-4)


def test_disturbance_keeps_the_form_and_depends_on_the_draw() -> None:
    energies = torch.rand(6, 50, 80) + 0.1
    first, second = (disturbed(energies, energies, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == energies.shape
    assert float(first.min()) >= 0
    assert not torch.equal(first, disturbed(energies, energies, np.random.default_rng(4)))
    assert torch.allclose(warped(energies[0], 1.0), energies[0], atol=1e-2)


def test_voices_are_told_from_what_they_say() -> None:
    rng = np.random.default_rng(0)
    # Two sounds; the second voice says mostly one of them, and lies off by a constant.
    sounds_said = np.concatenate([rng.random(2000) < 0.5, rng.random(2000) < 0.9]).astype(int)
    owner = np.repeat([0, 1], 2000)
    centres = np.array([[-10.0, 0, 0], [10.0, 0, 0]])
    features = centres[sounds_said] + owner[:, None] * np.array([0, 1.0, 0]) + rng.normal(0, 0.3, (4000, 3))
    offsets = voice_offsets(features.astype(np.float32), owner, 2, clusters=2)
    apart = offsets[1] - offsets[0]
    assert apart[1] == pytest.approx(1.0, abs=0.25)
    assert abs(apart[0]) < 0.3


def test_a_waveform_of_another_rate(sounds: Path, tmp_path: Path, teacher: AudioSemantic) -> None:
    result = _train(sounds, tmp_path / "run", teacher)
    wave = Waveform(np.zeros((2, 8_000), np.float32), 8_000)
    assert result.tokenizer.encode(wave).values.shape == (1, 50)
