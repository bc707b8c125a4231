"""Volumes: NIfTI-1 (`.nii`, `.nii.gz`) -> float32 [Z, Y, X], read with NumPy alone.

What is read: single files ("n+1"), both byte orders, integer and real voxels, slope and intercept. The axes stay as
stored, slowest first; no reorientation by the header's affine and no resampling to a common voxel size.
What is not: NIfTI-2, header and image in two files, complex or colour voxels, time series of volumes.

Shape letters: Z slices, Y rows, X columns.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.source import Source, check_size

_HEADER_BYTES = 348
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_OTHER_DTYPES = {1: "1-bit", 32: "complex64", 128: "RGB", 1536: "float128", 1792: "complex128", 2304: "RGBA"}
LOW_PERCENTILE, HIGH_PERCENTILE = 0.0, 99.5


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    data_offset: int
    slope: float
    intercept: float


def read_header(source: Source) -> tuple[int, int, int]:
    """Size of a NIfTI-1 volume, from its header.

    Args:
        source: Where the bytes are.

    Returns:
        Z, Y, X.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not a volume this reads.
    """
    return _parse(source, source.read(_HEADER_BYTES)).shape


def decode_nifti(source: Source) -> NDArray[np.float32]:
    """The voxels of a NIfTI-1 file, scaled by its slope and intercept.

    Args:
        source: Where the bytes are.

    Returns:
        [Z, Y, X] float32.

    Raises:
        InputError: A voxel is NaN or infinite, or a limit is exceeded.
        MediaError: Cut short, or not a volume this reads.
    """
    data = source.read()
    header = _parse(source, data[:_HEADER_BYTES])
    num_voxels = math.prod(header.shape)
    needed = header.data_offset + num_voxels * header.dtype.itemsize
    if len(data) < needed:
        raise MediaError(f"{source.name}: NIfTI volume is cut short: {needed:,} bytes announced, {len(data):,} found")
    # On disk x runs fastest, so the C order of [Z, Y, X] is the order of the file.
    stored = np.frombuffer(data, header.dtype, num_voxels, header.data_offset).reshape(header.shape)
    if header.slope != 1.0 or header.intercept != 0.0:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name below
            stored = stored.astype(np.float64) * header.slope + header.intercept
    return as_volume(source.name, stored)


def as_volume(name: str, values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Any real array with three axes as a float32 volume.

    Args:
        name: The file's name.
        values: [Z, Y, X].

    Returns:
        [Z, Y, X] float32, contiguous.

    Raises:
        InputError: A voxel is NaN, infinite, or too large for float32; or there is none.
    """
    if values.size == 0:
        raise InputError(f"{name}: a volume of shape {list(values.shape)} has no voxels")
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.array(values, dtype=np.float32, order="C")
    if not np.isfinite(volume).all():
        first = np.unravel_index(int(np.isfinite(volume).argmin()), volume.shape)
        raise InputError(f"{name}: voxel {[int(i) for i in first]} is {values[first]}, not a finite float32")
    return volume


def normalise_volume(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a volume to [0, 1] by its least value and its 99.5th percentile; what lies above becomes 1.

    Scanners give arbitrary units, and a few bright voxels would otherwise squeeze all tissue into a narrow band.
    A constant volume becomes zeros.

    Args:
        volume: [Z, Y, X] float32, finite.

    Returns:
        [Z, Y, X] float32 in [0, 1].
    """
    quarter: NDArray[np.float32] = volume * np.float32(
        0.25
    )  # so that the range of even the largest values stays finite
    low, high = np.percentile(quarter, [LOW_PERCENTILE, HIGH_PERCENTILE])
    high = high if high > low else quarter.max()
    if high <= low:
        return np.zeros_like(volume)
    with np.errstate(over="ignore"):
        np.divide(quarter - low, high - low, out=quarter)
    np.minimum(quarter, np.float32(1.0), out=quarter)
    return quarter


def _parse(source: Source, header: bytes) -> _Header:
    name = source.name
    if len(header) < _HEADER_BYTES:
        raise MediaError(f"{name}: NIfTI volume is cut short: its header has 348 bytes, {len(header)} found")
    order = "<" if header[:4] == b"\x5c\x01\0\0" else ">"
    if header[344:348] == b"ni1\0":
        raise MediaError(f"{name}: the header of a two-file NIfTI volume (.hdr and .img); save it as one .nii file")
    dim = struct.unpack_from(f"{order}8h", header, 40)
    rank = dim[0]
    if not 3 <= rank <= 7 or min(dim[1 : rank + 1]) < 1:
        raise MediaError(f"{name}: a NIfTI volume has 3 axes of at least one voxel; dim is {list(dim)}")
    if math.prod(dim[4 : rank + 1]) > 1:
        raise MediaError(
            f"{name}: holds {math.prod(dim[4 : rank + 1]):,} volumes (dim {list(dim)}); give them one by one"
        )
    (code,) = struct.unpack_from(f"{order}h", header, 70)
    if code not in _DTYPES:
        raise MediaError(f"{name}: NIfTI voxels of type {_OTHER_DTYPES.get(code, code)}; readable are real numbers")
    offset, slope, intercept = struct.unpack_from(f"{order}3f", header, 108)
    if not math.isfinite(offset) or offset < _HEADER_BYTES or offset != int(offset):
        raise MediaError(f"{name}: NIfTI voxels begin at byte {offset}; allowed is 352 or more")
    shape = (dim[3], dim[2], dim[1])
    check_size(name, f"{' x '.join(map(str, shape))} voxels", math.prod(shape) * 4, source.limits)
    if slope == 0.0 or not math.isfinite(slope) or not math.isfinite(intercept):
        slope, intercept = 1.0, 0.0  # the standard: a slope of 0 means that the voxels are not scaled
    return _Header(shape, np.dtype(order + _DTYPES[code]), int(offset), slope, intercept)
