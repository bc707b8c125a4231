"""How near a decoded item is to its original: PSNR, SSIM, MS-SSIM.

| original              | taken as                                             | peak          |
|-----------------------|------------------------------------------------------|---------------|
| uint8 [H, W, 3]       | a picture                                            | 255           |
| uint8 [T, H, W, 3]    | a clip: PSNR over all of it, SSIM the mean of frames | 255           |
| float32 [Z, Y, X]     | a volume: SSIM in three dimensions                   | to be given   |

A decoded array of floats is rounded and clipped to uint8 before it is compared with uint8, for that is what a viewer
sees. Squared errors are summed in integers (uint8) or float64: a difference of uint8 that stays uint8 wraps around,
3 - 5 = 254, and squares of it wrap again, which makes bad pictures look good.

SSIM is scikit-image's with its defaults (windows of 7 with equal weights, each channel by itself, on values 0 to
peak); MS-SSIM is pytorch-msssim's (Gaussian windows of 11, five scales, each channel by itself). What is smaller than
the windows has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MissingExtraError, ShapeError
from multitok.protocol import Json

PEAK_UINT8 = 255.0
SSIM_WINDOW = 7
# Below or at this side the last of the five scales of MS-SSIM is narrower than its window of 11.
MS_SSIM_LARGEST_UNDEFINED_SIDE = 160
# Above so many pixels MS-SSIM would take gigabytes.
MS_SSIM_MOST_PIXELS = 2**24
# Frames of a clip that MS-SSIM looks at, evenly spaced: it costs more than all else together.
MS_SSIM_FRAMES = 8
# Voxels above this share of the peak are foreground: not the air around a head, which is most of a scan, and easy.
FOREGROUND_SHARE = 0.05
# Values compared at once; bounds the copies, not the result.
_BLOCK, _SSIM_STRIP = 2**20, 2**22


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one decoded item; None where one is not defined.

    Args:
        psnr_db: Peak signal-to-noise ratio; infinite where nothing differs.
        ssim: Structural similarity, 1 where nothing differs.
        ms_ssim: The same over five scales; pictures and clips with sides above 160 and at most 2^24 pixels.
        psnr_foreground_db: PSNR over the voxels above 5% of the peak; volumes only.
    """

    psnr_db: float
    ssim: float | None = None
    ms_ssim: float | None = None
    psnr_foreground_db: float | None = None

    def to_json(self) -> dict[str, Json]:
        """The measures as JSON values."""
        return {
            "psnr_db": as_json(self.psnr_db),
            "ssim": as_json(self.ssim),
            "ms_ssim": as_json(self.ms_ssim),
            "psnr_foreground_db": as_json(self.psnr_foreground_db),
        }


def as_json(value: float | None) -> Json:
    """A measure as JSON: JSON has no infinity, so that of an error-free item is the word "inf"."""
    return "inf" if value is not None and math.isinf(value) else value


def measure(original: NDArray[Any], decoded: NDArray[Any], *, peak: float | None = None, low: float = 0.0) -> Quality:
    """All measures of one decoded item.

    Args:
        original: uint8 [H, W, 3] or [T, H, W, 3], or float [Z, Y, X].
        decoded: The same shape.
        peak: Range of a volume's values; uint8 has 255.
        low: Least value of a volume's range; the foreground lies above `low + 0.05 * peak`.

    Returns:
        What is defined for items of this shape.

    Raises:
        ShapeError: The shapes differ, or are none of the above.
        InputError: A value is not finite, or a volume comes without a peak.
        MissingExtraError: scikit-image or pytorch-msssim is not installed.
    """
    original, decoded, peak = _comparable(original, decoded, peak)
    foreground = None
    if original.dtype != np.uint8:
        inside = original > low + FOREGROUND_SHARE * peak
        if inside.any():
            foreground = _psnr(original[inside], decoded[inside], peak)
    return Quality(
        psnr_db=_psnr(original, decoded, peak),
        ssim=_ssim(original, decoded, peak),
        ms_ssim=_ms_ssim(original, decoded),
        psnr_foreground_db=foreground,
    )


def psnr(original: NDArray[Any], decoded: NDArray[Any], *, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all values.

    Args:
        original: As for `measure`.
        decoded: The same shape.
        peak: As for `measure`.

    Returns:
        10 log10(peak^2 / mean squared error); infinite where nothing differs.

    Raises:
        ShapeError: As for `measure`.
        InputError: As for `measure`.
    """
    return _psnr(*_comparable(original, decoded, peak))


def ssim(original: NDArray[Any], decoded: NDArray[Any], *, peak: float | None = None) -> float | None:
    """Structural similarity; of a clip the mean over its frames, of a volume in three dimensions.

    Args:
        original: As for `measure`.
        decoded: The same shape.
        peak: As for `measure`.

    Returns:
        At most 1; None where a side is below 7.

    Raises:
        ShapeError: As for `measure`.
        InputError: As for `measure`.
        MissingExtraError: scikit-image is not installed.

    Source:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    return _ssim(*_comparable(original, decoded, peak))


def ms_ssim(original: NDArray[Any], decoded: NDArray[Any]) -> float | None:
    """Multi-scale structural similarity; of a clip the mean over its frames, at most 8 of them.

    Args:
        original: uint8 [H, W, 3] or [T, H, W, 3].
        decoded: The same shape.

    Returns:
        At most 1; None where a side is at most 160, above 2^24 pixels, and for volumes.

    Raises:
        ShapeError: As for `measure`.
        InputError: As for `measure`.
        MissingExtraError: pytorch-msssim is not installed.

    Source:
        Wang et al. 2003, "Multiscale structural similarity for image quality assessment".
    """
    original, decoded, _ = _comparable(original, decoded, PEAK_UINT8)
    return _ms_ssim(original, decoded)


def _comparable(
    original: NDArray[Any], decoded: NDArray[Any], peak: float | None
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Both as uint8, or both as they are; and the peak."""
    if original.shape != decoded.shape or original.size == 0:
        raise ShapeError(
            f"original {list(original.shape)} and decoded {list(decoded.shape)}: "
            "give two arrays of one shape that hold something"
        )
    for name, array in (("original", original), ("decoded", decoded)):
        if array.dtype != np.uint8 and not (np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all()):
            raise InputError(f"{name} is {array.dtype}: give uint8, or floats that are all finite")
    if original.dtype == np.uint8:
        if original.ndim not in (3, 4) or original.shape[-1] != 3:
            raise ShapeError(f"uint8 {list(original.shape)}: give a picture [H, W, 3] or a clip [T, H, W, 3]")
        if decoded.dtype != np.uint8:
            decoded = np.clip(np.rint(decoded), 0, PEAK_UINT8).astype(np.uint8)
        return original, decoded, PEAK_UINT8
    if original.ndim != 3:
        raise ShapeError(f"{original.dtype} {list(original.shape)}: give a volume [Z, Y, X], or uint8 for pictures")
    if peak is None or not (math.isfinite(peak) and peak > 0):
        raise InputError(f"peak={peak}: a volume needs the range of its values, such as 1.0 for 0 to 1")
    return original, decoded.astype(original.dtype, copy=False), float(peak)


def _psnr(original: NDArray[Any], decoded: NDArray[Any], peak: float) -> float:
    error = _mean_squared_error(original.reshape(-1), decoded.reshape(-1))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _mean_squared_error(left: NDArray[Any], right: NDArray[Any]) -> float:
    # uint8 sums in int64 are exact; float64 partial sums are joined by fsum, so blocks do not show.
    wide = np.int64 if left.dtype == np.uint8 else np.float64
    sums = []
    for start in range(0, len(left), _BLOCK):
        block = slice(start, start + _BLOCK)
        difference = left[block].astype(wide) - right[block].astype(wide)
        sums.append(float(np.square(difference).sum()))
    return math.fsum(sums) / len(left)


def _ssim(original: NDArray[Any], decoded: NDArray[Any], peak: float) -> float | None:
    sides = original.shape[-3:-1] if original.dtype == np.uint8 else original.shape
    if min(sides) < SSIM_WINDOW:
        return None
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise _missing("SSIM", "scikit-image", error) from error

    def in_strips(left: NDArray[Any], right: NDArray[Any], channel_axis: int | None) -> float:
        # Each strip brings the rows that the windows of its own need, and structural_similarity leaves out the
        # windows that stick out: together the strips have every window of the whole once.
        reach, means, weights = SSIM_WINDOW - 1, [], []
        num_windows = len(left) - reach
        rows = max(1, _SSIM_STRIP // math.prod(left.shape[1:]))
        for start in range(0, num_windows, rows):
            strip = slice(start, min(start + rows, num_windows) + reach)
            weights.append(strip.stop - start - reach)
            means.append(structural_similarity(left[strip], right[strip], channel_axis=channel_axis, data_range=peak))
        return math.fsum(m * w for m, w in zip(means, weights, strict=True)) / num_windows

    if original.dtype != np.uint8:
        return in_strips(original, decoded, None)
    values = [in_strips(a, b, 2) for a, b in zip(_frames(original), _frames(decoded), strict=True)]
    return math.fsum(values) / len(values)


def _ms_ssim(original: NDArray[Any], decoded: NDArray[Any]) -> float | None:
    sides = original.shape[-3:-1]
    if original.dtype != np.uint8 or min(sides) <= MS_SSIM_LARGEST_UNDEFINED_SIDE:
        return None
    if math.prod(sides) > MS_SSIM_MOST_PIXELS:
        return None
    try:
        import pytorch_msssim
        import torch
    except ImportError as error:
        raise _missing("MS-SSIM", "pytorch-msssim", error) from error
    frames = _frames(original), _frames(decoded)
    chosen = np.unique(np.linspace(0, len(frames[0]) - 1, MS_SSIM_FRAMES).round().astype(int))
    values = []
    for a, b in zip(frames[0][chosen], frames[1][chosen], strict=True):
        left, right = (torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None] for x in (a, b))
        values.append(float(pytorch_msssim.ms_ssim(left, right, data_range=PEAK_UINT8)))
    return math.fsum(values) / len(values)


def _frames(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.ndim == 4 else pixels[None]


def _missing(what: str, package: str, error: ImportError) -> MissingExtraError:
    return MissingExtraError(f"{what} needs {package}: pip install 'multitok[eval]'", name=error.name)
