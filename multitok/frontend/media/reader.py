"""Files and bytes -> raw items, and their sizes without decoding them.

| function        | gives                                                        | reads            |
|-----------------|--------------------------------------------------------------|------------------|
| `modality_of`   | what a file holds, by its name alone or by name and content  | nothing / header |
| `probe`         | modality, extent and sample rate of one item                 | header           |
| `probe_records` | the same for every record of a file of sequences             | header / all     |
| `read`          | one raw item                                                 | all              |
| `records`       | every record of a file of sequences; one item of other files | all              |
| `read_records`  | the same, with what the file says besides: place, frame rate | all              |
| `read_volume`   | one volume, and where it lies                                | all              |

A folder is an item where it holds DICOM slices (a record for each series) or a Zarr array. Clips with their times, and
parts of them, are read by `read_clip` and `iter_frames` of `clips.py`, sound in chunks by `iter_audio` of `sounds.py`.

Whatever is wrong with a file is an `InputError` (readable, but not to be tokenized: empty, NaN, too large) or a
`MediaError` (the bytes are not what they claim to be). A path that cannot be opened is the usual `OSError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media import array, clips, dicom, image, sequence, series, sounds, video, volumes, zarr_folder
from multitok.frontend.media.geometry import VolumeInfo
from multitok.frontend.media.kinds import modalities_of, resolve
from multitok.frontend.media.options import ReadOptions
from multitok.frontend.media.source import Data, Limits, Source, as_source
from multitok.frontend.media.timing import num_resampled
from multitok.protocol import Modality, Waveform

Raw: TypeAlias = "str | NDArray[np.uint8] | NDArray[np.float32] | Waveform"
_Item = TypeVar("_Item")

DEFAULT_LIMITS = Limits()
DEFAULT_OPTIONS = ReadOptions()
_ARRAYS = ("npy", "npz")


@dataclass(frozen=True, eq=False)
class Record:
    """One item of a file, and what the file says of it besides.

    Args:
        id: Name of the record in its file; "" where a file is one item.
        modality: What it is.
        raw: As `Modality` lists them.
        place: Where a volume's voxels lie, and its window; None for other modalities.
        frame_rate_hz: Frames a second of a clip, on average; None where there are no times.
    """

    id: str
    modality: Modality
    raw: Raw
    place: VolumeInfo | None = None
    frame_rate_hz: Fraction | None = None


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Args:
        modality: What `read` gives.
        extent: Raw size along each grid axis of that modality: UTF-8 bytes of a text, letters of a sequence, frames
            of audio at the file's own rate, (rows, columns) and so on elsewhere.
        sample_rate_hz: Rate of audio; None elsewhere.
    """

    modality: Modality
    extent: tuple[int, ...]
    sample_rate_hz: int | None = None


def modality_of(name: str, data: Data | None = None, *, limits: Limits = DEFAULT_LIMITS) -> Modality | None:
    """What a file holds: by its extension, or by its first bytes too where `data` is given.

    The name alone cannot tell a still from an animation, nor a volume from a series in a `.npy`: it gives the likely
    one (`modalities_of` gives all). With `data` the answer is what `read` will return.

    Args:
        name: File name.
        data: The content, or the path to it.
        limits: How large the item may be.

    Returns:
        The modality; None where the extension is unknown and no data were given.

    Raises:
        InputError: `data` is empty or above a limit.
        MediaError: `data` is not what it claims to be.
    """
    if data is None:
        return next(iter(modalities_of(name)), None)
    return next(_probe(as_source(data, name, limits), None, DEFAULT_OPTIONS))[1].modality


def is_item_folder(path: Path) -> bool:
    """Whether a folder is one item: it holds DICOM slices, or a Zarr array or group."""
    return path.is_dir() and (zarr_folder.is_zarr_folder(path) or dicom.is_series_folder(path))


def probe(
    data: Data,
    name: str = "",
    *,
    modality: Modality | None = None,
    limits: Limits = DEFAULT_LIMITS,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> MediaInfo:
    """Modality, extent and sample rate of one item, without decoding it where its format allows.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.
        options: How it would be read.

    Returns:
        What `read` would give.

    Raises:
        InputError: Empty, above a limit, or of several records.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    source = as_source(data, name, limits)
    return _only(source.name, _probe(source, modality, options))[1]


def probe_records(
    data: Data,
    name: str = "",
    *,
    modality: Modality | None = None,
    limits: Limits = DEFAULT_LIMITS,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Iterator[tuple[str, MediaInfo]]:
    """Id and `probe` of every record of a file: many for FASTA, one with the id "" for other files.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.
        options: How it would be read.

    Yields:
        A record's id and what `records` would give.

    Raises:
        InputError: Empty or above a limit.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    yield from _probe(as_source(data, name, limits), modality, options)


def read(
    data: Data,
    name: str = "",
    *,
    modality: Modality | None = None,
    limits: Limits = DEFAULT_LIMITS,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Raw:
    """The one raw item of a file.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.
        options: Frame rate, window and the like.

    Returns:
        A raw item as `Modality` lists them.

    Raises:
        InputError: Empty, above a limit, of several records, or with values that cannot be tokenized.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    source = as_source(data, name, limits)
    return _only(source.name, _records(source, modality, options)).raw


def read_volume(
    data: Data, name: str = "", *, limits: Limits = DEFAULT_LIMITS, options: ReadOptions = DEFAULT_OPTIONS
) -> tuple[NDArray[np.float32], VolumeInfo]:
    """The one volume of a file, and where its voxels lie.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        limits: How large the item may be.
        options: Window, orientation and the like.

    Returns:
        [Z, Y, X] float32, and its place: what `write` takes to give a `.nii` the same place.

    Raises:
        InputError: As for `read`.
        MediaError: As for `read`.
        MissingExtraError: As for `read`.
    """
    source = as_source(data, name, limits)
    record = _only(source.name, _records(source, Modality.VOLUME, options))
    assert isinstance(record.raw, np.ndarray)
    assert record.place is not None
    return record.raw.astype(np.float32, copy=False), record.place


def records(
    data: Data,
    name: str = "",
    *,
    modality: Modality | None = None,
    limits: Limits = DEFAULT_LIMITS,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Iterator[tuple[str, Raw]]:
    """Id and raw item of every record of a file: many for FASTA, one with the id "" for other files.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.
        options: As in `read`.

    Yields:
        A record's id and its raw item.

    Raises:
        InputError: Empty, above a limit, or with values that cannot be tokenized.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    for record in _records(as_source(data, name, limits), modality, options):
        yield record.id, record.raw


def read_records(
    data: Data,
    name: str = "",
    *,
    modality: Modality | None = None,
    limits: Limits = DEFAULT_LIMITS,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Iterator[Record]:
    """Every record of a file with what the file says of it besides.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.
        options: As in `read`.

    Yields:
        The records.

    Raises:
        InputError: As for `records`.
        MediaError: As for `records`.
        MissingExtraError: As for `records`.
    """
    yield from _records(as_source(data, name, limits), modality, options)


def _records(source: Source, modality: Modality | None, options: ReadOptions) -> Iterator[Record]:
    found, allowed = _resolve(source, modality)
    if allowed[0] is Modality.SEQUENCE:
        for record_id, letters in sequence.decode_records(source):
            yield Record(record_id, Modality.SEQUENCE, letters)
    elif found == "dicom":
        for series_id, voxels, place in dicom.decode_series(source):
            yield Record(series_id, Modality.VOLUME, *volumes.finished(voxels, place, found, options))
    else:
        yield _decode(source, found, allowed, options)


def _resolve(source: Source, modality: Modality | None) -> tuple[str, tuple[Modality, ...]]:
    """Name of the format, and what the source may be read as."""
    if not source.is_folder:
        found, allowed = resolve(source.head(), source.name, modality)
        return found.name, allowed
    assert isinstance(source.data, Path)
    if modality not in (None, Modality.VOLUME) or not is_item_folder(source.data):
        raise MediaError(
            f"{source.name}: a folder is read as a volume where it holds DICOM slices or a Zarr array; give its files "
            "one by one, or use prepare(), which takes folders of files"
        )
    return "zarr" if zarr_folder.is_zarr_folder(source.data) else "dicom", (Modality.VOLUME,)


def _decode(source: Source, found: str, allowed: tuple[Modality, ...], options: ReadOptions) -> Record:
    if found in _ARRAYS:
        chosen, item = array.decode_array(source, found, allowed)
        if chosen is Modality.VOLUME:
            voxels = item.astype(np.float32, copy=False)
            return Record("", chosen, *volumes.finished(voxels, VolumeInfo(), found, options))
        return Record("", chosen, item)
    if Modality.TEXT in allowed:
        return Record("", Modality.TEXT, source.read_text())
    if Modality.SERIES in allowed:
        return Record("", Modality.SERIES, series.decode_table(source))
    if allowed[0] is Modality.AUDIO:
        return Record("", Modality.AUDIO, sounds.decode_audio(source, found))
    if allowed == (Modality.VOLUME,):
        return Record("", Modality.VOLUME, *volumes.decode(source, found, options))
    if found in clips.PICTURES:
        picture = image.decode_picture(source, found, allowed, options.frame)
        if picture is not None:
            return Record("", Modality.IMAGE, picture)
    clip = clips.whole_clip(source, found, options.fps)
    return Record("", Modality.VIDEO, clip.pixels, frame_rate_hz=clip.frame_rate_hz)


def _probe(source: Source, modality: Modality | None, options: ReadOptions) -> Iterator[tuple[str, MediaInfo]]:
    found, allowed = _resolve(source, modality)
    if allowed[0] is Modality.SEQUENCE:
        for record_id, letters in sequence.decode_records(source):
            yield record_id, MediaInfo(Modality.SEQUENCE, (len(letters),))
    elif found == "dicom":
        for series_id, shape, place in dicom.read_headers(source):
            yield series_id, MediaInfo(Modality.VOLUME, volumes.turned_shape(shape, place, options))
    else:
        yield "", _probe_one(source, found, allowed, options)


def _probe_one(source: Source, found: str, allowed: tuple[Modality, ...], options: ReadOptions) -> MediaInfo:
    if found in _ARRAYS:
        return MediaInfo(*array.read_header(source, found, allowed))
    if Modality.TEXT in allowed:
        return MediaInfo(Modality.TEXT, (len(source.read_text().encode()),))
    if Modality.SERIES in allowed:
        rows, channels = series.decode_table(source).shape
        return MediaInfo(Modality.SERIES, (rows, channels))
    if allowed[0] is Modality.AUDIO:
        num_frames, sample_rate_hz = sounds.read_header(source, found)
        return MediaInfo(Modality.AUDIO, (num_frames,), sample_rate_hz)
    if found in volumes.FORMATS:
        return MediaInfo(Modality.VOLUME, volumes.read_header(source, found, options))
    if found not in clips.PICTURES:
        return MediaInfo(Modality.VIDEO, video.read_header(source, found, options.fps))
    picture = image.read_header(source, found)
    chosen = image.chosen_modality(picture.num_frames, allowed)
    size = (picture.height, picture.width)
    if chosen is Modality.IMAGE or (options.frame is not None and Modality.IMAGE in allowed):
        return MediaInfo(Modality.IMAGE, size)
    num_frames = picture.num_frames
    if chosen is Modality.VIDEO and options.fps is not None:
        duration = sum((frame.duration for frame in image.shown_frames(source, found)), Fraction(0))
        num_frames = num_resampled(duration, options.fps)
    return MediaInfo(chosen, (num_frames, *size))


def _only(name: str, items: Iterator[_Item]) -> _Item:
    first = next(items)
    if next(items, None) is not None:
        raise InputError(f"{name}: holds several records; take them one by one with records()")
    return first
