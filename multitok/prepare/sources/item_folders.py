"""Folders that are one item: DICOM slices that lie together, and Zarr arrays.

ct/IM0001 ct/IM0002 ct/notes.txt      ct/*.dcm (a document for each series in it) and ct/notes.txt
brain.zarr/...                        brain.zarr
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from multitok.frontend.media import is_zarr_folder
from multitok.frontend.media.dicom import is_slice

SLICES = "*.dcm"
"""Stands in a listing for all DICOM files of a folder."""


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group by its name and its content."""
    return path.suffix.lower() == ".zarr" and is_zarr_folder(path)


def folder_of(path: Path) -> Path:
    """The folder that a path of a listing means; the path itself where it is none of `SLICES`."""
    return path.parent if path.name == SLICES else path


def measure(path: Path) -> tuple[int, int]:
    """Bytes and latest change of what an item's path means, a folder of slices written as `SLICES`.

    Args:
        path: `folder / SLICES`, or a Zarr folder.

    Returns:
        Bytes, and nanoseconds.
    """
    if path.name == SLICES:
        files = [each for each in path.parent.iterdir() if each.name[0] != "." and each.is_file() and is_slice(each)]
    else:
        files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    states = [file.stat() for file in files]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)


def place_of(name: str) -> str:
    """What people call an item of a listing: the folder of slices, where it has a name."""
    path = PurePosixPath(name)
    return str(path.parent) if path.name == SLICES and path.parent.name else name
