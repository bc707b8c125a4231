"""States of a trainer on disk: any nesting of dictionaries and lists of tensors and plain values. No pickle.

    states/00000250/state.safetensors   the tensors, each under its path: "model/net.enter.weight"
    states/00000250/state.json          everything else; a tensor's place holds {"tensor": path}

A state is whole or not there; the last two are kept. This module imports torch.
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

from multitok.errors import CheckpointError

STATES_KEPT = 2


class StateFiles:
    """The states of one run.

    Args:
        folder: That holds them; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep a state, and drop older ones.

        Args:
            step: Its number.
            state: Dictionaries, lists, tuples, tensors, numbers, strings, booleans and None.
        """
        tensors: dict[str, torch.Tensor] = {}
        plain = _taken_apart(state, "", tensors)
        folder = self._folder / f"{step:08d}"
        staging = folder.with_name(f".{folder.name}.writing")
        for old in (staging, folder):
            shutil.rmtree(old, ignore_errors=True)
        staging.mkdir(parents=True)
        _write(staging / "state.safetensors", safetensors.torch.save(tensors))
        _write(staging / "state.json", json.dumps(plain).encode())
        staging.rename(folder)
        for each in self._found()[:-STATES_KEPT]:
            shutil.rmtree(each)

    def load(self) -> dict[str, Any] | None:
        """The latest state, its tuples as lists; None where there is none.

        Raises:
            CheckpointError: It is damaged.
        """
        found = self._found()
        if not found:
            return None
        try:
            plain = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
            tensors = safetensors.torch.load((found[-1] / "state.safetensors").read_bytes())
            state: dict[str, Any] = _put_together(plain, tensors)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(
                f"{found[-1]} cannot be read ({error}): remove this folder to go on from the one before"
            ) from error
        return state

    def _found(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(each for each in self._folder.iterdir() if each.name.isdigit())


def _taken_apart(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        # A copy of each: tensors that share memory are refused.
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, Mapping):
        # Pairs, as an optimiser's keys are integers.
        return {"pairs": [[key, _taken_apart(each, f"{path}/{key}", tensors)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_taken_apart(each, f"{path}/{index}", tensors) for index, each in enumerate(value)]
    return value


def _put_together(plain: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(plain, list):
        return [_put_together(each, tensors) for each in plain]
    if isinstance(plain, dict):
        if "tensor" in plain:
            return tensors[plain["tensor"]]
        return {key: _put_together(each, tensors) for key, each in plain["pairs"]}
    return plain


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
