"""A file from which an interrupted k-means goes on: the codebook after the last pass and what the next one needs.

A safetensors file, so nothing in it is executed: the arrays as tensors, the rest as JSON in its metadata. It is
replaced as a whole after each pass, so a killed run loses one pass at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multitok.errors import CheckpointError
from multitok.shards.files import DurableFile, sync_folder
from multitok.train.kmeans_data import Floats

KEY = "multitok-kmeans"


class StateFile:
    """Where the state of one run is kept.

    Args:
        path: The file; its folder exists. None keeps nothing.
        settings: What the result depends on, beside the vectors; a file of other settings is refused.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, dict(settings)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file, durably, whole or not at all. `state` holds arrays and JSON values."""
        if self._path is None:
            return
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(value) for name, value in state.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in state.items() if name not in arrays}
        text = json.dumps({"settings": self._settings, "values": values}, sort_keys=True)
        file = DurableFile(self._path)
        try:
            file.write(save(arrays, {KEY: text}))
            file.finish()
            file.rename()
        except BaseException:
            file.discard()
            raise
        sync_folder(self._path.parent)

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last; None where there is no file yet.

        Raises:
            CheckpointError: The file is something else, or of a run with other settings.
        """
        if self._path is None or not self._path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, framework="np") as file:
                text = (file.metadata() or {})[KEY]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            content = json.loads(text)
        except (SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self._path} is no state of k-means: give a new file name") from error
        other = content["settings"]
        for name, value in self._settings.items():
            if other.get(name) != value:
                raise CheckpointError(
                    f"{self._path} belongs to a run with {name}={other.get(name)!r}, this one has {value!r}: "
                    "give the same arguments, or a new file name"
                )
        return {**content["values"], **arrays}


def start_name(start: str | Floats) -> str:
    """What tells one start from another in the settings of a run."""
    if isinstance(start, str):
        return start
    return f"{start.dtype} {list(start.shape)} sha256 {hashlib.sha256(start.tobytes()).hexdigest()}"
