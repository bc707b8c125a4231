"""Formats that are volumes and nothing else, and what is done to every volume: turned, then seen through a window.

| format    | by                | values          | how it lies                      | window "auto" |
|-----------|-------------------|-----------------|----------------------------------|---------------|
| NIfTI     | `nifti.py`        | slope, intercept | sform, qform, or voxel sizes     | 0% to 99.5%   |
| DICOM     | `dicom.py`        | slope, intercept | positions and directions         | 0% to 99.5%   |
| TIFF      | `image.py`        | as stored       | voxel sizes where ImageJ wrote   | 0% to 99.5%   |
| Zarr      | `zarr_folder.py`  | as stored       | voxel sizes of OME-Zarr          | as stored     |
| .npy .npz | `array.py`        | as stored       | unknown                          | as stored     |
| OBJ, PLY  | `mesh.py`         | 0 and 1         | the mesh's own coordinates       | none ever     |

Shape letters: Z slices, Y rows, X columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from multitok.frontend.media import image, nifti, zarr_folder
from multitok.frontend.media.geometry import VolumeInfo, to_ras
from multitok.frontend.media.mesh import read_mesh
from multitok.frontend.media.options import ReadOptions
from multitok.frontend.media.source import Source
from multitok.frontend.media.volume import as_volume
from multitok.frontend.media.voxels import mesh_grid, voxelise
from multitok.frontend.media.windows import AUTO_WINDOW, Window, seen_through

_MESHES = ("obj", "ply")
FORMATS = ("nifti", "zarr", *_MESHES)
"""What `read_header` takes."""

# Those whose unit is arbitrary or wide, so that "auto" is a window.
_WINDOWED = ("nifti", "dicom", "tiff")


def read_header(source: Source, found: str, options: ReadOptions) -> tuple[int, int, int]:
    """Size of a volume as it will be read, from its header.

    Args:
        source: Where the bytes are.
        found: One of `FORMATS`.
        options: How it will be read.

    Returns:
        Z, Y, X.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not a volume this reads.
        MissingExtraError: The format needs a package that is not installed.
    """
    if found in _MESHES:
        return options.mesh_resolution, options.mesh_resolution, options.mesh_resolution
    shape, place = (nifti if found == "nifti" else zarr_folder).read_header(source)
    return turned_shape(shape, place, options)


def decode(source: Source, found: str, options: ReadOptions) -> tuple[NDArray[np.float32], VolumeInfo]:
    """The volume of a file, turned and seen through its window.

    Args:
        source: Where the bytes are.
        found: One of `FORMATS`, or "tiff".
        options: How to read it.

    Returns:
        [Z, Y, X] float32, and where it lies.

    Raises:
        InputError: A value that is not finite, or a limit is exceeded.
        MediaError: Cut short or damaged.
        MissingExtraError: The format needs a package that is not installed.
    """
    return finished(*_stored(source, found, options), found, options)


def finished(
    voxels: NDArray[np.float32], place: VolumeInfo, found: str, options: ReadOptions
) -> tuple[NDArray[np.float32], VolumeInfo]:
    """A volume as stored, turned and seen through its window.

    Args:
        voxels: [Z, Y, X].
        place: Where they lie.
        found: `Format.name` of the file.
        options: Orientation and window.

    Returns:
        [Z, Y, X] float32, contiguous, and its new place.
    """
    if options.orientation == "ras":
        voxels, place = to_ras(voxels, place)
    voxels = np.ascontiguousarray(voxels)
    window = options.window
    if window == "auto" and found in _WINDOWED:
        window = AUTO_WINDOW
    if isinstance(window, Window) and found not in _MESHES:
        voxels, bounds = seen_through(voxels, window)
        place = replace(place, window=bounds)
    return voxels, place


def turned_shape(shape: tuple[int, int, int], place: VolumeInfo, options: ReadOptions) -> tuple[int, int, int]:
    """Size of a volume after the turn that `options` ask for; the arguments are those of the volume as stored."""
    if options.orientation == "stored":
        return shape
    # A view of nothing: strides of 0 take no memory.
    z, y, x = to_ras(np.broadcast_to(np.uint8(0), shape), place)[0].shape
    return z, y, x


def _stored(source: Source, found: str, options: ReadOptions) -> tuple[NDArray[np.float32], VolumeInfo]:
    if found == "nifti":
        return nifti.decode_nifti(source)
    if found == "zarr":
        return zarr_folder.decode_zarr(source)
    if found == "tiff":
        pages, place = image.decode_stack(source)
        return as_volume(source.name, pages), place
    mesh = read_mesh(source, found)
    place = mesh_grid(source.name, mesh, options.mesh_resolution, source.limits)
    is_solid = options.mesh_fill == "solid"
    voxels = voxelise(source.name, mesh, place, options.mesh_resolution, is_solid=is_solid, limits=source.limits)
    return voxels, place
