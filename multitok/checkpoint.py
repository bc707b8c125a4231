"""Tokenizers as folders: `config.json`, `model.safetensors`, `card.md`. No pickle anywhere.

    image-patch8/
        config.json         format_version, kind, config, sha256 of the tensors
        model.safetensors   tensors only
        card.md             data, licence, exact training command, seed, measured quality, intended use

`load` finds a shipped checkpoint by name, a folder by path, and a kind that needs no state by its kind. With `kind` it
reads a folder that others have written, through that kind's adapter; `save` turns it into one of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from multitok.errors import CheckpointError, MultitokError
from multitok.protocol import DirectoryReader, Json, Tokenizer
from multitok.registry import ADAPTERS, kinds, tokenizer_class

FORMAT_VERSION = 1
CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "card.md"


def load(name_or_path: str | os.PathLike[str], *, name: str | None = None, kind: str | None = None) -> Tokenizer[Any]:
    """Load a tokenizer: a shipped checkpoint's name, a checkpoint folder's path, or a kind without state.

    Args:
        name_or_path: "image-patch8", "runs/my-tokenizer" or "text-bytes". A name of a shipped checkpoint comes
            before a folder of the same name; write "./name" for the folder.
        name: Name for the tokenizer inside a vocabulary; None keeps its own.
        kind: The format of a published checkpoint's folder, "vqgan" for one of taming-transformers; None for
            everything that this package wrote. docs/anchors.md lists the formats.

    Raises:
        CheckpointError: Nothing of that name, or a folder that cannot be trusted or read.
        RegistryError: The checkpoint's kind, or the one given, is unknown here.
    """
    text = os.fspath(name_or_path)
    if kind is not None:
        return _load_published(Path(text), name, kind)
    shipped = shipped_checkpoints()
    if text in shipped:
        return load_folder(shipped[text], name=name)
    if Path(text).is_dir():
        return load_folder(Path(text), name=name)
    if text in kinds():
        try:
            return tokenizer_class(text).from_state({} if name is None else {"name": name}, {})
        except TypeError as error:
            of_kind = [key for key, folder in shipped.items() if _read_config(folder)["kind"] == text]
            raise CheckpointError(
                f"kind {text!r} cannot be built without a checkpoint ({error}); shipped ones: {', '.join(of_kind)}"
            ) from error
    raise CheckpointError(
        f"no checkpoint {text!r}: it is no folder, and the shipped ones are {', '.join(sorted(shipped))}. "
        "`multitok list` shows them"
    )


def load_folder(folder: Path, *, name: str | None = None) -> Tokenizer[Any]:
    """Load the tokenizer in one checkpoint folder, verifying its tensors' sha256.

    Raises:
        CheckpointError: A file is missing, altered, of another version, or does not fit its kind.
    """
    data = _read_config(folder)
    try:
        raw = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{folder}: {TENSORS} cannot be read ({error.strerror}); copy the whole folder"
        ) from error
    digest = hashlib.sha256(raw).hexdigest()
    if digest != data["sha256"]:
        raise CheckpointError(
            f"{folder}: {TENSORS} has sha256 {digest[:12]}..., {CONFIG} says {str(data['sha256'])[:12]}...; "
            "one of the two is altered or cut short: copy the folder again"
        )
    try:
        tensors = safetensors.numpy.load(raw)
    except SafetensorError as error:
        raise CheckpointError(f"{folder}: {TENSORS} is not a safetensors file ({error})") from error
    config = data["config"] if name is None else {**data["config"], "name": name}
    cls = tokenizer_class(data["kind"])
    try:
        return cls.from_state(config, tensors)
    except (TypeError, KeyError, MultitokError) as error:
        raise CheckpointError(f"{folder}: config and tensors do not fit kind {data['kind']!r}: {error}") from error


def _load_published(folder: Path, name: str | None, kind: str) -> Tokenizer[Any]:
    adapter: Any = tokenizer_class(kind)
    if not isinstance(adapter, DirectoryReader):
        raise CheckpointError(
            f"kind {kind!r} reads no checkpoints of others: leave kind out for a folder that this package wrote, "
            f"or give one of {', '.join(ADAPTERS)}"
        )
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder: give the one that holds the published {kind!r} checkpoint")
    if _is_ours(folder):
        tokenizer = load_folder(folder, name=name)
        if tokenizer.spec.kind != kind:
            raise CheckpointError(f"{folder} holds kind {tokenizer.spec.kind!r}, not {kind!r}: leave kind out")
        return tokenizer
    published: Tokenizer[Any] = adapter.from_directory(folder, name=name)
    return published


def _is_ours(folder: Path) -> bool:
    # Published folders often have a config.json too, a different one.
    try:
        data = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"format_version", "kind", "sha256"} <= data.keys()


def save(tokenizer: Tokenizer[Any], folder: str | os.PathLike[str], *, card: str) -> Path:
    """Write a checkpoint folder; it appears whole or not at all.

    Args:
        tokenizer: What to save.
        folder: A path that does not exist yet.
        card: Markdown: data, licence, exact training command, seed, measured quality, intended use.
    Returns:
        The folder.
    Raises:
        CheckpointError: The folder exists already.
    """
    target = Path(folder)
    if target.exists():
        raise CheckpointError(f"{target} exists already: choose another folder or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = safetensors.numpy.save({key: np.ascontiguousarray(v) for key, v in sorted(tokenizer.get_tensors().items())})
    data = {
        "format_version": FORMAT_VERSION,
        "kind": tokenizer.spec.kind,
        "config": tokenizer.get_config(),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (staging / TENSORS).write_bytes(raw)
        (staging / CONFIG).write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (staging / CARD).write_text(card, encoding="utf-8")
        staging.chmod(0o755)  # mkdtemp makes it private; a checkpoint is to be shared
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return target


def fingerprint(tokenizer: Tokenizer[Any]) -> str:
    """sha256 (hex) of what fixes a tokenizer's output: kind, configuration and tensors, but not its name."""
    config = {key: value for key, value in tokenizer.get_config().items() if key != "name"}
    tensors = {key: _tensor_digest(value) for key, value in sorted(tokenizer.get_tensors().items())}
    return sha256_json({"kind": tokenizer.spec.kind, "config": config, "tensors": tensors})


def sha256_json(data: Json | dict[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON of `data`: sorted keys, no spaces, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shipped_checkpoints() -> dict[str, Path]:
    """Name and folder of each checkpoint that comes with the package."""
    return {config.parent.name: config.parent for config in _shipped(f"*/{CONFIG}")}


def shipped_vocabularies() -> dict[str, Path]:
    """Name and file of each vocabulary that comes with the package."""
    return {file.stem: file for file in _shipped("vocabularies/*.json")}


def _shipped(pattern: str) -> list[Path]:
    package = Path(__file__).resolve().parent
    # Inside the wheel the folder lies in the package, in the repository beside it.
    for root in (package / "checkpoints", package.parent / "checkpoints"):
        if root.is_dir():
            return sorted(root.glob(pattern))
    return []


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{folder} is no checkpoint: {CONFIG} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version {version!r}, this multitok reads {FORMAT_VERSION}: "
            "upgrade multitok, or save the checkpoint again with the version that wrote it"
        )
    missing = {"kind", "config", "sha256"} - data.keys()
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}")
    return dict(data)


def _tensor_digest(tensor: NDArray[Any]) -> dict[str, Json]:
    array = np.ascontiguousarray(tensor)
    return {
        "dtype": array.dtype.newbyteorder("<").str,
        "shape": list(array.shape),
        "sha256": hashlib.sha256(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest(),
    }
