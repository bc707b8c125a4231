"""DICOM by pydicom (`pip install 'multitok[volume]'`): the series of a folder, or one file -> volumes and their place.

A series is the slices of one SeriesInstanceUID, sorted along the normal of their planes by their positions, never by
names or instance numbers. Values are rescaled by slope and intercept, slice by slice (Hounsfield units for CT).
The affine is the planes' own, turned from DICOM's axes to RAS; a tilted gantry shows as shear in it.

| what                                              | outcome                                                    |
|---------------------------------------------------|------------------------------------------------------------|
| a slice twice, equal pixels                       | kept once, and noted                                       |
| other pixels at one position (phases, echoes)     | error                                                      |
| a slice is missing: a step twice the others       | error that names the positions                             |
| steps that differ by more than 1 %                | error                                                      |
| slices of other size, direction or pixel spacing  | error                                                      |
| one file of several frames                        | read by the frames' own positions                          |
| one file of one frame                             | a volume of one slice                                      |
| colour, no pixels, a compression without decoder  | error                                                      |
| files of a folder that are no DICOM, DICOMDIR     | passed over                                                |

MONOCHROME1 (low values are bright) keeps its values. Overlays and lookup tables are not applied.

Shape letters: Z slices, Y rows, X columns.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media.geometry import VolumeInfo, as_affine, axes_of, is_affine
from multitok.frontend.media.kinds import HEAD_BYTES, is_dicom, modalities_of
from multitok.frontend.media.source import Source, check_size, guarded
from multitok.frontend.media.volume import as_volume

_STEP_TOLERANCE = 0.01
_ANGLE_TOLERANCE = 1e-3
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Slice:
    """One plane: where it lies, and how to get at its values."""

    file: str
    data: Path | bytes
    frame: int
    num_frames: int
    shape: tuple[int, int]
    position: NDArray[np.float64]
    along: NDArray[np.float64]  # [2, 3]: directions of growing column and of growing row
    spacing: tuple[float, float]  # between rows, between columns
    thickness: float
    slope: float
    intercept: float


def is_slice(path: Path) -> bool:
    """Whether a file counts as a DICOM slice: by its ending, or by its first bytes where the ending says nothing."""
    if path.suffix.lower() == ".dcm":
        return True
    return not modalities_of(path.name) and is_dicom(_head(path))


def is_series_folder(path: Path) -> bool:
    """Whether a folder holds slices among its visible files."""
    return any(is_slice(file) for file in _files(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def read_headers(source: Source) -> Iterator[tuple[str, tuple[int, int, int], VolumeInfo]]:
    """Size and place of every series, without decoding a pixel.

    Args:
        source: A folder, or a file.

    Yields:
        The series' id ("" where it is the only one), Z, Y, X, and the place.

    Raises:
        InputError: No series, one with gaps, or a limit is exceeded.
        MediaError: Damaged, or nothing this reads.
        MissingExtraError: pydicom is not installed.
    """
    for series_id, slices, notes in _series(source):
        planes, info = _sorted(source, series_id, slices, notes)
        yield series_id, (len(planes), *planes[0].shape), info


def decode_series(source: Source) -> Iterator[tuple[str, NDArray[np.float32], VolumeInfo]]:
    """The volume of every series, as stored.

    Args:
        source: A folder, or a file.

    Yields:
        The series' id ("" where it is the only one), [Z, Y, X] float32, and where it lies.

    Raises:
        InputError: No series, one with gaps, or a limit is exceeded.
        MediaError: Damaged, or nothing this reads.
        MissingExtraError: pydicom is not installed.
    """
    for series_id, slices, notes in _series(source):
        planes, info = _sorted(source, series_id, slices, notes)
        volume = np.empty((len(planes), *planes[0].shape), np.float32)
        held: tuple[str | None, NDArray[Any]] = (None, np.empty(0))
        for z, plane in enumerate(planes):
            if held[0] != plane.file:
                held = (plane.file, _pixels(source, plane))
            stored = held[1][plane.frame].astype(np.float64) * plane.slope + plane.intercept
            volume[z] = stored
        yield series_id, as_volume(source.name, volume), info


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_file())


def _series(source: Source) -> Iterator[tuple[str, list[_Slice], list[str]]]:
    by_series: dict[str, list[_Slice]] = {}
    seen: dict[str, str] = {}
    notes: dict[str, list[str]] = {}
    num_bytes = 0
    for label, data in _contents(source):
        where = f"{source.name}/{label}" if label else source.name
        with guarded(where, "DICOM file"):
            dataset = _parsed(source.name, data, with_pixels=False)
            if "Rows" not in dataset:  # a DICOMDIR, a report, a plan
                continue
            uid, series = str(dataset.get("SOPInstanceUID", label)), str(dataset.get("SeriesInstanceUID", ""))
            if uid in seen:
                if _content(source, data) != _content(source, dict(_contents(source))[seen[uid]]):
                    raise MediaError(f"{source.name}: {seen[uid]} and {label} are one slice ({uid}) with other content")
                notes.setdefault(series, []).append(f"{label} repeats {seen[uid]}")
                continue
            seen[uid] = label
            by_series.setdefault(series, []).extend(_slices(where, label, data, dataset))
            num_bytes += data.stat().st_size if isinstance(data, Path) else len(data)
            check_size(source.name, "its files", num_bytes, source.limits)
    if not by_series:
        raise InputError(f"{source.name}: holds no DICOM slices")
    for series, slices in sorted(by_series.items()):
        yield series if len(by_series) > 1 else "", slices, notes.get(series, [])


def _contents(source: Source) -> Iterator[tuple[str, Path | bytes]]:
    if isinstance(source.data, Path) and source.data.is_dir():
        for path in _files(source.data):
            if is_slice(path):
                if not is_dicom(_head(path)):
                    raise MediaError(f"{source.name}/{path.name}: no DICOM file: DICM does not stand at its byte 128")
                yield path.name, path
    else:
        yield "", source.read()


def _content(source: Source, data: Path | bytes) -> bytes:
    return data.read_bytes() if isinstance(data, Path) else data


def _parsed(name: str, data: Path | bytes, *, with_pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError(
            f"{name}: DICOM needs pydicom: pip install 'multitok[volume]'", name="pydicom"
        ) from error
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    return pydicom.dcmread(file, stop_before_pixels=not with_pixels)


def _slices(where: str, label: str, data: Path | bytes, dataset: Any) -> Iterator[_Slice]:
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise MediaError(f"{where}: has colours ({dataset.get('PhotometricInterpretation')}); a volume is grey")
    num_frames = int(dataset.get("NumberOfFrames", 1) or 1)
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or [None] * num_frames
    if len(per_frame) != num_frames:
        raise MediaError(f"{where}: has {num_frames:,} frames, but places {len(per_frame):,}")
    for frame in range(num_frames):
        groups = [group for group in (per_frame[frame], shared) if group is not None]

        def value(sequence: str, keyword: str, groups: list[Any] = groups) -> Any:
            found = [_first(group, sequence) for group in groups]
            return next((item.get(keyword) for item in found if item is not None and keyword in item), None) or (
                dataset.get(keyword)
            )

        position = value("PlanePositionSequence", "ImagePositionPatient")
        along = value("PlaneOrientationSequence", "ImageOrientationPatient")
        if num_frames > 1 and (position is None or (shared is None and per_frame[0] is None)):
            raise MediaError(f"{where}: has {num_frames:,} frames without positions: a film, not a volume")
        spacing = value("PixelMeasuresSequence", "PixelSpacing")
        thickness = value("PixelMeasuresSequence", "SpacingBetweenSlices") or value(
            "PixelMeasuresSequence", "SliceThickness"
        )
        slope = value("PixelValueTransformationSequence", "RescaleSlope")
        yield _Slice(
            file=label,
            data=data,
            frame=frame,
            num_frames=num_frames,
            shape=(int(dataset.Rows), int(dataset.Columns)),
            position=np.array(position if position is not None else (0, 0, 0), np.float64),
            along=np.array(along if along is not None else (1, 0, 0, 0, 1, 0), np.float64).reshape(2, 3),
            spacing=(float(spacing[0]), float(spacing[1])) if spacing is not None else (1.0, 1.0),
            thickness=float(thickness or 1.0),
            slope=1.0 if slope is None else float(slope),
            intercept=float(value("PixelValueTransformationSequence", "RescaleIntercept") or 0.0),
        )


def _first(group: Any, keyword: str) -> Any:
    sequence = group.get(keyword)
    return sequence[0] if sequence else None


def _sorted(source: Source, series_id: str, slices: list[_Slice], notes: list[str]) -> tuple[list[_Slice], VolumeInfo]:
    """The slices in order of their positions, and the affine of the whole."""
    name = f"{source.name}, series {series_id}" if series_id else source.name
    first = slices[0]
    for each in slices:
        same = each.shape == first.shape and each.spacing == first.spacing
        if not same or np.abs(each.along - first.along).max() > _ANGLE_TOLERANCE:
            raise MediaError(
                f"{name}: slices of several kinds ({first.file or 'one'} is {first.shape[1]} x {first.shape[0]} along "
                f"{first.along.ravel().tolist()}, {each.file or 'another'} {each.shape[1]} x {each.shape[0]} along "
                f"{each.along.ravel().tolist()}): leave out what is no part of the volume"
            )
    check_size(name, f"{len(slices):,} slices", len(slices) * first.shape[0] * first.shape[1] * 4, source.limits)
    normal = np.cross(*first.along)
    planes = sorted(slices, key=lambda each: (float(each.position @ normal), each.file, each.frame))
    heights = np.array([float(each.position @ normal) for each in planes])
    steps = np.diff(heights)
    _check_steps(name, planes, heights, steps)
    affine = np.eye(4)
    affine[:3, 0] = first.along[0] * first.spacing[1]
    affine[:3, 1] = first.along[1] * first.spacing[0]
    many = len(planes) > 1
    affine[:3, 2] = (planes[-1].position - planes[0].position) / len(steps) if many else normal * first.thickness
    affine[:3, 3] = planes[0].position
    affine[:3] = _TO_RAS @ affine[:3]
    if not is_affine(affine):
        raise MediaError(f"{name}: its positions and directions place no voxels")
    placed = as_affine(affine)
    axes = axes_of(placed)
    return planes, VolumeInfo(affine=placed, axes=axes, stored_axes=axes, notes=tuple(notes))


def _check_steps(name: str, planes: list[_Slice], heights: NDArray[np.float64], steps: NDArray[np.float64]) -> None:
    if not len(steps):
        return
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # one that is there: of a step and a gap, the step
    together = np.flatnonzero(steps <= max(usual, 1e-6) * _STEP_TOLERANCE)
    if len(together):
        here = int(together[0])
        raise InputError(
            f"{name}: {planes[here].file or 'a frame'} and {planes[here + 1].file or 'a frame'} lie at one position "
            f"({heights[here]:g} mm along the normal): several phases or echoes; put each in a folder of its own"
        )
    uneven = np.flatnonzero(np.abs(steps - usual) > usual * _STEP_TOLERANCE)
    if len(uneven):
        here = int(uneven[0])
        missing = round(float(steps[here]) / usual) - 1
        what = f"{missing} missing" if missing > 0 else "slices are unevenly spaced"
        raise InputError(
            f"{name}: {what} between {heights[here]:g} mm and {heights[here + 1]:g} mm along the normal, where the "
            f"usual step is {usual:g} mm ({len(uneven)} such places): copy the missing files, or resample the series"
        )


def _pixels(source: Source, plane: _Slice) -> NDArray[Any]:
    """All frames of the file of a plane, [frames, Y, X], as stored."""
    label = f"{source.name}/{plane.file}" if plane.file else source.name
    with guarded(label, "DICOM file"):
        dataset = _parsed(source.name, plane.data, with_pixels=True)
        if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
            raise MediaError(f"{label}: announces {plane.shape[1]} x {plane.shape[0]} pixels and has none")
        pixels: NDArray[Any] = dataset.pixel_array
        return pixels.reshape(plane.num_frames, *plane.shape)
