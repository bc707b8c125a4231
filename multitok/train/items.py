"""What training reads, one item at a time and in any order: nothing is decoded or held here. Imports no framework.

`FileItems` are the files of folders. Anything else that has these four members will do: the items of WebDataset tars,
JSONL and Parquet documents are `multitok.prepare.training_items.open_items`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from multitok.errors import InputError
from multitok.frontend.media import is_item_folder, modalities_of, modality_of
from multitok.protocol import Modality


class Piece(NamedTuple):
    """A file's content, or the path to it.

    Args:
        name: For messages, and for its extension; holds no folder of this machine.
        data: What the media readers take.
    """

    name: str
    data: bytes | Path


class Items(Protocol):
    """Something to train on."""

    def __len__(self) -> int:
        """How many items there are."""

    def pieces(self, index: int) -> Sequence[Piece]:
        """The pieces of one item that are of the modality; a training crop is of any one of them.

        Raises:
            InputError: The item cannot be used.
            OSError: It cannot be read.
        """

    def name(self, index: int) -> str:
        """What people call the item; without folders of this machine."""

    def digest(self) -> str:
        """Changes when the items do: a resumed run has to see the same ones."""


class FileItems:
    """The files of one modality in folders, in the order of their names; hidden ones left out.

    A folder of DICOM slices and a Zarr folder are one item each.

    Args:
        paths: Folders, and files.
        modality: What is read from them.

    Raises:
        InputError: A path is missing, or there are no files of this modality.
    """

    def __init__(self, paths: Sequence[Path], modality: Modality) -> None:
        self._found: list[tuple[Path, str]] = []
        for path in paths:
            if not path.exists():
                raise InputError(f"{path} does not exist")
            if path.is_file() or is_item_folder(path):
                self._found.append((path, path.name))
            else:
                self._walk(path, path)
        self._found = [each for each in self._found if _holds(*each, modality)]
        if not self._found:
            names = ", ".join(str(path) for path in paths)
            raise InputError(f"no {modality} files in {names}: give folders or files that hold some")

    def __len__(self) -> int:
        return len(self._found)

    def pieces(self, index: int) -> Sequence[Piece]:
        """See `Items`."""
        path, name = self._found[index]
        return [Piece(name, path)]

    def name(self, index: int) -> str:
        """See `Items`."""
        return self._found[index][1]

    def digest(self) -> str:
        """See `Items`."""
        digest = hashlib.sha256()
        for path, name in self._found:
            size = path.stat().st_size if path.is_file() else -1
            digest.update(json.dumps([name, size]).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _walk(self, folder: Path, root: Path) -> None:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for name in names:
            path = folder / name
            if path.is_dir() and not is_item_folder(path):
                if not path.is_symlink():  # which may lead in circles
                    self._walk(path, root)
            elif path.exists():
                self._found.append((path, path.relative_to(root).as_posix()))


def _holds(path: Path, name: str, modality: Modality) -> bool:
    if path.is_dir():
        return modality is Modality.VOLUME
    possible = modalities_of(name)
    if modality not in possible or modality is possible[0]:
        return modality in possible
    try:
        # A picture or an animation, a volume or a clip: the content decides.
        return modality_of(name, path) is modality
    except (InputError, OSError):
        return True  # to be reported when it is read


class JoinedItems:
    """Several items one after the other.

    Args:
        parts: At least one.
    """

    def __init__(self, parts: Sequence[Items]) -> None:
        self._parts = list(parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def pieces(self, index: int) -> Sequence[Piece]:
        """See `Items`."""
        part, inside = self._at(index)
        return part.pieces(inside)

    def name(self, index: int) -> str:
        """See `Items`."""
        part, inside = self._at(index)
        return part.name(inside)

    def digest(self) -> str:
        """See `Items`."""
        return hashlib.sha256(json.dumps([part.digest() for part in self._parts]).encode()).hexdigest()

    def _at(self, index: int) -> tuple[Items, int]:
        for part in self._parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)
