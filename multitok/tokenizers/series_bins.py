"""Series as bins: each window of each channel is a location, a scale, and its values as bins of that scale.

Shape letters: N rows (time steps), C channels, T windows, W rows in a window, K = 4 + W codebooks.

    window of one channel      codes [K]
    300.01 299.99 NaN ...  ->  location: 3 codes | scale: 1 code | value 0 | value 1 | missing | ... | value W - 1

    location  the middle of the window's range, rounded to 16 significant bits: the top 24 bits of a float32, in an
              order that rises with the value. The first code is the sign and the power of 4, the second divides
              that into 2 octaves of 128 even parts, the third each part into 256
    scale     the half width of the bins' range: 0, or m * 2^e with m of 4, 5, 6, 7 eighths, rounded up, so no value
              is ever clipped
    values    255 bins from location - scale to location + scale; code 255 is a missing value (NaN)

So any finite float32 has its codes, whatever the unit; nothing is fitted to data, and codes mean the same in every
series. A value comes back to within

    |error| <= 1.25 / 254 * (range / 2 + 2^-16 |middle|)    (and a unit in the last place of float32)

where range and middle are those of the value's own window: 0.25% of the range, and for a window far from zero no
worse than float32 itself. Flat windows of a value with 16 significant bits come back exactly, missing values always.
Rows past the end count as missing. Encode takes some 90 ns per value, decode 10.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec

LOCATION_CODES = 3
LOCATION_SIZE = 256
ZERO_LOCATION = 2**23  # locations below are negative
MAX_MAGNITUDE = 0x7F7FFF  # top 24 bits of the largest finite float32
MIN_EXPONENT = -148  # of frexp of the smallest float32 above 0, the smallest difference of two
MAX_EXPONENT = 129  # of 2^128, which bounds the difference of a float32 and a middle
STEPS_PER_OCTAVE = 4
SCALE_SIZE = 1 + STEPS_PER_OCTAVE * (MAX_EXPONENT - MIN_EXPONENT) + 1
HALF_BINS = 127
MISSING = 2 * HALF_BINS + 1
VALUE_SIZE = MISSING + 1
FLOAT32_MAX = float(np.finfo(np.float32).max)


class SeriesBins(TokenizerBase[NDArray[np.float32]]):
    """float32 [N, C], NaN for missing values, any N and C above 0 <-> location, scale and bins of each window.

    Args:
        name: Name inside a vocabulary.
        window: Rows in a window, W.

    Raises:
        SpecError: A window below 1.
    """

    def __init__(self, *, name: str = "series", window: int = 16) -> None:
        if window < 1:
            raise SpecError(f"window={window}: give the rows of a window, 1 or more")
        self._spec = TokenizerSpec(
            kind="series-bins",
            name=name,
            modality=Modality.SERIES,
            codebook_sizes=(LOCATION_SIZE,) * LOCATION_CODES + (SCALE_SIZE,) + (VALUE_SIZE,) * window,
            grid_axes=("t", "c"),
            stride=(window, 1),
        )

    @property
    def spec(self) -> TokenizerSpec:
        """4 + W codebooks over ("t", "c"), one window of one channel per grid position."""
        return self._spec

    def encode(self, raw: NDArray[np.float32], /) -> Codes:
        """Codes [K, T, C], T = ceil(N / W).

        Args:
            raw: [N, C] float32; NaN is a missing value.

        Returns:
            Codes with extent (N, C).

        Raises:
            ShapeError: Another dtype or rank.
            InputError: No row or no channel, or an infinite value.
        """
        _check_series(raw)
        window = self._spec.stride[0]
        num_rows, num_channels = raw.shape
        num_windows = -(-num_rows // window)
        rows = np.full((num_windows * window, num_channels), np.nan)  # no sum or difference overflows float64
        rows[:num_rows] = raw
        values = rows.reshape(num_windows, window, num_channels)
        missing = np.isnan(values)

        empty = missing.all(axis=1)
        low = np.where(empty, 0.0, np.fmin.reduce(values, axis=1))
        high = np.where(empty, 0.0, np.fmax.reduce(values, axis=1))
        location = _location_code((low + high) / 2)
        middle = _location(location)
        scale_code = _scale_code(np.maximum(high - middle, middle - low))
        scale = _scale(scale_code)

        share = np.where(missing, 0.0, values - middle[:, None]) / np.where(scale > 0, scale, 1.0)[:, None]
        bins = np.where(missing, MISSING, np.rint(share * HALF_BINS) + HALF_BINS)

        codes = np.empty((self._spec.num_codebooks, num_windows, num_channels), np.int32)
        codes[:LOCATION_CODES] = location >> 16, (location >> 8) & 0xFF, location & 0xFF
        codes[LOCATION_CODES] = scale_code
        codes[LOCATION_CODES + 1 :] = bins.transpose(1, 0, 2)
        return Codes(codes, (num_rows, num_channels))

    def decode(self, codes: Codes, /) -> NDArray[np.float32]:
        """The series that the codes stand for.

        Args:
            codes: [K, T, C] with extent (N, C), T = ceil(N / W).

        Returns:
            [N, C] float32, NaN where the value is missing, finite elsewhere, whatever the codes.

        Raises:
            ShapeError: The grid does not fit the extent, or the codes are not of this kind.
            CodeRangeError: A code lies outside its codebook.
        """
        self._spec.check(codes)
        window = self._spec.stride[0]
        num_rows, num_channels = codes.extent
        if codes.grid != (-(-num_rows // window), num_channels):
            raise ShapeError(
                f"a grid of {list(codes.grid)} windows and channels for a series of {num_rows} rows and "
                f"{num_channels} channels: give [{-(-num_rows // window)}, {num_channels}]"
            )
        coarse, fine, finest = codes.values[:LOCATION_CODES]
        middle = _location((coarse << 16) | (fine << 8) | finest)
        scale = _scale(codes.values[LOCATION_CODES])
        bins = codes.values[LOCATION_CODES + 1 :].transpose(1, 0, 2)
        values = middle[:, None] + scale[:, None] * ((bins - HALF_BINS) / HALF_BINS)
        values = np.where(bins == MISSING, np.nan, np.clip(values, -FLOAT32_MAX, FLOAT32_MAX))
        return values.reshape(-1, num_channels)[:num_rows].astype(np.float32)

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments."""
        return {"name": self._spec.name, "window": self._spec.stride[0]}


def _check_series(raw: NDArray[Any]) -> None:
    if not isinstance(raw, np.ndarray):
        raise ShapeError(f"given {type(raw).__name__}: give a NumPy array float32 [rows, channels]")
    if raw.dtype != np.float32 or raw.ndim != 2:
        hint = "; write x.astype(np.float32)" if raw.ndim == 2 else ""
        hint = "; for one channel write x[:, None]" if raw.ndim == 1 else hint
        raise ShapeError(f"given {raw.dtype} of shape {list(raw.shape)}: give float32 [rows, channels]{hint}")
    if raw.size == 0:
        raise InputError(
            f"a series of {raw.shape[0]} rows and {raw.shape[1]} channels: there is nothing to encode; leave it out"
        )
    if np.isinf(raw).any():
        row, column = np.argwhere(np.isinf(raw))[0].tolist()
        raise InputError(
            f"row {row}, column {column} is {raw[row, column]}: give finite values, or NaN where one is missing"
        )


def _location_code(middle: NDArray[np.float64]) -> NDArray[np.int32]:
    # 24 bits that rise with the value: a float32 rounded to its sign, exponent and 15 bits of mantissa.
    bits = middle.astype(np.float32).view(np.int32)
    magnitude = np.minimum(((bits & 0x7FFFFFFF) + 0x80) >> 8, MAX_MAGNITUDE)
    negative = (bits < 0) & (magnitude > 0)  # -0 is 0
    return np.asarray(np.where(negative, ZERO_LOCATION - 1 - magnitude, ZERO_LOCATION + magnitude), np.int32)


def _location(code: NDArray[np.int32]) -> NDArray[np.float64]:
    # The float32 that `_location_code` rounded to, exactly; the largest finite one for codes it never makes.
    negative = code < ZERO_LOCATION
    magnitude = np.minimum(np.where(negative, ZERO_LOCATION - 1 - code, code - ZERO_LOCATION), MAX_MAGNITUDE)
    value = (magnitude << 8).astype(np.int32).view(np.float32).astype(np.float64)
    return np.where(negative, -value, value)


def _scale_code(width: NDArray[np.float64]) -> NDArray[np.int32]:
    # 0 for 0, else the step at or just above `width`. Exact: frexp gives width = mantissa * 2^exponent,
    # 1/2 <= mantissa < 1, and 8 eighths are the 4 eighths of the next octave.
    mantissa, exponent = np.frexp(width)
    eighths = np.ceil(mantissa * 2 * STEPS_PER_OCTAVE).astype(np.int32)
    code = 1 + STEPS_PER_OCTAVE * (exponent - MIN_EXPONENT) + eighths - STEPS_PER_OCTAVE
    return np.where(width > 0, code, 0).astype(np.int32)


def _scale(code: NDArray[np.int32]) -> NDArray[np.float64]:
    octave, step = np.divmod(code - 1, STEPS_PER_OCTAVE)
    value = np.ldexp((step + STEPS_PER_OCTAVE) / (2 * STEPS_PER_OCTAVE), octave + MIN_EXPONENT)
    return np.where(code > 0, value, 0.0)
