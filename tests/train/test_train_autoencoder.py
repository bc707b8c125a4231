"""Training from files to a tokenizer: resumable to the byte, on several processes, with broken files, from the CLI."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import multitok
from multitok.cli import cli
from multitok.errors import JobError, MissingExtraError
from multitok.protocol import Modality
from multitok.train import autoencoder_loop, live_view, watch
from multitok.train.autoencoder import AutoencoderTrainer, StepReport
from multitok.train.presets import DEFAULT_PRESETS, PRESETS
from multitok.train.train_autoencoder import TrainingResult, train_autoencoder
from tests.train.autoencoder_runs import TINY, options, write_pictures

DATA = Path(__file__).parent.parent.parent / "examples" / "data"


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(data: Path | list[Path], run: Path, modality: Modality = Modality.IMAGE, **more: Any) -> TrainingResult:
    more = {"options": options(), "preset": TINY[modality], **more}
    result = train_autoencoder(data if isinstance(data, list) else [data], run, show=False, **more)
    assert result is not None
    return result


def lines(run: Path, key: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if key in line]


def tensors(result: TrainingResult) -> dict[str, bytes]:
    return {key: value.tobytes() for key, value in result.tokenizer.get_tensors().items()}


class Killed(BaseException):
    """What a killed process leaves: nothing is tidied up behind it."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> None:
    """Run until just before a step."""
    real = AutoencoderTrainer.step

    def deadly(self: AutoencoderTrainer, levels: torch.Tensor) -> StepReport:
        if self.step_index == step:
            raise Killed
        return real(self, levels)

    with monkeypatch.context() as patch:
        patch.setattr(AutoencoderTrainer, "step", deadly)
        with pytest.raises(Killed):
            run()


@pytest.mark.parametrize(
    ("modality", "folder"), [(Modality.IMAGE, "photos"), (Modality.VIDEO, "video"), (Modality.VOLUME, "volumes")]
)
def test_from_files_to_a_tokenizer(tmp_path: Path, modality: Modality, folder: str) -> None:
    result = train(DATA / folder, tmp_path / "run", modality)
    multitok.save(result.tokenizer, tmp_path / "out", card=result.card)
    tokenizer = multitok.load(tmp_path / "out")
    assert tokenizer.spec.kind == f"{modality}-vq"
    shape = (17, 21, 3) if modality is Modality.IMAGE else (5, 17, 21, 3) if modality is Modality.VIDEO else (5, 17, 21)
    raw = np.zeros(shape, np.float32 if modality is Modality.VOLUME else np.uint8)
    assert tokenizer.decode(tokenizer.encode(raw)).shape == shape
    assert result.steps == 6
    assert len(result.psnr) == (2 if folder == "photos" else 0)
    assert "Add the licence" in result.card
    assert str(tmp_path) not in result.card
    assert [line["step"] for line in lines(tmp_path / "run", "loss")] == [6]


def test_what_the_run_records(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 4)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = train(folder, tmp_path / "run", options=options(held_out=2, seed=3), command="multitok train image in")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["steps"], run["precision"], run["options"]["seed"], run["data"]["items"]) == (6, "fp32", 3, 5)
    assert [line["step"] for line in lines(tmp_path / "run", "held_out_psnr")] == [0, 3, 6]
    (quarantined,) = map(json.loads, (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines())
    assert quarantined["item"] == "broken.png"
    with Image.open(tmp_path / "run" / "pictures" / "final.png") as picture:
        assert picture.size == (512, 512)
    for fact in ("5 image items, 1 of which could not be read", "`multitok train image in`", "seed 3", "| 2 | 0.375 |"):
        assert fact in result.card
    (last,) = lines(tmp_path / "run", "loss")
    assert all(0 < share <= 1 for share in last["usage"])
    assert all(1 <= value <= 8 for value in last["perplexity"])


def test_what_is_measured_is_what_the_tokenizer_does(tmp_path: Path) -> None:
    held = write_pictures(tmp_path / "held", 2, size=(32, 24))
    result = train(write_pictures(tmp_path / "in", 3), tmp_path / "run", held_out=[held])
    errors = []
    for path in sorted(held.iterdir()):
        pixels = np.asarray(Image.open(path))
        decoded = result.tokenizer.decode(result.tokenizer.encode(pixels))
        errors.append(10 * np.log10(255**2 / np.square(pixels.astype(float) - decoded).mean()))
    assert result.psnr[-1] == pytest.approx(np.mean(errors), abs=1e-3)
    assert "2 others" in result.card


@pytest.mark.parametrize("trains", ["everything", "decoder"])
def test_a_killed_run_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains: Literal["everything", "decoder"]
) -> None:
    folder = write_pictures(tmp_path / "in", 5)
    preset = dataclasses.replace(TINY[Modality.IMAGE], trains=trains)
    undisturbed = train(folder, tmp_path / "whole", preset=preset)
    for step in (0, 3, 5):  # before the first state, between two, at the end
        killed_at(
            step, monkeypatch, lambda begun=step > 0: train(folder, tmp_path / "killed", resume=begun, preset=preset)
        )
    read_ahead = options(workers=3, save_every=4)
    resumed = train(folder, tmp_path / "killed", resume=True, options=read_ahead, preset=preset)
    assert tensors(resumed) == tensors(undisturbed)
    trained = [(tmp_path / name / "trained.safetensors").read_bytes() for name in ("whole", "killed")]
    assert trained[0] == trained[1]
    for name in ("whole", "killed"):
        steps = [line["step"] for line in lines(tmp_path / name, "held_out_psnr")]
        assert steps == [0, 3, 6]
    finished_again = train(folder, tmp_path / "killed", resume=True, preset=preset)
    assert tensors(finished_again) == tensors(undisturbed)


def test_training_the_decoder_leaves_every_code_as_it_is(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 4, size=(64, 48))
    shape = dataclasses.replace(TINY[Modality.IMAGE].autoencoder, encoder_blocks=None)
    preset = dataclasses.replace(
        TINY[Modality.IMAGE], autoencoder=shape, trains="decoder", level_weights=(0.5, 0.5), start_dims=(3, 6)
    )
    first = train(folder, tmp_path / "first", preset=preset, options=options(steps=1))
    multitok.save(first.tokenizer, tmp_path / "out", card="")
    tuned = train(
        folder,
        tmp_path / "tuned",
        preset=preset,
        start_from=tmp_path / "out",
        options=options(steps=60, eval_every=60, learning_rate=0.03),
    )
    for path in folder.iterdir():
        pixels = np.asarray(Image.open(path))
        assert (tuned.tokenizer.encode(pixels).values == first.tokenizer.encode(pixels).values).all()
    assert tensors(tuned) != tensors(first)
    begun, ended = (line["held_out_psnr"][-1] for line in lines(tmp_path / "tuned", "held_out_psnr"))
    assert ended > begun
    assert "the decoder, on the codes" in tuned.card


def test_the_seed_decides(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 4)
    seeds = (0, 0, 1)
    runs = [train(folder, tmp_path / str(n), options=options(seed=seed, steps=2)) for n, seed in enumerate(seeds)]
    one, same, other = runs
    assert tensors(one) == tensors(same) != tensors(other)


def test_a_run_is_resumed_as_it_was_begun_or_not_at_all(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    with pytest.raises(JobError, match="holds no run to resume"):
        train(folder, tmp_path / "run", resume=True)
    train(folder, tmp_path / "run", options=options(steps=2))
    with pytest.raises(JobError, match="holds a run already"):
        train(folder, tmp_path / "run")
    with pytest.raises(JobError, match=r"options.seed=0 \(now 5\)"):
        train(folder, tmp_path / "run", options=options(steps=2, seed=5), resume=True)
    batch = dataclasses.replace(TINY[Modality.IMAGE], batch=3)
    with pytest.raises(JobError, match=r"preset\.batch=2"):
        train(folder, tmp_path / "run", preset=batch, options=options(steps=2), resume=True)
    write_pictures(folder, 4)
    with pytest.raises(JobError, match=r"data.items=3 \(now 4\)"):
        train(folder, tmp_path / "run", options=options(steps=2), resume=True)
    with pytest.raises(ValueError, match="give a list of files and folders"):
        train_autoencoder(str(folder), tmp_path / "new", preset=TINY[Modality.IMAGE])
    with pytest.raises(JobError, match="other files"):
        train(folder, folder)


def test_a_time_limit_becomes_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    with monkeypatch.context() as patch:
        patch.setattr(autoencoder_loop, "LEAST_STEPS", 14)
        # The speed is measured with 12 steps that are thrown away.
        killed_at(13, patch, lambda: train(folder, tmp_path / "run", options=options(minutes=1e-6)))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 14
    result = train(folder, tmp_path / "run", options=options(minutes=1e-6), resume=True)
    assert result.steps == 14
    assert "14 steps of 14 (chosen from 1e-06 minutes" in result.card


def test_too_few_data_are_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(write_pictures(tmp_path / "in", 3), tmp_path / "enough", options=options(steps=1))
    assert "few data" not in capsys.readouterr().err
    few = dataclasses.replace(TINY[Modality.IMAGE], start_crops=4)
    train(tmp_path / "in", tmp_path / "few", preset=few, options=options(steps=1))
    assert "few data: 64 positions for 24 code vectors" in capsys.readouterr().err


def test_a_plateau_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    monkeypatch.setattr(autoencoder_loop, "LEAST_GAIN", 1000.0)
    result = train(folder, tmp_path / "run", options=options(steps=50, eval_every=2, patience=3))
    assert result.steps == 6
    assert "6 steps of 50" in result.card


def test_starting_from_what_was_trained(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    first = train(folder, tmp_path / "first")
    multitok.save(first.tokenizer, tmp_path / "out", card="")
    for origin in ("first", "out"):
        run = tmp_path / f"from-{origin}"
        tuned = train(folder, run, start_from=tmp_path / origin, options=options(learning_rate=1e-6, steps=1))
        begun, ended = (line["held_out_psnr"][-1] for line in lines(run, "held_out_psnr"))
        before = lines(tmp_path / "first", "held_out_psnr")[-1]["held_out_psnr"][-1]
        assert begun == pytest.approx(before, abs=0.3 if origin == "out" else 1e-6)
        assert ended == pytest.approx(begun, abs=0.3)
        assert f"started from {origin}" in tuned.card
    shape = dataclasses.replace(TINY[Modality.IMAGE].autoencoder, codebook_sizes=(8, 8, 8))
    other = dataclasses.replace(TINY[Modality.IMAGE], autoencoder=shape, level_weights=(1, 1, 1), steps=1)
    kept = train(folder, tmp_path / "kept", start_from=tmp_path / "out", preset=other)
    assert kept.tokenizer.spec.codebook_sizes == (8, 8)
    with pytest.raises(ValueError, match="for image"):
        train(DATA / "volumes", tmp_path / "v", Modality.VOLUME, start_from=tmp_path / "out")
    with pytest.raises(ValueError, match="training can start from image-vq"):
        train(folder, tmp_path / "w", start_from="image-patch8")


def test_tensorboard_files_or_a_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    monkeypatch.setattr(live_view, "has_tensorboard", lambda: False)
    monkeypatch.setattr(autoencoder_loop, "has_tensorboard", lambda: False)
    with pytest.raises(MissingExtraError, match=r"multitok\[tensorboard\]"):
        train(folder, tmp_path / "refused", options=options(tensorboard="on"))
    train(folder, tmp_path / "without", options=options(tensorboard="auto", steps=1))
    assert not (tmp_path / "without" / "tensorboard").exists()


@pytest.mark.slow
def test_tensorboard_files_hold_figures_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(write_pictures(tmp_path / "in", 3), tmp_path / "run", options=options(tensorboard="on"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"loss", "usage/codebook 1", "psnr/held out, codebooks 1 to 2"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("held out")] == [0, 3, 6]


def test_the_live_view_shows_figures_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    from multitok.train.heldout import Measured

    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    moment = watch.Moment(5, 10, 3.25, 28.5, 1e-3, 2.5e6, 3725.0, (0.5, 1.0), (3.0, 8.0))
    with watch.Watch(unit="MPx/s", tensorboard=None, show=None) as live:
        live.measured(5, Measured([20.0, 25.0], np.full((512, 512, 3), 255, np.uint8)))
        live.step(moment)
        live.say("a line that stays")
    shown = screen.getvalue()
    for part in ("step 5 of 10", "28.50 dB", "2.50 MPx/s", "1:02:05 left", "2: 100% used, 8", "25.00 dB", "▀", "stays"):
        assert part in shown


@pytest.mark.parametrize(("modality", "folder"), [(Modality.VIDEO, "video"), (Modality.VOLUME, "volumes")])
def test_the_command_line_for_clips_and_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: Modality, folder: str
) -> None:
    monkeypatch.setitem(PRESETS, DEFAULT_PRESETS[modality], TINY[modality])
    arguments = ["train", modality.value, str(DATA / folder), "--out", str(tmp_path / "out"), "--tensorboard", "off"]
    result = CliRunner().invoke(cli, [*arguments, "--steps", "2"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert multitok.load(tmp_path / "out").spec.kind == f"{modality}-vq"


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "image-f8", TINY[Modality.IMAGE])
    data, out = write_pictures(tmp_path / "photos", 3), tmp_path / "my-image"
    arguments = ["train", "image", str(data), "--out", str(out), "--tensorboard", "off", "--precision", "fp32"]
    monkeypatch.setattr(sys, "argv", ["multitok", *arguments])
    first = [*arguments, "--save-every", "2"]
    killed_at(4, monkeypatch, lambda: CliRunner().invoke(cli, first, catch_exceptions=False))
    result = CliRunner().invoke(cli, [*arguments, "--resume"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "resumed at step 4 of 6" in result.output
    assert "image-vq" in (out / "config.json").read_text()
    card = (out / "card.md").read_text()
    assert "`multitok train image photos --out my-image" in card
    assert str(tmp_path) not in card
    encoded = CliRunner().invoke(
        cli, ["encode", str(data / "a.png"), "--with", str(out), "--out", str(tmp_path / "a.codes")]
    )
    assert encoded.exit_code == 0, encoded.output
    refused = CliRunner().invoke(cli, [*arguments, "--minutes", "1", "--steps", "5"])
    assert refused.exit_code == 2
    assert "exists already" in refused.output


def process(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.train.autoencoder_runs", *arguments]
    kept = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=kept)


@pytest.mark.slow
def test_sigkill_then_resume_in_another_process(tmp_path: Path) -> None:
    data = str(write_pictures(tmp_path / "in", 5))
    whole = process(data, str(tmp_path / "whole"), "-1", "")
    killed = process(data, str(tmp_path / "killed"), "5", "")
    assert whole.wait() == 0, whole.communicate()
    assert killed.wait() == -signal.SIGKILL
    resumed = process(data, str(tmp_path / "killed"), "-1", "resume")
    assert resumed.communicate()[0] == whole.communicate()[0]
    trained = [(tmp_path / name / "trained.safetensors").read_bytes() for name in ("whole", "killed")]
    assert trained[0] == trained[1]


@pytest.mark.slow
def test_two_processes_as_torchrun_starts_them(tmp_path: Path) -> None:
    data = str(write_pictures(tmp_path / "in", 6))

    def pair(run: str, die_at: str, resume: str) -> list[subprocess.Popen[str]]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [process(data, str(tmp_path / run), die_at, resume, RANK=str(r), **shared) for r in range(2)]

    whole = pair("whole", "-1", "")
    outputs = [each.communicate() for each in whole]
    assert [each.returncode for each in whole] == [0, 0], outputs
    assert [bool(text) for text, _ in outputs] == [True, False]
    assert all(each.wait() != 0 for each in pair("killed", "3", ""))
    resumed = pair("killed", "-1", "resume")
    assert [each.communicate()[0] for each in resumed] == [text for text, _ in outputs]
    trained = [(tmp_path / name / "trained.safetensors").read_bytes() for name in ("whole", "killed")]
    assert trained[0] == trained[1]
