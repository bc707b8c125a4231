"""Training a codec from files to a tokenizer: resumable to the byte, with a teacher, from a checkpoint, by the CLI."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

import multitok
from multitok.cli import cli
from multitok.errors import CheckpointError, JobError, SpecError
from multitok.nets.codec import Codec
from multitok.protocol import Modality, TokenizerSpec, Waveform
from multitok.tokenizers._semantic_frames import MfccFrontEnd
from multitok.train import codec_presets
from multitok.train import train_codec as module
from multitok.train.codec import CodecTrainer
from multitok.train.codec_presets import PRESETS, CodecPreset, level_weights
from multitok.train.train_codec import CodecResult, train_codec
from tests.nets.small_codec import clips, small_codec, small_config
from tests.stream_contract import sound
from tests.tokenizers import semantic_models
from tests.train.codec_runs import TINY, options
from tests.train.test_sound_pool import write_sounds

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(data: Path, run: Path, **more: Any) -> CodecResult:
    return train_codec([data], run, **{"preset": TINY, "options": options(), "show": False, **more})


def tensors(result: CodecResult) -> dict[str, bytes]:
    return {key: value.tobytes() for key, value in result.tokenizer.get_tensors().items()}


def draw(step: int) -> torch.Tensor:
    starts = np.random.default_rng(step).integers(0, 12_345 - TINY.clip_samples, 2)
    return torch.from_numpy(
        np.stack([clip[s : s + TINY.clip_samples] for clip, s in zip(clips(2), starts, strict=True)])
    )


def test_from_files_to_a_tokenizer(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", 4)
    (folder / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    result = train(folder, tmp_path / "run", command="multitok train codec in")
    multitok.save(result.tokenizer, tmp_path / "out", card=result.card)
    tokenizer = multitok.load(tmp_path / "out")
    wave = sound(3_000, 16_000)
    assert tokenizer.decode(tokenizer.encode(wave)).samples.shape == (1, 3_000)
    assert result.steps == 6
    assert sorted(result.mel_distance_db) == [1, 2, 4]
    assert result.mel_distance_db[4] < result.mel_distance_db[1]
    for fact in (
        "3 sound files",
        "1 could not be read, 1 others",
        "`multitok train codec in`",
        "| 4 | 1.28 |",
        "seed 0",
    ):
        assert fact in result.card
    assert str(tmp_path) not in result.card
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out" in line] == [3, 6]
    (figures,) = [line for line in lines if "loss" in line]
    assert {"spectral", "audible", "unintelligible", "commitment"} <= figures.keys()


def test_it_learns() -> None:
    preset = dataclasses.replace(TINY, learning_rate=0.003, matrix_rate=0.02)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer = CodecTrainer(Codec(TINY.codec), preset, lambda step: draw(step % 4), steps=60, autocast=False)
    losses = [trainer.step()["loss"] for _ in range(60)]
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:4])
    measured = trainer.measure(draw(0))
    assert {"loss", "spectral, 2 codebooks", "audible, 4 codebooks"} <= measured.keys()


def test_each_clip_is_decoded_from_its_own_number_of_codebooks() -> None:
    preset = dataclasses.replace(TINY, level_weights=(0, 3, 0, 1))
    trainer = CodecTrainer(small_codec(), preset, draw, steps=10)
    counts = []
    for step in range(200):
        trainer.step_index = step
        counts += trainer._num_codebooks(2).tolist()
    assert set(counts) == {2, 4}
    assert 0.65 < counts.count(2) / len(counts) < 0.85
    assert sum(level_weights(16, 7)) == pytest.approx(1)


class Killed(BaseException):
    """What a killed process leaves: nothing is tidied up behind it."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> None:
    """Run until just before a step."""
    real = CodecTrainer.step

    def deadly(self: CodecTrainer) -> dict[str, float]:
        if self.step_index == step:
            raise Killed
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(CodecTrainer, "step", deadly)
        with pytest.raises(Killed):
            run()


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_sounds(tmp_path / "in", 3)
    undisturbed = train(folder, tmp_path / "whole", semantic=None)
    for step in (0, 3, 5):  # before the first state, between two, at the end
        killed_at(step, monkeypatch, lambda begun=step > 0: train(folder, tmp_path / "killed", resume=begun))
    resumed = train(folder, tmp_path / "killed", resume=True)
    assert tensors(resumed) == tensors(undisturbed)
    assert tensors(train(folder, tmp_path / "killed", resume=True)) == tensors(undisturbed)
    other = train(folder, tmp_path / "other", options=options(seed=1))
    assert tensors(other) != tensors(undisturbed)


@pytest.mark.slow
def test_a_run_killed_by_the_system_ends_with_the_same_bytes(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", 3)

    def run(name: str, die_at: int, resume: bool) -> subprocess.CompletedProcess[str]:
        how = [str(folder), str(tmp_path / name), str(die_at), "resume" if resume else "begin"]
        command = [sys.executable, "-m", "tests.train.codec_runs", *how]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    whole = run("whole", -1, False)
    assert whole.returncode == 0, whole.stderr
    for step, resume in ((1, False), (4, True)):
        assert run("killed", step, resume).returncode == -signal.SIGKILL
    resumed = run("killed", -1, True)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout) == json.loads(whole.stdout)


def test_a_run_is_resumed_as_it_was_begun_or_not_at_all(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", 2)
    with pytest.raises(JobError, match="holds no run to resume"):
        train(folder, tmp_path / "run", resume=True)
    train(folder, tmp_path / "run", options=options(steps=1, held_out=0))
    with pytest.raises(JobError, match=r"options\.seed=0 \(now 5\)"):
        train(folder, tmp_path / "run", options=options(steps=1, held_out=0, seed=5), resume=True)
    batch = dataclasses.replace(TINY, batch=3)
    with pytest.raises(JobError, match=r"preset\.batch=2"):
        train(folder, tmp_path / "run", preset=batch, options=options(steps=1, held_out=0), resume=True)


class Loudness:
    """A teacher whose features say how loud it is, at 50 Hz and at another rate."""

    spec = TokenizerSpec(
        kind="loudness",
        name="loudness",
        modality=Modality.AUDIO,
        codebook_sizes=(2,),
        grid_axes=("t",),
        stride=(160,),
        sample_rate_hz=8_000,
    )

    def features(self, wave: Waveform, /) -> NDArray[np.float32]:
        """[F, 2]."""
        hop = wave.sample_rate_hz // 50
        framed = np.pad(wave.samples[0], (0, -wave.samples.shape[1] % hop)).reshape(-1, hop)
        level = np.sqrt((framed**2).mean(axis=1)) + 1e-3
        return np.stack([level, -np.log(level)], axis=1).astype(np.float32)


def test_the_first_codebook_learns_from_a_teacher() -> None:
    def make(weight: float) -> CodecTrainer:
        preset = dataclasses.replace(TINY, semantic_weight=weight, learning_rate=0.003)
        return CodecTrainer(small_codec(), preset, draw, steps=40, autocast=False, teacher=Loudness())

    trainer = make(10.0)
    wanted = trainer._features(draw(0), 42)
    assert wanted.shape == (2, 42, 2)
    # Frame 13 of the codec, its middle at 168.75 ms, lies in frame 8 of the teacher.
    whole = Loudness().features(Waveform(draw(0)[0].numpy(), 16_000))
    assert torch.equal(wanted[0, 13], torch.from_numpy(whole[8]))
    losses = [trainer.step()["semantic"] for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    # It is part of what a resumed run goes on with.
    again = make(10.0)
    again.load_state_dict(trainer.state_dict())
    assert again._projection is not None
    assert trainer._projection is not None
    assert torch.equal(again._projection.weight, trainer._projection.weight)


def test_a_checkpoint_of_speech_units_is_a_teacher(tmp_path: Path) -> None:
    multitok.save(semantic_models.tokenizer(MfccFrontEnd()), tmp_path / "units", card="")
    folder = write_sounds(tmp_path / "in", 2)
    how: dict[str, Any] = {"options": options(steps=2, held_out=0), "semantic": tmp_path / "units"}
    result = train(folder, tmp_path / "run", **how)
    assert "the first codebook learnt the features of units" in result.card
    (figures,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 < figures["semantic"] < 1
    assert tensors(train(folder, tmp_path / "run", resume=True, **how)) == tensors(result)


def test_starting_from_what_was_trained(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", 2)
    first = train(folder, tmp_path / "first")
    multitok.save(first.tokenizer, tmp_path / "out", card="")
    changed = dataclasses.replace(TINY, codec=small_config(codebook_sizes=(8, 8)), level_weights=(1, 1))
    tuned = train(
        folder, tmp_path / "tuned", preset=changed, start_from=tmp_path / "out", options=options(learning_rate=1e-6)
    )
    assert tuned.tokenizer.spec.codebook_sizes == (16,) * 4
    assert "started from out" in tuned.card
    before, after = first.mel_distance_db[4], tuned.mel_distance_db[4]
    assert after == pytest.approx(before, rel=0.2)
    with pytest.raises(CheckpointError, match="training starts from an audio-codec"):
        train(folder, tmp_path / "a", start_from="text-bytes")
    with pytest.raises(CheckpointError, match="a vocoder goes with"):
        train(folder, tmp_path / "b", vocoder="text-bytes")
    with pytest.raises(CheckpointError, match="holds no vocoder"):
        train(folder, tmp_path / "c", vocoder="dmel-80hz")
    with pytest.raises(CheckpointError, match="features come from"):
        train(folder, tmp_path / "d", semantic="text-bytes")


def test_presets() -> None:
    for preset in PRESETS.values():
        assert CodecPreset.from_json(json.loads(json.dumps(preset.to_json()))) == preset
    assert PRESETS["codec-16khz"].codec.bitrate_bps(7) == 5_600
    with pytest.raises(SpecError, match="give one of codec-16khz"):
        codec_presets.preset("codec")
    for wrong, message in (
        ({"level_weights": (1, 2)}, "one for each of 4 codebooks"),
        ({"batch": 0}, "counts of 1 or more"),
        ({"learning_rate": 1.5}, "rates between 0 and 1"),
        ({"phase_weight": -1.0}, "phase_weight: give weights"),
    ):
        with pytest.raises(SpecError, match=message):
            dataclasses.replace(TINY, **wrong)


def test_diverged_training_says_so() -> None:
    trainer = CodecTrainer(small_codec(), TINY, draw, steps=5)
    with torch.no_grad():
        trainer.model.envelope.bias.fill_(float("nan"))
    with pytest.raises(JobError, match="step 0: the loss is nan"):
        trainer.step()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codec_presets.PRESETS, "codec-small", TINY)
    monkeypatch.setattr(module, "CALIBRATION_CLIPS", 4)
    folder, out = write_sounds(tmp_path / "in", 2), tmp_path / "out"
    how = ["--preset", "codec-small", "--steps", "2", "--held-out", "0", "--precision", "fp32", "--no-live"]
    found = CliRunner().invoke(cli, ["train", "codec", str(folder), "--out", str(out), "--tensorboard", "off", *how])
    assert found.exit_code == 0, found.output
    assert multitok.load(out).spec.num_codebooks == 4
    assert (tmp_path / "out-run" / "log.jsonl").is_file()
    card = (out / "card.md").read_text(encoding="utf-8")
    assert "nothing was held out" in card
    again = CliRunner().invoke(cli, ["train", "codec", str(folder), "--out", str(out)])
    assert again.exit_code == 2
    assert "exists already" in again.output
