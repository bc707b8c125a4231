"""DICOM series that pydicom writes: order, place, scale, gaps, duplicates; and Zarr folders."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import zarr
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media import (
    Limits,
    ReadOptions,
    is_item_folder,
    probe,
    probe_records,
    read,
    read_records,
    read_volume,
    records,
)
from multitok.protocol import Modality

STORED = ReadOptions(window="stored", orientation="stored")
UPRIGHT = ReadOptions(window="stored")
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
TILTED = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def uid(*parts: object) -> str:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def pixels_of(z: int, shape: tuple[int, int] = (5, 6)) -> NDArray[np.int16]:
    return np.random.default_rng(z).integers(-500, 1500, shape).astype(np.int16)


def slice_of(
    z: int, *, series: str = "one", along: tuple[float, ...] = AXIAL, step: float = 2.5, **fields: Any
) -> Dataset:
    """Slice `z` of a series, at `z * step` along its normal."""
    pixels = fields.pop("pixels", pixels_of(z))
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(series, z, step)
    dataset.SeriesInstanceUID = uid(series)
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "CT", "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    normal = np.cross(along[:3], along[3:])
    dataset.ImageOrientationPatient = list(along)
    dataset.ImagePositionPatient = [float(value) for value in np.array([10.0, -20.0, 30.0]) + z * step * normal]
    dataset.PixelSpacing = [0.7, 0.5]
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000
    dataset.PixelData = pixels.tobytes()
    for key, value in fields.items():
        setattr(dataset, key, value)
    return dataset


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def folder(path: Path, slices: list[Dataset], order: list[int] | None = None) -> Path:
    """Files named so that their order says nothing."""
    path.mkdir()
    for index, dataset in enumerate(slices):
        name = f"IM{(order or list(range(len(slices))))[index]:04}"
        (path / name).write_bytes(encoded(dataset))
    return path


def expected(num_slices: int) -> NDArray[np.float32]:
    return np.stack([pixels_of(z) * 2.0 - 1000 for z in range(num_slices)]).astype(np.float32)


@pytest.mark.parametrize("along", [AXIAL, TILTED])
def test_a_series_is_sorted_by_position_scaled_and_placed(along: tuple[float, ...], tmp_path: Path) -> None:
    root = folder(tmp_path / "ct", [slice_of(z, along=along) for z in (3, 0, 4, 1, 2)])
    voxels, place = read_volume(root, options=STORED)
    assert np.array_equal(voxels, expected(5))
    assert place.spacing == pytest.approx((2.5, 0.7, 0.5))
    # A voxel's place by the standard's own formula (C.7.6.2.1-1), then from its axes to RAS.
    for z, y, x in ((0, 0, 0), (4, 2, 5), (1, 4, 0)):
        position = np.array([10.0, -20.0, 30.0]) + z * 2.5 * np.cross(along[:3], along[3:])
        patient = position + np.array(along[:3]) * 0.5 * x + np.array(along[3:]) * 0.7 * y
        world = (np.array(place.affine) @ [x, y, z, 1])[:3]
        assert np.allclose(world, patient * [-1, -1, 1])
    turned, upright = read_volume(root, options=UPRIGHT)
    assert upright.axes == "RAS"
    assert np.array_equal(np.sort(turned.ravel()), np.sort(voxels.ravel()))
    if along == AXIAL:
        assert place.stored_axes == "LPS"
        assert np.array_equal(turned, voxels[:, ::-1, ::-1])
    assert probe(root).extent == turned.shape
    assert probe(root, options=STORED).extent == voxels.shape
    assert is_item_folder(root)


def test_one_file_is_a_slice_and_a_window_is_in_hounsfield_units() -> None:
    data = encoded(slice_of(0, SliceThickness=4))
    voxels, place = read_volume(data, "a.dcm", options=STORED)
    assert np.array_equal(voxels, expected(1))
    assert place.spacing == pytest.approx((4.0, 0.7, 0.5))
    from multitok.frontend.media import Window

    seen = read(data, "a.dcm", options=ReadOptions(window=Window(-160, 240), orientation="stored"))
    assert np.allclose(seen, np.clip((expected(1) + 160) / 400, 0, 1), atol=1e-6)


def test_a_tilted_gantry_is_shear_in_the_affine(tmp_path: Path) -> None:
    slices = [slice_of(z) for z in range(4)]
    for z, dataset in enumerate(slices):
        dataset.ImagePositionPatient = [0.0, 1.5 * z, 2.5 * z]
    _, place = read_volume(folder(tmp_path / "ct", slices), options=STORED)
    assert np.allclose(np.array(place.affine)[:3, 2], [0, -1.5, 2.5])


def test_gaps_and_uneven_steps_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "gap", [slice_of(z) for z in (0, 1, 2, 4, 5)])
    for function in (read, probe):
        with pytest.raises(
            InputError, match=r"^gap: 1 missing between 35 mm and 40 mm .*usual step is 2\.5 mm \(1 such"
        ):
            function(root)
    uneven = [slice_of(z) for z in range(5)]
    uneven[4].ImagePositionPatient = [10.0, -20.0, 30.0 + 4 * 2.5 + 0.4]
    with pytest.raises(InputError, match="unevenly spaced"):
        read(folder(tmp_path / "uneven", uneven))


def test_duplicates(tmp_path: Path) -> None:
    root = folder(tmp_path / "twice", [slice_of(z) for z in (0, 1, 2, 1)])
    voxels, place = read_volume(root, options=STORED)
    assert np.array_equal(voxels, expected(3))
    assert place.notes == ("IM0003 repeats IM0001",)
    phases = [slice_of(z) for z in range(3)] + [slice_of(z, SOPInstanceUID=uid("second", z)) for z in range(3)]
    with pytest.raises(InputError, match=r"lie at one position .*several phases or echoes"):
        read(folder(tmp_path / "phases", phases))
    other = slice_of(1, pixels=pixels_of(9))
    with pytest.raises(MediaError, match=r"IM0001 and IM0003 are one slice .* with other content"):
        read(folder(tmp_path / "other", [*(slice_of(z) for z in range(3)), other]))


def test_several_series_are_several_records(tmp_path: Path) -> None:
    slices = [slice_of(z, series=series) for series in ("one", "two") for z in range(3)]
    root = folder(tmp_path / "study", slices)
    (root / "notes.txt").write_text("not a slice")
    found = dict(records(root, options=STORED))
    assert set(found) == {uid("one"), uid("two")}
    assert all(np.array_equal(volume, expected(3)) for volume in found.values())
    assert {key: info.extent for key, info in probe_records(root)} == dict.fromkeys(found, (3, 5, 6))
    with pytest.raises(InputError, match="several records"):
        read(root)


def test_frames_of_one_file_are_sorted_by_their_own_positions() -> None:
    dataset = slice_of(0, NumberOfFrames=3)
    order = [2, 0, 1]
    dataset.PixelData = b"".join(pixels_of(z).tobytes() for z in order)
    shared, per_frame = Dataset(), []
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationPatient = [0.7, 0.5], list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    for z in order:
        group, position, transform = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0.0, 0.0, 2.5 * z]
        transform.RescaleSlope, transform.RescaleIntercept = 2, -1000
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transform]
        per_frame.append(group)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], per_frame
    for key in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, key)
    voxels, place = read_volume(encoded(dataset), "a.dcm", options=STORED)
    assert np.array_equal(voxels, expected(3))
    assert place.spacing == pytest.approx((2.5, 0.7, 0.5))
    film = slice_of(0, NumberOfFrames=2, PixelData=pixels_of(0).tobytes() * 2)
    with pytest.raises(MediaError, match="a film, not a volume"):
        read(encoded(film), "a.dcm")


def test_what_is_refused(tmp_path: Path) -> None:
    colour = slice_of(0, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    with pytest.raises(MediaError, match="has colours"):
        read(encoded(colour), "a.dcm")
    empty = slice_of(0)
    del empty.PixelData
    with pytest.raises(MediaError, match="and has none"):
        read(encoded(empty), "a.dcm")
    with pytest.raises(MediaError, match=r"^a.dcm: .*DICOM file"):
        read(encoded(slice_of(0))[:-20], "a.dcm")
    mixed = [slice_of(0), slice_of(1), slice_of(2, pixels=pixels_of(2, (7, 6)))]
    with pytest.raises(MediaError, match=r"slices of several kinds .*6 x 5 .*6 x 7"):
        read(folder(tmp_path / "mixed", mixed))
    with pytest.raises(InputError, match="max_bytes=100"):
        read(folder(tmp_path / "large", [slice_of(0)]), limits=Limits(max_bytes=100))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.txt").write_text("x")
    with pytest.raises(MediaError, match="a folder is read as a volume where it holds DICOM slices or a Zarr array"):
        read(plain)
    assert not is_item_folder(plain)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = encoded(slice_of(0))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'multitok\[volume\]'"):
        read(data, "a.dcm")
    zarr.save_array(str(tmp_path / "a.zarr"), np.zeros((2, 3, 4)))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'multitok\[volume\]'"):
        read(tmp_path / "a.zarr")


def cube() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((7, 8, 9)).astype(np.float32)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "i2", "u1", "f8"])
def test_zarr_arrays(version: int, dtype: str, tmp_path: Path) -> None:
    values = (cube() * 50).astype(dtype)
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(7, 8, 9), chunks=(4, 4, 4), dtype=dtype, zarr_format=version
    )
    array[:] = values
    assert np.array_equal(read(tmp_path / "a.zarr"), values.astype(np.float32))
    assert probe(tmp_path / "a.zarr").extent == (7, 8, 9)
    assert probe(tmp_path / "a.zarr").modality is Modality.VOLUME


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_gives_the_finest_level_and_its_place(version: int, tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    for level in range(2):
        data = cube()[None, None, :: 2**level]
        group.create_array(f"{level}", shape=data.shape, dtype="f4", chunks=data.shape)[:] = data
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    steps = [
        {"type": "scale", "scale": [1, 1, 5.0, 2.0, 1.0]},
        {"type": "translation", "translation": [0, 0, 10, 20, 30]},
    ]
    scales = [
        {"axes": [{"name": "t"}, {"name": "c"}, *axes], "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    ]
    group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"version": "0.5", "multiscales": scales}})
    (record,) = read_records(tmp_path / "a.zarr")
    assert np.array_equal(record.raw, cube())  # type: ignore[arg-type]
    assert record.place is not None
    assert record.place.spacing == pytest.approx((5e-3, 2e-3, 1e-3))
    assert record.place.origin == pytest.approx((30e-3, 20e-3, 10e-3))


def test_zarr_that_is_no_volume(tmp_path: Path) -> None:
    zarr.save_array(str(tmp_path / "flat.zarr"), np.zeros((3, 4)))
    with pytest.raises(MediaError, match=r"shape \[3, 4\]"):
        read(tmp_path / "flat.zarr")
    zarr.save_array(str(tmp_path / "time.zarr"), np.zeros((2, 3, 4, 5)))
    with pytest.raises(MediaError, match="none but axes of size 1 before them"):
        read(tmp_path / "time.zarr")
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w").create_array("x", shape=(1, 1, 1), dtype="f4")
    with pytest.raises(MediaError, match=r"a Zarr group without OME multiscales \(x\)"):
        read(tmp_path / "group.zarr")
    array = zarr.create_array(str(tmp_path / "lost.zarr"), shape=(4, 4, 4), chunks=(4, 4, 4), dtype="f4")
    with pytest.raises(MediaError, match="none of the 1 chunks"):
        read(tmp_path / "lost.zarr")
    array[:] = np.nan
    with pytest.raises(InputError, match=r"voxel .* is nan"):
        read(tmp_path / "lost.zarr")
    array[:] = 1
    with pytest.raises(InputError, match="max_bytes=200"):
        read(tmp_path / "lost.zarr", limits=Limits(max_bytes=200))
    (tmp_path / "lost.zarr" / "zarr.json").write_text("{broken")
    with pytest.raises(MediaError, match="Zarr folder"):
        read(tmp_path / "lost.zarr")
