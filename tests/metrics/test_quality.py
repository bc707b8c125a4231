"""PSNR, SSIM and MS-SSIM against their definitions, and against the mistakes that others made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError
from multitok.metrics import measure, ms_ssim, psnr, quality, ssim

PICTURES = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))


def noisy(shape: tuple[int, ...], noise: float, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Something smooth, and the same with noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 6, math.prod(shape)).reshape(shape)
    smooth = 127 + 90 * np.sin(ramp * 7) + rng.normal(0, 5, shape)
    return tuple(np.clip(np.rint(x), 0, 255).astype(np.uint8) for x in (smooth, smooth + rng.normal(0, noise, shape)))


def reference_psnr(original: NDArray[Any], decoded: NDArray[Any], peak: float) -> float:
    """One value after the other, in Python's own numbers."""
    pairs = zip(original.reshape(-1).tolist(), decoded.reshape(-1).tolist(), strict=True)
    error = math.fsum((a - b) ** 2 for a, b in pairs) / original.size
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def reference_ms_ssim(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """Wang et al. 2003 in float64 by scipy: Gaussian windows of 11 inside the picture, five scales, per channel."""
    from scipy.ndimage import gaussian_filter

    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    left, right = original.astype(np.float64), decoded.astype(np.float64)

    def mean(x: NDArray[Any]) -> NDArray[Any]:
        return gaussian_filter(x, 1.5, radius=5, axes=(0, 1))[5:-5, 5:-5]

    product = np.ones(3)
    for scale, weight in enumerate(weights):
        a, b = mean(left), mean(right)
        variances = mean(left**2) - a**2 + mean(right**2) - b**2
        structure = (2 * (mean(left * right) - a * b) + c2) / (variances + c2)
        luminance = (2 * a * b + c1) / (a**2 + b**2 + c1)
        product *= (luminance * structure if scale == 4 else structure).mean(axis=(0, 1)) ** weight
        if scale == 4:
            break
        left, right = (x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, 3).mean(axis=(1, 3)) for x in (left, right))
    return float(product.mean())


@settings(max_examples=60, deadline=None)
@given(original=PICTURES, data=st.data())
def test_psnr_is_its_definition(original: NDArray[np.uint8], data: st.DataObject) -> None:
    decoded = data.draw(arrays(np.uint8, original.shape))
    assert psnr(original, decoded) == pytest.approx(reference_psnr(original, decoded, 255), rel=1e-12)


def test_known_values() -> None:
    grey = np.full((9, 5, 3), 100, np.uint8)
    assert psnr(grey, grey + np.uint8(1)) == pytest.approx(20 * math.log10(255))
    assert psnr(grey, grey) == math.inf
    volume = np.zeros((2, 3, 4), np.float32)
    assert psnr(volume, volume + np.float32(0.5), peak=1.0) == pytest.approx(20 * math.log10(2))
    assert psnr(volume, volume + np.float32(0.5), peak=2000.0) == pytest.approx(20 * math.log10(4000))


def test_differences_of_uint8_do_not_wrap_around() -> None:
    # In uint8, 3 - 5 is 254 and 254 ** 2 is 4: a picture that is off by 2 everywhere, or upside down, looks good.
    original = np.full((16, 16, 3), 3, np.uint8)
    decoded = np.full((16, 16, 3), 5, np.uint8)
    assert psnr(original, decoded) == psnr(decoded, original) == pytest.approx(20 * math.log10(255 / 2))
    far = np.full((16, 16, 3), 255, np.uint8)
    assert psnr(np.zeros_like(far), far) == 0.0
    wrapped = np.square(original - far).astype(np.float64).mean()  # (3 - 255) wraps to 4, its square is 16
    assert 10 * math.log10(255**2 / wrapped) > 36
    assert psnr(original, far) < 1


def test_a_large_sum_of_squares_is_exact() -> None:
    black = np.zeros((1200, 1000, 3), np.uint8)  # 3.6 million squares of 255: beyond int32 and float32
    white = black + np.uint8(255)
    white[0, 0, 0] = 254
    expected = (255**2 * (black.size - 1) + 254**2) / black.size
    assert psnr(black, white) == 10 * math.log10(255**2 / expected)


def test_floats_are_rounded_and_clipped_before_they_meet_uint8() -> None:
    original = np.array([[[0, 100, 255]]], np.uint8)
    assert psnr(original, np.array([[[-30.0, 100.4, 260.0]]])) == math.inf
    assert psnr(original, np.array([[[0.0, 100.6, 255.0]]])) == psnr(original, np.array([[[0, 101, 255]]], np.uint8))


def test_ssim_is_scikit_images_and_of_a_clip_the_mean() -> None:
    from skimage.metrics import structural_similarity

    first, second = noisy((20, 31, 3), 10), noisy((20, 31, 3), 30, seed=1)
    wanted = [structural_similarity(a, b, channel_axis=2) for a, b in (first, second)]
    assert ssim(*first) == pytest.approx(wanted[0], rel=1e-12)
    clips = [np.stack(frames) for frames in zip(first, second, strict=True)]
    assert ssim(clips[0], clips[1]) == pytest.approx(sum(wanted) / 2, rel=1e-12)
    assert ssim(first[0], first[0]) == 1.0


@pytest.mark.parametrize("strip", [1, 31 * 3 * 4, 10**6])
def test_ssim_in_strips_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch, strip: int) -> None:
    from skimage.metrics import structural_similarity

    monkeypatch.setattr(quality, "_SSIM_STRIP", strip)
    first, second = noisy((23, 31, 3), 20)
    assert ssim(first, second) == pytest.approx(structural_similarity(first, second, channel_axis=2), rel=1e-9)
    volumes = [x.reshape(3, 23, 31)[:, :9].repeat(4, axis=0).astype(np.float32) for x in (first, second)]
    wanted = structural_similarity(*volumes, data_range=200.0)
    assert ssim(*volumes, peak=200.0) == pytest.approx(float(wanted), rel=1e-4)


def test_ssim_of_a_volume_depends_on_its_peak_alone() -> None:
    rng = np.random.default_rng(0)
    volume = rng.random((9, 8, 10)).astype(np.float32)
    off = (volume + rng.normal(0, 0.1, volume.shape)).astype(np.float32)
    small = ssim(volume, off, peak=1.0)
    assert small is not None
    assert small < 0.99
    assert ssim(volume * 2000, off * 2000, peak=2000.0) == pytest.approx(small, rel=1e-5)


def test_ms_ssim_is_its_definition() -> None:
    original, decoded = noisy((192, 176, 3), 25)
    found = ms_ssim(original, decoded)
    assert found == pytest.approx(reference_ms_ssim(original, decoded), abs=2e-4)
    assert found is not None
    assert found < 0.99


def test_measures_that_need_more_pixels_are_none() -> None:
    quality = measure(*noisy((6, 40, 3), 10))
    assert quality.psnr_db > 0
    assert quality.ssim is None
    assert measure(*noisy((7, 7, 3), 10)).ssim is not None
    assert ms_ssim(*noisy((160, 200, 3), 10)) is None
    assert ms_ssim(*noisy((161, 161, 3), 10)) is not None


def test_the_foreground_leaves_out_the_air() -> None:
    volume = np.zeros((10, 10, 10), np.float32)
    volume[:5] = 0.5
    decoded = volume.copy()
    decoded[:5] += np.float32(0.1)
    quality = measure(volume, decoded, peak=1.0)
    assert quality.psnr_foreground_db == pytest.approx(20, abs=1e-4)
    assert quality.psnr_db == pytest.approx(20 + 10 * math.log10(2), abs=1e-4)
    shifted = measure(volume * 100 - 1000, decoded * 100 - 1000, peak=100.0, low=-1000.0)
    assert shifted.psnr_foreground_db == pytest.approx(20, abs=1e-2)
    assert measure(volume * 0, volume * 0, peak=1.0).psnr_foreground_db is None


@pytest.mark.parametrize(
    ("original", "decoded", "peak", "error", "words"),
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), None, ShapeError, "one shape"),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8), None, ShapeError, "hold something"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), None, ShapeError, r"\[H, W, 3\]"),
        (np.zeros((4, 4, 3), np.int32), np.zeros((4, 4, 3), np.int32), None, InputError, "original is int32"),
        (np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), np.nan), None, InputError, "decoded is float64"),
        (np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32), None, InputError, "peak=None"),
        (np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32), 0.0, InputError, "peak=0"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), 1.0, ShapeError, r"\[Z, Y, X\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    original: NDArray[Any], decoded: NDArray[Any], peak: float | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        measure(original, decoded, peak=peak)
