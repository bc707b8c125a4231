"""Files and bytes -> raw items, and their sizes without decoding them.

| function        | gives                                                        | reads            |
|-----------------|--------------------------------------------------------------|------------------|
| `modality_of`   | what a file holds, by its name alone or by name and content  | nothing / header |
| `probe`         | modality, extent and sample rate of one item                 | header           |
| `probe_records` | the same for every record of a file of sequences             | header / all     |
| `read`          | one raw item                                                 | all              |
| `records`       | every record of a file of sequences; one item of other files | all              |

Whatever is wrong with a file is an `InputError` (readable, but not to be tokenized: empty, NaN, too large) or a
`MediaError` (the bytes are not what they claim to be). A path that cannot be opened is the usual `OSError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend.media import array, audio, image, sequence, series, video, volume
from multitok.frontend.media.kinds import Format, modalities_of, resolve
from multitok.frontend.media.source import Data, Limits, Source, as_source
from multitok.protocol import Modality, Waveform

Raw: TypeAlias = "str | NDArray[np.uint8] | NDArray[np.float32] | Waveform"
_Item = TypeVar("_Item")
VolumeValues: TypeAlias = Literal["auto", "stored", "percentile"]

DEFAULT_LIMITS = Limits()
_PICTURES = ("png", "jpeg", "webp", "gif", "bmp", "tiff")


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
    return next(_probe(as_source(data, name, limits), None))[1].modality


def probe(
    data: Data, name: str = "", *, modality: Modality | None = None, limits: Limits = DEFAULT_LIMITS
) -> MediaInfo:
    """Modality, extent and sample rate of one item, without decoding it where its format allows.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.

    Returns:
        What `read` would give.

    Raises:
        InputError: Empty, above a limit, or of several records.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    source = as_source(data, name, limits)
    return _only(source.name, _probe(source, modality))


def probe_records(
    data: Data, name: str = "", *, modality: Modality | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[str, MediaInfo]]:
    """Id and `probe` of every record of a file: many for FASTA, one with the id "" for other files.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.

    Yields:
        A record's id and what `records` would give.

    Raises:
        InputError: Empty or above a limit.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    yield from _probe(as_source(data, name, limits), modality)


def read(
    data: Data,
    name: str = "",
    *,
    modality: Modality | None = None,
    limits: Limits = DEFAULT_LIMITS,
    volume_values: VolumeValues = "auto",
) -> Raw:
    """The one raw item of a file.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.
        volume_values: "stored" keeps a volume's values; "percentile" scales them to [0, 1] with `normalise_volume`;
            "auto" scales NIfTI and TIFF, whose units are arbitrary, and keeps arrays.

    Returns:
        A raw item as `Modality` lists them.

    Raises:
        InputError: Empty, above a limit, of several records, or with values that cannot be tokenized.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    source = as_source(data, name, limits)
    return _only(source.name, _records(source, modality, volume_values))


def records(
    data: Data,
    name: str = "",
    *,
    modality: Modality | None = None,
    limits: Limits = DEFAULT_LIMITS,
    volume_values: VolumeValues = "auto",
) -> Iterator[tuple[str, Raw]]:
    """Id and raw item of every record of a file: many for FASTA, one with the id "" for other files.

    Args:
        data: The content, or the path to it.
        name: File name; defaults to the path's.
        modality: What to read the file as; None leaves it to name and content.
        limits: How large the item may be.
        volume_values: As in `read`.

    Yields:
        A record's id and its raw item.

    Raises:
        InputError: Empty, above a limit, or with values that cannot be tokenized.
        MediaError: The bytes are not what they claim to be.
        MissingExtraError: The format needs a package that is not installed.
    """
    yield from _records(as_source(data, name, limits), modality, volume_values)


def _records(source: Source, modality: Modality | None, volume_values: VolumeValues) -> Iterator[tuple[str, Raw]]:
    found, allowed = resolve(source.head(), source.name, modality)
    if allowed[0] is Modality.SEQUENCE:
        yield from sequence.decode_records(source)
    else:
        yield "", _decode(source, found, allowed, volume_values)


def _decode(source: Source, found: Format, allowed: tuple[Modality, ...], volume_values: VolumeValues) -> Raw:
    if found.name in ("npy", "npz"):
        chosen, item = array.decode_array(source, found.name, allowed)
        scale = chosen is Modality.VOLUME and volume_values == "percentile"
        return volume.normalise_volume(item.astype(np.float32)) if scale else item
    if Modality.TEXT in allowed:
        return source.read_text()
    if Modality.SERIES in allowed:
        return series.decode_table(source)
    if Modality.AUDIO in allowed:
        return audio.decode_audio(source, found.name)
    if found.name == "nifti" or allowed == (Modality.VOLUME,):
        if found.name == "nifti":
            voxels = volume.decode_nifti(source)
        else:
            voxels = volume.as_volume(source.name, image.decode_stack(source))
        return voxels if volume_values == "stored" else volume.normalise_volume(voxels)
    if found.name not in _PICTURES:
        return video.decode_video(source, found.name)
    return image.decode_picture(source, found.name, allowed)


def _probe(source: Source, modality: Modality | None) -> Iterator[tuple[str, MediaInfo]]:
    found, allowed = resolve(source.head(), source.name, modality)
    if allowed[0] is Modality.SEQUENCE:
        for record_id, letters in sequence.decode_records(source):
            yield record_id, MediaInfo(Modality.SEQUENCE, (len(letters),))
    else:
        yield "", _probe_one(source, found, allowed)


def _probe_one(source: Source, found: Format, allowed: tuple[Modality, ...]) -> MediaInfo:
    if found.name in ("npy", "npz"):
        return MediaInfo(*array.read_header(source, found.name, allowed))
    if Modality.TEXT in allowed:
        return MediaInfo(Modality.TEXT, (len(source.read_text().encode()),))
    if Modality.SERIES in allowed:
        rows, channels = series.decode_table(source).shape
        return MediaInfo(Modality.SERIES, (rows, channels))
    if Modality.AUDIO in allowed:
        num_frames, sample_rate_hz = audio.read_header(source, found.name)
        return MediaInfo(Modality.AUDIO, (num_frames,), sample_rate_hz)
    if found.name == "nifti":
        return MediaInfo(Modality.VOLUME, volume.read_header(source))
    if found.name not in _PICTURES:
        return MediaInfo(Modality.VIDEO, video.read_header(source, found.name))
    picture = image.read_header(source, found.name)
    chosen = image.chosen_modality(picture.num_frames, allowed)
    size = (picture.height, picture.width)
    return MediaInfo(chosen, size if chosen is Modality.IMAGE else (picture.num_frames, *size))


def _only(name: str, items: Iterator[tuple[str, _Item]]) -> _Item:
    first = next(items)[1]
    if next(items, None) is not None:
        raise InputError(f"{name}: holds several records; take them one by one with records()")
    return first
