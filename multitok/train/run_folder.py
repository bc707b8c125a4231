"""The folder of a training run: what was asked for, what happened, and the states to go on from. No pickle.

    run.json                what the outcome depends on: preset, options, data, and what was measured and chosen
    log.jsonl               a line every few steps, and one for each measurement
    quarantine.jsonl        items that could not be read, and why
    states/00000250/        state.safetensors and state.json, whole or not there; the last two are kept
    pictures/00000250.png   held-out items above what the codes make of them
    trained.safetensors     the averaged weights at the end, in floats: to start another training from
    tensorboard/            for TensorBoard, where it is asked for

This module imports torch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from multitok.errors import CheckpointError, JobError

FORMAT_VERSION = 1
RUN, LOG, QUARANTINE, STATES, TRAINED = "run.json", "log.jsonl", "quarantine.jsonl", "states", "trained.safetensors"
STATES_KEPT = 2


class RunFolder:
    """One run's files. Only the first rank writes.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, run: Mapping[str, Any]) -> None:
        """Make the folder.

        Args:
            run: JSON values for run.json.

        Raises:
            JobError: There is a run in it already, or something else.
        """
        if (self.path / RUN).exists():
            raise JobError(f"{self.path} holds a run already: go on with it by --resume, or choose another folder")
        if self.path.exists() and any(self.path.iterdir()):
            raise JobError(f"{self.path} holds other files: choose another folder, or remove it first")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_run(run)

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write run.json, whole or not at all."""
        text = json.dumps({"format_version": FORMAT_VERSION, **run}, indent=2, ensure_ascii=False) + "\n"
        _replace(self.path / RUN, text.encode())

    def read_run(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            JobError: There is no run here, or one of another version.
        """
        try:
            run = json.loads((self.path / RUN).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise JobError(f"{self.path} holds no run to resume: leave --resume out to begin one") from error
        except ValueError as error:
            raise JobError(f"{self.path / RUN} is damaged ({error}): begin a new run") from error
        if not isinstance(run, dict) or run.get("format_version") != FORMAT_VERSION:
            found = run.get("format_version") if isinstance(run, dict) else run
            raise JobError(f"{self.path / RUN} is of version {found}, this multitok reads {FORMAT_VERSION}")
        return run

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """All lines of the log."""
        try:
            lines = (self.path / LOG).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        # A kill may leave half a line at the end.
        return [json.loads(line) for line in lines if line.endswith("}")]

    def forget_after(self, step: int) -> None:
        """Drop the log's lines of steps after this one: they are about to happen again."""
        kept = [line for line in self.read_log() if line["step"] <= step]
        _replace(self.path / LOG, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def quarantine(self, item: str, error: str, message: str) -> None:
        """Add an item that could not be read, once."""
        line = json.dumps({"item": item, "error": error, "message": message}) + "\n"
        path = self.path / QUARANTINE
        self.path.mkdir(parents=True, exist_ok=True)  # a rank on another machine keeps its own
        if not path.exists() or line not in path.read_text(encoding="utf-8"):
            with path.open("a", encoding="utf-8") as file:
                file.write(line)

    def num_quarantined(self) -> int:
        """How many items could not be read."""
        path = self.path / QUARANTINE
        return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0

    def save_state(self, state: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        """Keep a trainer's state, and drop older ones.

        Args:
            state: What `AutoencoderTrainer.state_dict` gave.
            more: JSON values to keep beside it.
        """
        tensors, plain = _flat(state)
        folder = self.path / STATES / f"{state['step_index']:08d}"
        staging = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        staging.mkdir(parents=True)
        _write(staging / "state.safetensors", safetensors.torch.save(tensors))
        _write(staging / "state.json", json.dumps({"trainer": plain, **more}).encode())
        staging.rename(folder)
        for old in self._states()[:-STATES_KEPT]:
            shutil.rmtree(old)

    def has_state(self) -> bool:
        """Whether there is a state to go on from."""
        return bool(self._states())

    def load_state(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The latest state and what was kept beside it; None before the first.

        Raises:
            CheckpointError: The state is damaged.
        """
        states = self._states()
        if not states:
            return None
        try:
            more = json.loads((states[-1] / "state.json").read_text(encoding="utf-8"))
            tensors = safetensors.torch.load((states[-1] / "state.safetensors").read_bytes())
            return _deep(tensors, more.pop("trainer")), more
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError(
                f"{states[-1]} cannot be read ({error}): remove this folder to go on from the one before"
            ) from error

    def _states(self) -> list[Path]:
        folder = self.path / STATES
        return sorted(each for each in folder.iterdir() if each.name.isdigit()) if folder.is_dir() else []

    def save_trained(self, model: torch.nn.Module, config: Mapping[str, Any]) -> None:
        """Write the averaged weights with the autoencoder's shape."""
        tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
        _replace(self.path / TRAINED, safetensors.torch.save(tensors, {"autoencoder": json.dumps(config)}))


def _flat(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors = {f"{part}/{key}": value for part in ("model", "averaged") for key, value in state[part].items()}
    for index, moments in state["optimizer"]["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in moments.items()}
    for part in ("counts", "sums"):
        tensors |= {f"{part}/{k}": value for k, value in enumerate(state[part]) if value is not None}
    # A copy of each: tensors that share memory are refused.
    held = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    plain = {
        "step_index": state["step_index"],
        "rng": state["rng"],
        "param_groups": state["optimizer"]["param_groups"],
        "num_codebooks": len(state["counts"]),
    }
    return held, plain


def _deep(tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = {"step_index": plain["step_index"], "rng": plain["rng"], "model": {}, "averaged": {}}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for part in ("counts", "sums"):
        state[part] = [tensors.get(f"{part}/{k}") for k in range(plain["num_codebooks"])]
    for name, value in tensors.items():
        part, _, key = name.partition("/")
        if part in ("model", "averaged"):
            state[part][key] = value
        elif part == "optimizer":
            index, _, key = key.partition("/")
            moments.setdefault(int(index), {})[key] = value
    state["optimizer"] = {"state": moments, "param_groups": plain["param_groups"]}
    return state


def _replace(path: Path, data: bytes) -> None:
    staging = path.with_name(f".{path.name}.writing")
    _write(staging, data)
    staging.replace(path)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
