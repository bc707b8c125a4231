"""NumPy files, `.npy` and `.npz`: which raw item an array is, by its shape and dtype. Pickled objects are refused.

| array               | raw item                     |
|---------------------|------------------------------|
| uint8 [T, H, W, 3]  | video                        |
| uint8 [H, W, 3]     | image                        |
| real [Z, Y, X]      | volume                       |
| real [N, C] or [N]  | series, one channel for [N]  |

A uint8 [Z, Y, 3] array can be meant as a volume: `modality="volume"` says so. Values are kept as stored.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.series import as_series
from multitok.frontend.media.source import Limits, Source, check_size, guarded
from multitok.frontend.media.volume import as_volume
from multitok.protocol import Modality

_MAX_HEADER_BYTES = 10_000


def read_header(source: Source, format_name: str, allowed: tuple[Modality, ...]) -> tuple[Modality, tuple[int, ...]]:
    """What an array file holds, from its header.

    Args:
        source: Where the bytes are.
        format_name: "npy" or "npz".
        allowed: What it may be read as.

    Returns:
        The modality and the extent.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not an array, or none of the allowed modalities.
    """
    with source.open() as file, guarded(source.name, "NumPy array"):
        shape, dtype = _parse(source.name, _npy_file(source, file, format_name), source.limits)[:2]
        modality = _modality(source.name, shape, dtype, allowed)
        return modality, _extent(modality, shape)


def decode_array(
    source: Source, format_name: str, allowed: tuple[Modality, ...]
) -> tuple[Modality, NDArray[np.uint8] | NDArray[np.float32]]:
    """An array file as the raw item that it is.

    Args:
        source: Where the bytes are.
        format_name: "npy" or "npz".
        allowed: What it may be read as.

    Returns:
        The modality and the raw item.

    Raises:
        InputError: Values that no tokenizer takes, or a limit is exceeded.
        MediaError: Not an array, cut short, or none of the allowed modalities.
    """
    with source.open() as file, guarded(source.name, "NumPy array"):
        npy = _npy_file(source, file, format_name)
        shape, dtype, fortran_order = _parse(source.name, npy, source.limits)
        modality = _modality(source.name, shape, dtype, allowed)
        needed = math.prod(shape) * dtype.itemsize
        data = npy.read(needed)
        if len(data) < needed:
            raise MediaError(f"{source.name}: array is cut short: {needed:,} bytes announced, {len(data):,} found")
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
        if modality in (Modality.IMAGE, Modality.VIDEO):
            return modality, np.array(array, dtype=np.uint8, order="C")
        return modality, (as_volume if modality is Modality.VOLUME else as_series)(source.name, array)


def _npy_file(source: Source, file: BinaryIO, format_name: str) -> BinaryIO:
    if format_name == "npy":
        return file
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1 or not names[0].endswith(".npy"):
            raise MediaError(
                f"{source.name}: a zip archive of {len(names)} members ({', '.join(names[:4])}); "
                "readable is an .npz file with exactly one array"
            )
        with archive.open(names[0]) as member:
            data = member.read(source.limits.max_bytes + 1)
    if len(data) > source.limits.max_bytes:
        raise InputError(f"{source.name}: unzips to more than max_bytes={source.limits.max_bytes:,}")
    return io.BytesIO(data)


def _parse(name: str, file: BinaryIO, limits: Limits) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise MediaError(f"{name}: array file of version {version}; readable are 1.0 and 2.0")
    shape, fortran_order, dtype = readers[version](file, max_header_size=_MAX_HEADER_BYTES)
    if dtype.hasobject:
        raise MediaError(f"{name}: an array of Python objects (pickled), which is never loaded; save numbers")
    if dtype.kind not in "buif" or min(shape, default=1) < 0:
        raise MediaError(f"{name}: an array of shape {list(shape)} and dtype {dtype}; readable are real numbers")
    if math.prod(shape) == 0:
        raise InputError(f"{name}: an array of shape {list(shape)} is empty")
    check_size(name, f"an array of shape {list(shape)}", math.prod(shape) * max(4, dtype.itemsize), limits)
    return shape, dtype, fortran_order


def _modality(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], allowed: tuple[Modality, ...]) -> Modality:
    is_rgb = dtype == np.uint8 and shape[-1:] == (3,)
    fits = {
        Modality.VIDEO: is_rgb and len(shape) == 4,
        Modality.IMAGE: is_rgb and len(shape) == 3,
        Modality.VOLUME: len(shape) == 3,
        Modality.SERIES: len(shape) in (1, 2),
    }
    for modality, fit in fits.items():
        if fit and modality in allowed:
            return modality
    raise MediaError(
        f"{name}: an array of shape {list(shape)} and dtype {dtype}, to be read as {' or '.join(allowed)}; a series is "
        "[N] or [N, C], a volume [Z, Y, X], an image uint8 [H, W, 3], a video uint8 [T, H, W, 3]"
    )


def _extent(modality: Modality, shape: tuple[int, ...]) -> tuple[int, ...]:
    if modality in (Modality.IMAGE, Modality.VIDEO):
        return shape[:-1]
    return (*shape, 1) if len(shape) == 1 else shape
