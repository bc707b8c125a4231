"""The arguments of the commands of `multitok eval`: lists, checkpoints and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from multitok.protocol import Modality, Tokenizer


def comma_separated(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """ "JPEG,WebP" -> ("JPEG", "WebP"); "none" -> (); nothing -> None, all of them."""
    if text is None:
        return None
    return () if text == "none" else tuple(name.strip() for name in text.split(","))


def published_pairs(
    context: click.Context, option: click.Parameter, pairs: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """["vqgan=runs/vqgan"] -> [("vqgan", "runs/vqgan")]."""
    for pair in pairs:
        kind, _, path = pair.partition("=")
        if not (kind and path):
            raise click.BadParameter(f"{pair!r}: write KIND=PATH, such as vqgan=models/vqgan")
    return tuple((pair.partition("=")[0], pair.partition("=")[2]) for pair in pairs)


def split_targets(targets: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Checkpoints, and files and folders of data; a bare word that is no file is meant as a checkpoint."""
    from multitok.checkpoint import CONFIG, shipped_checkpoints

    shipped, names, paths = shipped_checkpoints(), [], []
    for target in dict.fromkeys(targets):
        path = Path(target)
        word = not path.exists() and not path.suffix and len(path.parts) == 1
        if target in shipped or word or (path / CONFIG).is_file():
            names.append(target)
        else:
            paths.append(path)
    return names, paths


def load_tokenizers(
    names: Sequence[str], published: Sequence[tuple[str, str]], modality: Modality
) -> dict[str, Tokenizer[Any]]:
    """Name or path -> tokenizer; all are to be of the modality."""
    from multitok.checkpoint import load, shipped_checkpoints

    tokenizers = {name: load(name) for name in names}
    tokenizers |= {path: load(path, kind=kind) for kind, path in published}
    if not tokenizers:
        fitting = [name for name in shipped_checkpoints() if load(name).spec.modality is modality]
        raise click.UsageError(f"no checkpoint given: name one before the files, such as {', '.join(fitting)}")
    for name, tokenizer in tokenizers.items():
        if tokenizer.spec.modality is not modality:
            other = tokenizer.spec.modality
            raise click.UsageError(f"{name} is a tokenizer for {other}: give one for {modality}")
    return tokenizers


def files_of(paths: Sequence[Path], modality: Modality) -> list[Path]:
    """The files named, and those of the modality in the folders named."""
    from multitok.cli.choose import files_under
    from multitok.frontend.media import modalities_of

    files = []
    for path in paths:
        found = list(files_under([path]))
        files += [one for one in found if modality in modalities_of(one.name)[:2]] if path.is_dir() else found
    if not files:
        where = f" in {', '.join(map(str, paths))}" if paths else ": give files or folders after the checkpoints"
        raise click.UsageError(f"no {modality} files{where}")
    return files


def shown_names(files: Sequence[Path]) -> dict[Path, str]:
    """What the files are called in tables: their paths without the folders they share."""
    shared = Path(os.path.commonpath([path.absolute().parent for path in files]))
    return {path: path.absolute().relative_to(shared).as_posix() for path in files}
