"""NIfTI against an obvious reference, arrays by shape, and the scaling of volumes."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from multitok.errors import InputError
from multitok.frontend.media import ReadOptions, normalise_volume, parse_window, probe, read
from multitok.protocol import Modality
from tests.frontend.media.samples import encoded_image, nifti, npy, npz, picture, volume

STORED = ReadOptions(window="stored")
CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


def reference(data: bytes, dtype: str, order: str, x: int, y: int, z: int) -> np.ndarray[Any, Any]:
    """Voxel (x, y, z) lies at 352 + size (x + X (y + Y z)): the standard, one voxel at a time."""
    size = np.dtype(dtype).itemsize
    voxels = np.empty((z, y, x))
    for index in np.ndindex(z, y, x):
        start = 352 + size * (index[2] + x * (index[1] + y * index[0]))
        voxels[index] = np.frombuffer(data[start : start + size], order + dtype)[0]
    return voxels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", sorted(CODES))
def test_nifti_voxels(dtype: str, order: str) -> None:
    values = volume().astype(dtype)
    data = nifti(values, code=CODES[dtype], order=order)
    expected = reference(data, dtype, order, 6, 5, 4)
    assert np.array_equal(read(data, "a.nii", options=STORED), expected)
    assert np.array_equal(read(gzip.compress(data), "a.nii.gz", options=STORED), expected)
    assert probe(gzip.compress(data), "a.nii.gz").extent == (4, 5, 6)


def test_nifti_slope_and_intercept() -> None:
    data = nifti(volume().astype("i2"), code=4, slope=0.5, intercept=-10.0)
    assert np.array_equal(read(data, "a.nii", options=STORED), volume() * 0.5 - 10)
    unscaled = nifti(volume().astype("i2"), code=4, slope=0.0, intercept=-10.0)
    assert np.array_equal(read(unscaled, "a.nii", options=STORED), volume())


def test_pages_of_floats_are_scaled_and_checked_like_any_volume() -> None:
    pages = [Image.fromarray(page) for page in volume()]
    data = encoded_image(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert np.array_equal(read(data, "a.tif", modality=Modality.VOLUME), normalise_volume(volume()))
    pages[2] = Image.fromarray(np.full((5, 6), np.nan, np.float32))
    data = encoded_image(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"voxel \[2, 0, 0\] is nan"):
        read(data, "a.tif", modality=Modality.VOLUME)


def test_a_series_of_one_volume_is_a_volume() -> None:
    assert read(nifti(volume(), dim=(4, 6, 5, 4, 1, 1, 1, 1)), "a.nii").shape == (4, 5, 6)


def test_nifti_is_scaled_unless_asked_otherwise_and_arrays_are_not() -> None:
    scaled = read(nifti(volume()), "a.nii")
    assert np.array_equal(scaled, normalise_volume(volume()))
    assert scaled.min() == 0.0
    assert scaled.max() == 1.0
    assert np.array_equal(read(npy(volume()), "a.npy"), volume())
    assert np.array_equal(read(npy(volume()), "a.npy", options=ReadOptions(window=parse_window("0%:99.5%"))), scaled)


def test_normalise_is_the_percentile_formula() -> None:
    values = np.random.default_rng(0).gamma(2.0, 100.0, (10, 20, 30)).astype(np.float32)
    low, high = np.percentile(values.astype(np.float64), [0.0, 99.5])
    expected = np.clip((values - low) / (high - low), 0.0, 1.0)
    assert np.abs(normalise_volume(values) - expected).max() < 1e-6
    assert normalise_volume(values).dtype == np.float32


def test_normalise_keeps_a_few_bright_voxels_from_being_lost() -> None:
    values = np.zeros((10, 10, 10), np.float32)
    values[0, 0, 0] = 7.0  # below the 99.5th percentile everything is 0
    assert normalise_volume(values)[0, 0, 0] == 1.0
    assert not normalise_volume(np.full((2, 2, 2), 5.0, np.float32)).any()


@given(npst.arrays(np.float32, (3, 2, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_normalise_stays_in_range(values: np.ndarray[Any, Any]) -> None:
    scaled = normalise_volume(values)
    assert np.isfinite(scaled).all()
    assert scaled.min() >= 0.0
    assert scaled.max() <= 1.0


@pytest.mark.parametrize(
    ("array", "modality", "extent"),
    [
        (np.zeros(5, np.float64), Modality.SERIES, (5, 1)),
        (np.zeros((5, 2), np.int16), Modality.SERIES, (5, 2)),
        (np.zeros((2, 3, 4), np.uint8), Modality.VOLUME, (2, 3, 4)),
        (np.zeros((2, 3, 3), np.float32), Modality.VOLUME, (2, 3, 3)),
        (np.zeros((2, 3, 3), np.uint8), Modality.IMAGE, (2, 3)),
        (np.zeros((5, 2, 3, 3), np.uint8), Modality.VIDEO, (5, 2, 3)),
    ],
)
def test_arrays_by_shape(array: np.ndarray[Any, Any], modality: Modality, extent: tuple[int, ...]) -> None:
    info = probe(npy(array), "a.npy")
    assert (info.modality, info.extent) == (modality, extent)
    assert read(npy(array), "a.npy").shape[: len(extent)] == extent


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<i4", ">i2", "?"])
def test_array_values_survive_byte_order_memory_order_and_zip(dtype: str) -> None:
    values = volume().astype(dtype)
    expected = values.astype(np.float32)
    assert np.array_equal(read(npy(values), "a.npy"), expected)
    assert np.array_equal(read(npy(np.asfortranarray(values)), "a.npy"), expected)
    assert np.array_equal(read(npz(scan=values), "a.npz"), expected)


def test_a_series_keeps_its_gaps_and_an_image_its_memory_order() -> None:
    series = np.array([[1.0, np.nan], [np.nan, 2.0]])
    assert np.array_equal(read(npy(series), "a.npy"), series, equal_nan=True)
    image = read(npy(np.asfortranarray(picture())), "a.npy")
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.array_equal(image, picture())
