"""Zarr (v2 and v3) by zarr (`pip install 'multitok[volume]'`): an array of three axes in a folder -> a volume.

A folder that holds an array is that array. A folder that holds a group is read by its OME-Zarr `multiscales`: the first
(finest) array, with the scale and translation that stand there. Axes of size 1 before the last three (time, channel)
are dropped, larger ones refused. Values are kept as stored. Zarr does not say how a volume lies in a body, so nothing
is turned.

Shape letters: Z slices, Y rows, X columns.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media.geometry import VolumeInfo, as_affine
from multitok.frontend.media.source import Source, check_size, guarded
from multitok.frontend.media.volume import as_volume

_MARKS = ("zarr.json", ".zarray", ".zgroup")
_MILLIMETRES = {"meter": 1000.0, "millimeter": 1.0, "micrometer": 0.001, "nanometer": 1e-6}


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return any((path / mark).is_file() for mark in _MARKS)


def read_header(source: Source) -> tuple[tuple[int, int, int], VolumeInfo]:
    """Size and place of a volume, from its metadata.

    Args:
        source: The folder.

    Returns:
        Z, Y, X, and the place.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not a volume this reads.
        MissingExtraError: zarr is not installed.
    """
    with guarded(source.name, "Zarr folder"):
        array, info = _opened(source)
        z, y, x = array.shape[-3:]
        return (z, y, x), info


def decode_zarr(source: Source) -> tuple[NDArray[np.float32], VolumeInfo]:
    """The values of a Zarr array.

    Args:
        source: The folder.

    Returns:
        [Z, Y, X] float32, and where it lies.

    Raises:
        InputError: A voxel is NaN or infinite, or a limit is exceeded.
        MediaError: Damaged, or not a volume this reads.
        MissingExtraError: zarr is not installed.
    """
    with guarded(source.name, "Zarr folder"):
        array, info = _opened(source)
        return as_volume(source.name, np.asarray(array[(0,) * (array.ndim - 3)])), info


def _opened(source: Source) -> tuple[Any, VolumeInfo]:
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError(
            f"{source.name}: Zarr folders need zarr: pip install 'multitok[volume]'", name="zarr"
        ) from error
    root: Any = zarr.open(str(source.data), mode="r")
    info = VolumeInfo()
    is_group = isinstance(root, zarr.Group)
    if is_group:
        attributes: dict[str, Any] = dict(root.attrs)
        scales = attributes.get("ome", attributes).get("multiscales")
        if not scales:
            held = ", ".join(sorted(root.array_keys())) or "no arrays"
            raise MediaError(
                f"{source.name}: a Zarr group without OME multiscales ({held}); give the folder of one array"
            )
        finest = scales[0]["datasets"][0]
        info = _placed(scales[0], finest)
        root = root[finest["path"]]
    shape = tuple(int(size) for size in root.shape)
    if len(shape) < 3 or math.prod(shape[:-3]) != 1 or np.dtype(root.dtype).kind not in "buif":
        raise MediaError(
            f"{source.name}: a Zarr array of shape {list(shape)} and dtype {root.dtype}; a volume has three axes of "
            "real numbers, and none but axes of size 1 before them"
        )
    if math.prod(shape) == 0:
        raise InputError(f"{source.name}: a Zarr array of shape {list(shape)} is empty")
    itemsize = max(4, np.dtype(root.dtype).itemsize)
    check_size(source.name, f"a Zarr array of shape {list(shape)}", math.prod(shape) * itemsize, source.limits)
    _check_chunks(source, root)
    return root, info


def _check_chunks(source: Source, array: Any) -> None:
    # A chunk that is not there is the fill value, by the format: a file lost in copying would be read as background.
    missing = array.nchunks - array.nchunks_initialized
    if missing and not array.nchunks_initialized:
        raise MediaError(f"{source.name}: none of the {array.nchunks:,} chunks of the Zarr array is there")


def _placed(scales: dict[str, Any], finest: dict[str, Any]) -> VolumeInfo:
    units = [_MILLIMETRES.get(axis.get("unit", ""), 1.0) for axis in scales.get("axes", [])[-3:]]
    units = units if len(units) == 3 else [1.0, 1.0, 1.0]
    scale, translation = np.ones(3), np.zeros(3)
    for step in [*finest.get("coordinateTransformations", []), *scales.get("coordinateTransformations", [])]:
        if step.get("type") == "scale":
            scale *= np.array(step["scale"][-3:], np.float64)
            translation *= np.array(step["scale"][-3:], np.float64)
        elif step.get("type") == "translation":
            translation += np.array(step["translation"][-3:], np.float64)
    affine = np.diag([*(scale * units)[::-1], 1.0])
    affine[:3, 3] = (translation * units)[::-1]
    return VolumeInfo(affine=as_affine(affine))
