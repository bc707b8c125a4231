"""Weights of published checkpoints: found in a folder, read without running any code in them, compared strictly.

    folder/*.safetensors           all of them, sharded or not
    folder/*.ckpt .pt .pth .bin    exactly one, by torch.load(weights_only=True)

Strictly: a network with one weight missing or of another shape still makes pictures, only bad ones. So every key has
to be there in its shape, none may be left over, and the message names the first that is not so.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitok.errors import CheckpointError

if TYPE_CHECKING:
    import torch

TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")


def read_weights(
    folder: Path, *, prefixes: Sequence[str] = ("",), nested: Sequence[str] = ("state_dict", "model")
) -> dict[str, torch.Tensor]:
    """Tensors of the checkpoint in a folder, on the CPU.

    Args:
        folder: Holds the weights, and may hold anything else.
        prefixes: The first that some key begins with is cut off, and keys without it are left out unread: so a part
            is taken from a larger model. "" takes every key.
        nested: Names under which a torch file may keep the tensors; the first found wins.

    Raises:
        CheckpointError: There are no weights, or more than one candidate; or a file cannot be read, or only by running
            code in it.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return _read_safetensors(folder, files, prefixes)
    files = sorted(path for path in folder.iterdir() if path.suffix in TORCH_SUFFIXES)
    if not files:
        raise CheckpointError(
            f"{folder} holds no weights, no *.safetensors, *{', *'.join(TORCH_SUFFIXES)}: "
            "give the folder with the published file"
        )
    if len(files) > 1:
        raise CheckpointError(
            f"{folder} holds several checkpoints, {', '.join(path.name for path in files)}: leave one in a folder"
        )
    tensors = _unnested(files[0], _read_torch(files[0]), nested)
    prefix = _prefix(tensors, prefixes)
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a published checkpoint.

    Args:
        folder: Holds it beside the weights.

    Raises:
        CheckpointError: It is not there, or no JSON object.
    """
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): the weights alone do not tell the network; copy all files"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): copy it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, expected is an object: copy it again")
    return found


def check_keys(where: str, given: Mapping[str, torch.Tensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Raise unless `given` has exactly the keys and shapes expected, finite floats all.

    Args:
        where: What the message begins with.
        given: What the checkpoint holds.
        expected: Shapes by the checkpoint's names, in the order of the network.

    Raises:
        CheckpointError: Something differs; the message names the first key.
    """
    missing = [key for key in expected if key not in given]
    extra = [key for key in given if key not in expected]
    counts = f"{len(missing)} keys are missing and {len(extra)} unexpected, of {len(expected)}"
    for key, shape in expected.items():
        if key not in given:
            raise CheckpointError(
                f"{where}: key {key!r} {list(shape)} is missing ({counts}): "
                "the checkpoint is incomplete or of another kind"
            )
        value = given[key]
        if tuple(value.shape) != tuple(shape):
            raise CheckpointError(
                f"{where}: key {key!r} has shape {list(value.shape)}, expected is {list(shape)}: "
                "the checkpoint is of another kind, or its parts do not belong together"
            )
        if not value.is_floating_point():
            raise CheckpointError(f"{where}: key {key!r} is {value.dtype}, expected are floats")
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{where}: key {key!r} holds NaN or infinity: the file is damaged")
    if extra:
        raise CheckpointError(f"{where}: key {extra[0]!r} is unexpected ({counts}): the checkpoint is of another kind")


def _prefix(keys: Mapping[str, Any] | Sequence[str], prefixes: Sequence[str]) -> str:
    return next((prefix for prefix in prefixes if any(key.startswith(prefix) for key in keys)), "")


def _read_safetensors(folder: Path, files: Sequence[Path], prefixes: Sequence[str]) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    _check_index(folder, files)
    tensors: dict[str, torch.Tensor] = {}
    try:
        holders: dict[str, Path] = {}
        for file in files:
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 (no mapping)
                    if key in holders:
                        raise CheckpointError(
                            f"{folder}: key {key!r} is in {holders[key].name} and in {file.name}: "
                            "leave one checkpoint in a folder"
                        )
                    holders[key] = file
        prefix = _prefix(list(holders), prefixes)
        for file in files:
            with safe_open(file, framework="pt") as opened:
                wanted = [key for key, holder in holders.items() if holder == file and key.startswith(prefix)]
                tensors.update((key.removeprefix(prefix), opened.get_tensor(key)) for key in wanted)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a whole safetensors file ({error}): copy it again") from error
    return tensors


def _check_index(folder: Path, files: Sequence[Path]) -> None:
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index} is no index of shards ({error}): copy it again") from error
        absent = sorted(named - {file.name for file in files})
        if absent:
            raise CheckpointError(f"{folder}: {index.name} names {absent[0]}, which is not there: copy all shards")


def _read_torch(file: Path) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{file} holds Python objects besides tensors, and loading those runs code that the file brings; it is not "
            f"loaded ({reason}). If you trust where it is from, convert it once, in an environment of its own: "
            "state = torch.load(path, map_location='cpu', weights_only=False); "
            "tensors = {k: v.contiguous() for k, v in state['state_dict'].items()}; "
            "safetensors.torch.save_file(tensors, 'model.safetensors'); "
            "then load the folder with the new file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file} is not a whole torch checkpoint ({reason}): copy it again") from error


def _unnested(file: Path, found: Any, nested: Sequence[str]) -> dict[str, torch.Tensor]:
    import torch

    for name in nested:
        if isinstance(found, dict) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    tensors = (
        {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{file} holds no tensors by name, neither at its top nor under {', '.join(nested)}")
    return tensors
