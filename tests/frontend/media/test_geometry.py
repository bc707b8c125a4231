"""Where volumes lie: NIfTI against nibabel, the turn to RAS, windows, and what the writer gives back."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from multitok.errors import InputError, MediaError
from multitok.frontend.media import ReadOptions, VolumeInfo, Window, parse_window, probe, read_volume, write
from multitok.frontend.media.geometry import as_affine, to_ras
from multitok.frontend.media.nifti import encode_nifti
from multitok.protocol import Modality
from tests.frontend.media.samples import nifti, volume

STORED = ReadOptions(window="stored", orientation="stored")
UPRIGHT = ReadOptions(window="stored")
DTYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


def rotation(seed: int, largest: float) -> NDArray[np.float64]:
    """A rotation by at most `largest` radians about a random axis."""
    rng = np.random.default_rng(seed)
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = rng.uniform(-largest, largest)
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def affine(seed: int, order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1)) -> NDArray[np.float64]:
    """An oblique frame near the axes, permuted and mirrored, with unequal voxel sizes."""
    rng = np.random.default_rng(seed)
    turned = rotation(seed, 0.5) @ np.eye(3)[:, list(order)] * signs
    matrix = np.eye(4)
    matrix[:3, :3] = turned * rng.uniform(0.4, 3, 3)
    matrix[:3, 3] = rng.uniform(-100, 100, 3)
    return matrix


def values(seed: int = 0) -> NDArray[Any]:
    """[X, Y, Z], as nibabel orders axes."""
    return np.random.default_rng(seed).integers(0, 100, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nifti_of_both_versions_is_what_nibabel_reads(kind: Any, order: str, dtype: str) -> None:
    data = values().astype(dtype)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    image = kind(data, affine(3), header)
    image.header.set_slope_inter(0.5, -3.0)
    content = image.to_bytes()
    loaded = kind.from_bytes(content)
    for name, packed in (("a.nii", content), ("a.nii.gz", gzip.compress(content))):
        read, place = read_volume(packed, name, options=STORED)
        assert np.array_equal(read, loaded.get_fdata().T.astype(np.float32))
        assert np.allclose(place.affine, loaded.affine, atol=1e-6)
        assert probe(packed, name).extent == nibabel.as_closest_canonical(loaded).shape[::-1]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_the_turn_to_ras_is_nibabels(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    for seed in range(3):
        image = nibabel.Nifti1Image(values(seed), affine(seed, order, signs))
        canonical = nibabel.as_closest_canonical(image)
        turned, place = read_volume(image.to_bytes(), "a.nii", options=UPRIGHT)
        assert np.array_equal(turned, canonical.get_fdata().T)
        assert np.allclose(place.affine, canonical.affine, atol=1e-4)
        assert place.axes == "RAS"
        assert place.stored_axes == "".join(nibabel.aff2axcodes(image.affine))
        assert np.allclose(place.spacing, canonical.header.get_zooms()[::-1], atol=1e-5)
        assert np.allclose(place.origin, canonical.affine[:3, 3], atol=1e-4)


@given(st.integers(0, 10**6), st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_a_turn_moves_no_voxel(seed: int, order: list[int], signs: tuple[int, int, int]) -> None:
    matrix = affine(seed, tuple(order), signs)
    stored = np.arange(60).reshape(3, 4, 5)
    info = VolumeInfo(affine=as_affine(matrix), axes="LPS", stored_axes="LPS")
    turned, place = to_ras(stored, info)
    for z, y, x in np.ndindex(turned.shape):
        world = np.array(place.affine) @ [x, y, z, 1]
        back = np.linalg.inv(matrix) @ world
        i, j, k = np.rint(back[:3]).astype(int)
        assert np.abs(back[:3] - [i, j, k]).max() < 1e-6
        assert stored[k, j, i] == turned[z, y, x]
    assert (np.diag(np.array(place.affine)[:3, :3]) > 0).all()


def test_the_qform_counts_where_there_is_no_sform_and_without_either_nothing_is_turned() -> None:
    image = nibabel.Nifti1Image(values(), affine(5, (1, 0, 2), (1, -1, 1)))
    image.set_sform(None, code=0)
    image.set_qform(affine(5, (1, 0, 2), (1, -1, 1)), code=1, strip_shears=True)
    _, place = read_volume(image.to_bytes(), "a.nii", options=STORED)
    assert np.allclose(place.affine, nibabel.Nifti1Image.from_bytes(image.to_bytes()).affine, atol=1e-4)
    data = bytearray(nibabel.Nifti1Image(values(), np.diag([2.0, 3, 4, 1])).to_bytes())
    data[252:256] = bytes(4)  # both codes: of an unknown space
    unplaced, place = read_volume(bytes(data), "a.nii", options=UPRIGHT)
    assert (place.axes, place.stored_axes, place.spacing) == ("", "", (4.0, 3.0, 2.0))
    assert np.array_equal(unplaced, values().T)


def test_an_sform_that_places_nothing_is_noted_and_left_out() -> None:
    image = nibabel.Nifti1Image(values(), np.diag([-2.0, 2, 2, 1]))
    image.set_qform(image.affine, code=1)
    data = bytearray(image.to_bytes())
    data[280:328] = bytes(48)
    _, place = read_volume(bytes(data), "a.nii", options=STORED)
    assert place.stored_axes == "LAS"
    assert place.notes == ("the sform places no voxels and was left out",)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("mm", 1), ("micron", 0.001), ("unknown", 1)])
def test_units_become_millimetres(unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(values(), np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units(unit)
    _, place = read_volume(image.to_bytes(), "a.nii")
    assert np.allclose(place.spacing, [4 * factor, 3 * factor, 2 * factor])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_written_lies_where_it_lay_and_has_its_unit(name: str, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(values(), affine(8, (2, 0, 1), (-1, 1, 1)))
    seen, place = read_volume(image.to_bytes(), "x.nii", options=ReadOptions(window=parse_window("0:200")))
    assert seen.max() < 0.5
    path = write(tmp_path / name, Modality.VOLUME, seen, place=place)
    loaded = nibabel.load(path)
    canonical = nibabel.as_closest_canonical(image)
    assert np.allclose(loaded.affine, canonical.affine, atol=1e-4)
    assert np.allclose(loaded.get_fdata(), canonical.get_fdata(), atol=1e-3)
    again, place_again = read_volume(path, options=UPRIGHT)
    assert np.allclose(place_again.affine, place.affine, atol=1e-4)
    assert np.allclose(again, canonical.get_fdata().T, atol=1e-3)


def test_a_long_axis_makes_it_nifti_2() -> None:
    long = np.zeros((1, 2, 40_000), np.float32)
    long[0, 1, 39_999] = 7
    data = encode_nifti(long, VolumeInfo())
    assert np.array_equal(nibabel.Nifti2Image.from_bytes(data).get_fdata().T, long)
    assert np.array_equal(read_volume(data, "a.nii", options=UPRIGHT)[0], long)


def test_info_survives_json() -> None:
    info = VolumeInfo(
        affine=as_affine(affine(1)), axes="RAS", stored_axes="LPS", window=(-1000.0, 400.5), notes=("a", "b")
    )
    assert VolumeInfo.from_json(json.loads(json.dumps(info.to_json()))) == info
    options = ReadOptions(fps="30000/1001", frame=2, window=Window(1, 99, percent=True), mesh_resolution=32)  # type: ignore[arg-type]
    assert ReadOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert ReadOptions.from_json(json.loads(json.dumps(ReadOptions().to_json()))) == ReadOptions()


def test_windows() -> None:
    data = nifti(volume())
    for text, low, high in (("20:60", 20.0, 60.0), ("-50:500", -50.0, 500.0), ("10%:90%", 11.9, 107.1)):
        seen, place = read_volume(data, "a.nii", options=ReadOptions(window=parse_window(text)))
        assert np.abs(seen - np.clip((volume() - low) / (high - low), 0, 1)).max() < 1e-6
        assert place.window == pytest.approx((low, high))
    _, place = read_volume(data, "a.nii")
    assert place.window == pytest.approx((0.0, np.percentile(volume(), 99.5)))
    assert read_volume(data, "a.nii", options=UPRIGHT)[1].window is None
    assert str(parse_window("1%:99%")) == "1%:99%"


@pytest.mark.parametrize("text", ["", "5", "5:", "9:3", "3:3", "1%:9", "-1%:50%", "0%:101%", "a:b", "nan:1", "0:inf"])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(InputError, match="window"):
        parse_window(text)


@pytest.mark.parametrize(
    "field", [{"orientation": "LPS"}, {"mesh_resolution": 0}, {"mesh_fill": "full"}, {"frame": -1}, {"window": "ct"}]
)
def test_what_is_no_option(field: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(field))):
        ReadOptions(**field)


def imagej(num_pages: int, description: str) -> bytes:
    pages = [Image.fromarray(page) for page in volume()[:num_pages]]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = description
    tags[282] = tags[283] = TiffImagePlugin.IFDRational(4, 1)
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], tiffinfo=tags)
    return buffer.getvalue()


def test_voxel_sizes_of_imagej() -> None:
    data = imagej(4, "ImageJ=1.53\nimages=4\nslices=4\nspacing=2.5\nunit=micron\n")
    stack = Modality.VOLUME
    assert probe(data, "a.tif", modality=stack).extent == (4, 5, 6)
    voxels, place = read_volume(data, "a.tif", options=UPRIGHT)
    assert np.array_equal(voxels, volume())
    assert place.spacing == pytest.approx((2.5e-3, 0.25e-3, 0.25e-3))
    with pytest.raises(MediaError, match="ImageJ announces 90 slices, the file has 4 pages"):
        read_volume(imagej(4, "ImageJ=1.53\nimages=90\n"), "a.tif")
    damaged = imagej(4, "ImageJ=1.53\nimages=4\nspacing=wide\n")
    assert read_volume(damaged, "a.tif")[1].notes == ("the voxel sizes that ImageJ wrote are damaged",)
    assert read_volume(imagej(4, "a title"), "a.tif")[1].spacing == (1.0, 1.0, 1.0)


def test_nan_voxels_are_named_and_counted() -> None:
    bad = volume()
    bad[0, 0, :3] = np.nan
    with pytest.raises(
        InputError, match=r"voxel \[0, 0, 0\] is nan, not a finite float32; 3 of 120 are not: replace them"
    ):
        read_volume(nifti(bad), "a.nii")
