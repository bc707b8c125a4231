"""NIfTI-1 and NIfTI-2 (`.nii`, `.nii.gz`) <-> volumes and where they lie, with NumPy alone.

Read: single files, both byte orders, integer and real voxels, slope and intercept. The affine is the sform's where the
header has one, else the qform's; without either the file does not say how the volume lies, the affine holds the voxel
sizes alone, and nothing is turned. Metres and micrometres become millimetres.
Not read: header and image in two files, complex or colour voxels, time series of volumes.
Written: little-endian float32 with an sform; NIfTI-2 where an axis has more than 32,767 voxels.

Shape letters: Z slices, Y rows, X columns.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multitok.errors import MediaError
from multitok.frontend.media.geometry import VolumeInfo, as_affine, axes_of, is_affine
from multitok.frontend.media.source import Source, check_size
from multitok.frontend.media.volume import as_volume

HEADER_BYTES = 540
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_OTHER_DTYPES = {1: "1-bit", 32: "complex64", 128: "RGB", 1536: "float128", 1792: "complex128", 2304: "RGBA"}
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
_FLOAT32, _ALIGNED = 16, 2
_LARGEST_NIFTI1_AXIS = 32_767


@dataclass(frozen=True)
class _Layout:
    """Where a version keeps its fields, and of what type; `letters` are those of `struct`."""

    header_bytes: int
    dim: tuple[int, str]
    code: int
    voxel_sizes: tuple[int, str]
    data_offset: tuple[int, str]
    scaling: tuple[int, str]
    units: tuple[int, str]
    form_codes: tuple[int, str]
    qform: tuple[int, str]
    sform: tuple[int, str]


_NIFTI1 = _Layout(
    348, (40, "8h"), 70, (76, "4f"), (108, "f"), (112, "2f"), (123, "B"), (252, "2h"), (256, "6f"), (280, "12f")
)
_NIFTI2 = _Layout(
    540, (16, "8q"), 12, (104, "4d"), (168, "q"), (176, "2d"), (500, "i"), (344, "2i"), (352, "6d"), (400, "12d")
)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    data_offset: int
    slope: float
    intercept: float
    info: VolumeInfo


def read_header(source: Source) -> tuple[tuple[int, int, int], VolumeInfo]:
    """Size and place of a volume as stored, from its header.

    Args:
        source: Where the bytes are.

    Returns:
        Z, Y, X, and what the header says of the place.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not a volume this reads.
    """
    header = _parse(source, source.read(HEADER_BYTES))
    return header.shape, header.info


def decode_nifti(source: Source) -> tuple[NDArray[np.float32], VolumeInfo]:
    """The voxels of a file as stored, scaled by its slope and intercept.

    Args:
        source: Where the bytes are.

    Returns:
        [Z, Y, X] float32, and where they lie.

    Raises:
        InputError: A voxel is NaN or infinite, or a limit is exceeded.
        MediaError: Cut short, or not a volume this reads.
    """
    data = source.read()
    header = _parse(source, data[:HEADER_BYTES])
    num_voxels = math.prod(header.shape)
    needed = header.data_offset + num_voxels * header.dtype.itemsize
    if len(data) < needed:
        raise MediaError(f"{source.name}: NIfTI volume is cut short: {needed:,} bytes announced, {len(data):,} found")
    # On disk x runs fastest, so the C order of [Z, Y, X] is the order of the file.
    stored = np.frombuffer(data, header.dtype, num_voxels, header.data_offset).reshape(header.shape)
    if header.slope != 1.0 or header.intercept != 0.0:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name below
            stored = stored.astype(np.float64) * header.slope + header.intercept
    return as_volume(source.name, stored), header.info


def encode_nifti(volume: NDArray[np.float32], info: VolumeInfo, *, version: int = 1) -> bytes:
    """A volume as a single NIfTI file, in the unit that its values had before their window.

    Args:
        volume: [Z, Y, X] float32.
        info: Where it lies, and through which window its values were seen.
        version: 1 or 2; 1 becomes 2 where an axis is too long for it.

    Returns:
        The file's bytes.
    """
    layout = _NIFTI1 if version == 1 and max(volume.shape) <= _LARGEST_NIFTI1_AXIS else _NIFTI2
    low, high = info.window or (0.0, 1.0)
    offset = layout.header_bytes + 4  # no extensions, which four zero bytes say
    header = bytearray(offset)
    z, y, x = volume.shape
    spacing_z, spacing_y, spacing_x = info.spacing
    magic = (344, b"n+1\0") if layout is _NIFTI1 else (4, b"n+2\0\r\n\x1a\n")
    header[magic[0] : magic[0] + len(magic[1])] = magic[1]
    for (position, form), values in (
        ((0, "i"), (layout.header_bytes,)),
        (layout.dim, (3, x, y, z, 1, 1, 1, 1)),
        ((layout.code, "2h"), (_FLOAT32, 32)),
        (layout.voxel_sizes, (1.0, spacing_x, spacing_y, spacing_z)),
        (layout.data_offset, (offset,)),
        (layout.scaling, (high - low, low)),
        (layout.units, (2,)),
        (layout.form_codes, (0, _ALIGNED if info.axes else 0)),
        (layout.sform, tuple(value for row in info.affine[:3] for value in row)),
    ):
        struct.pack_into(f"<{form}", header, position, *values)
    return bytes(header) + volume.astype("<f4").tobytes()


def _parse(source: Source, header: bytes) -> _Header:
    name = source.name
    layout = _NIFTI2 if header[4:7] == b"n+2" else _NIFTI1
    if len(header) < layout.header_bytes:
        raise MediaError(
            f"{name}: NIfTI volume is cut short: its header has {layout.header_bytes} bytes, {len(header)} found"
        )
    order = "<" if header[0] else ">"  # sizes of 348 and 540 both begin or end with a zero byte
    if layout is _NIFTI1 and header[344:348] == b"ni1\0":
        raise MediaError(f"{name}: the header of a two-file NIfTI volume (.hdr and .img); save it as one .nii file")

    def fields(place: tuple[int, str]) -> tuple[float, ...]:
        return struct.unpack_from(f"{order}{place[1]}", header, place[0])

    dim = [int(size) for size in fields(layout.dim)]
    rank = dim[0]
    if not 3 <= rank <= 7 or min(dim[1 : rank + 1]) < 1:
        raise MediaError(f"{name}: a NIfTI volume has 3 axes of at least one voxel; dim is {dim}")
    if math.prod(dim[4 : rank + 1]) > 1:
        raise MediaError(f"{name}: holds {math.prod(dim[4 : rank + 1]):,} volumes (dim {dim}); give them one by one")
    (code,) = struct.unpack_from(f"{order}h", header, layout.code)
    if code not in _DTYPES:
        raise MediaError(f"{name}: NIfTI voxels of type {_OTHER_DTYPES.get(code, code)}; readable are real numbers")
    (offset,) = fields(layout.data_offset)
    if not math.isfinite(offset) or offset < layout.header_bytes or offset != int(offset):
        raise MediaError(f"{name}: NIfTI voxels begin at byte {offset}; allowed is {layout.header_bytes + 4} or more")
    slope, intercept = fields(layout.scaling)
    shape = (dim[3], dim[2], dim[1])
    check_size(name, f"{' x '.join(map(str, shape))} voxels", math.prod(shape) * 4, source.limits)
    if slope == 0.0 or not math.isfinite(slope) or not math.isfinite(intercept):
        slope, intercept = 1.0, 0.0  # the standard: a slope of 0 means that the voxels are not scaled
    unit = _MILLIMETRES.get(int(fields(layout.units)[0]) & 7, 1.0)
    with np.errstate(all="ignore"):  # numbers of a damaged header; what comes of them is looked at
        info = _place(
            fields(layout.form_codes), fields(layout.voxel_sizes), fields(layout.qform), fields(layout.sform), unit
        )
    return _Header(shape, np.dtype(order + _DTYPES[code]), int(offset), slope, intercept, info)


def _place(
    codes: tuple[float, ...],
    voxel_sizes: tuple[float, ...],
    qform: tuple[float, ...],
    sform: tuple[float, ...],
    unit: float,
) -> VolumeInfo:
    affine, notes = np.eye(4), list[str]()
    if codes[1] > 0:
        affine[:3] = np.reshape(sform, (3, 4))
        affine[:3] *= unit
        if is_affine(affine):
            return _placed(affine, notes)
        notes.append("the sform places no voxels and was left out")
    if codes[0] > 0:
        affine = _quaternion_affine(voxel_sizes, qform)
        affine[:3] *= unit
        if is_affine(affine):
            return _placed(affine, notes)
        notes.append("the qform places no voxels and was left out")
    sizes = [abs(size) * unit if math.isfinite(size) and size else 1.0 for size in voxel_sizes[1:4]]
    return VolumeInfo(affine=as_affine(np.diag([*sizes, 1.0])), notes=tuple(notes))


def _placed(affine: NDArray[np.float64], notes: list[str]) -> VolumeInfo:
    placed = as_affine(affine)
    axes = axes_of(placed)
    return VolumeInfo(affine=placed, axes=axes, stored_axes=axes, notes=tuple(notes))


def _quaternion_affine(voxel_sizes: tuple[float, ...], qform: tuple[float, ...]) -> NDArray[np.float64]:
    b, c, d = qform[:3]
    square = 1.0 - (b * b + c * c + d * d)
    a = math.sqrt(square) if square > 0 else 0.0
    if square < 0:  # rounding in a file of float32 may leave the unit sphere
        length = math.sqrt(b * b + c * c + d * d)
        b, c, d = b / length, c / length, d / length
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handedness = -1.0 if voxel_sizes[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * [voxel_sizes[1], voxel_sizes[2], voxel_sizes[3] * handedness]
    affine[:3, 3] = qform[3:]
    return affine
