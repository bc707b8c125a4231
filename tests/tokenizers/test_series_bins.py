"""Series codes against a slow reference; the stated error bound for any float32; gaps, flat windows, extremes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multitok.errors import InputError, ShapeError, SpecError
from multitok.protocol import Codes
from multitok.tokenizers.series_bins import MISSING, SCALE_SIZE, SeriesBins

FLOAT32_MAX = np.finfo(np.float32).max
SERIES = SeriesBins()
# A scale is at most 5/4 of what is needed, an error at most half a bin, of which a scale has 127.
BIN_BOUND = Fraction(5, 4) / 254

any_float = st.floats(width=32, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38])
near_float = st.floats(299.984375, 300.015625, width=32)


def series(elements: st.SearchStrategy[float], max_rows: int = 40) -> st.SearchStrategy[Any]:
    shape = st.tuples(st.integers(1, max_rows), st.integers(1, 3))
    return hnp.arrays(np.float32, shape, elements=elements)


def windows(raw: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Window index, channel and values of each window."""
    return [
        (start // 16, channel, raw[start : start + 16, channel])
        for start in range(0, len(raw), 16)
        for channel in range(raw.shape[1])
    ]


def slow_location(middle: float) -> Fraction:
    """The nearest number of 16 significant bits, straight from the definition, in exact arithmetic."""
    exact = abs(Fraction(float(np.float32(middle))))
    step = Fraction(2) ** -141
    while exact >= step * 2**16:
        step *= 2
    rounded = min((exact / step + Fraction(1, 2)).__floor__() * step, Fraction(2) ** 128 - Fraction(2) ** 112)
    return -rounded if middle < 0 else rounded


def slow_scale(width: Fraction) -> tuple[int, Fraction]:
    """Code and value of the first scale that is wide enough, tried from the smallest."""
    code, scale = 0, Fraction(0)
    while scale < width:
        code += 1
        octave, step = divmod(code - 1, 4)
        scale = Fraction(4 + step, 8) * Fraction(2) ** (octave - 148)
    return code, scale


@given(raw=series(any_float, max_rows=20) | series(near_float, max_rows=20))
@example(raw=np.array([[-1e-45], [1.0]], np.float32))
@settings(max_examples=60, deadline=None)
def test_codes_match_the_definition(raw: np.ndarray) -> None:
    codes = SERIES.encode(raw).values
    flat = codes.copy()
    flat[3:] = np.array([0] + [127] * 16)[:, None, None]
    locations = SERIES.decode(Codes(flat, (16 * flat.shape[1], flat.shape[2])))
    for t, c, values in windows(raw):
        present = [Fraction(float(v)) for v in values if not np.isnan(v)]
        middle = float(max(present) + min(present)) / 2 if present else 0.0
        location = slow_location(middle)
        # Differences are float64: exact, or rounded where magnitudes differ by more than its 53 bits.
        code, scale = slow_scale(max((Fraction(float(abs(v - location))) for v in present), default=Fraction(0)))
        assert Fraction(float(locations[16 * t, c])) == location
        assert codes[3, t, c] == code
        for i in range(16):
            if i >= len(values) or np.isnan(values[i]):
                assert codes[4 + i, t, c] == MISSING
            else:
                share = (Fraction(float(values[i])) - location) / scale if scale else Fraction(0)
                assert abs(codes[4 + i, t, c] - 127 - share * 127) <= Fraction(1, 2) + Fraction(1, 10**6)


@given(raw=series(any_float) | series(near_float))
@settings(max_examples=150, deadline=None)
def test_error_stays_within_the_stated_bound(raw: np.ndarray) -> None:
    codes = SERIES.encode(raw)
    SERIES.spec.check(codes)
    back = SERIES.decode(codes)
    assert (back.shape, back.dtype) == (raw.shape, np.float32)
    assert np.array_equal(np.isnan(back), np.isnan(raw))
    for t, c, values in windows(raw):
        present = ~np.isnan(values)
        if not present.any():
            continue
        found = back[16 * t : 16 * t + 16, c][present].astype(float)
        exact = values[present].astype(float)
        width, middle = exact.max() / 2 - exact.min() / 2, abs(exact.max() / 2 + exact.min() / 2)
        bound = float(BIN_BOUND) * (width + middle * 2**-16 + 2**-142)
        ulp = np.abs(exact).max() * 2**-23 + 2**-149
        assert np.abs(found - exact).max() <= bound + ulp


@given(raw=hnp.arrays(np.float32, (16, 1), elements=any_float))
@settings(max_examples=100, deadline=None)
def test_order_within_a_window_is_kept(raw: np.ndarray) -> None:
    back, order = SERIES.decode(SERIES.encode(raw))[:, 0], np.argsort(raw[:, 0])
    ordered = back[order][: int((~np.isnan(raw)).sum())]  # NaN sorts last
    assert (np.diff(ordered.astype(float)) >= 0).all()


@given(pair=st.tuples(any_float, any_float))
@settings(max_examples=200)
def test_location_rises_with_the_value(pair: tuple[float, float]) -> None:
    low, high = sorted(0.0 if np.isnan(v) else v for v in pair)
    codes = SERIES.encode(np.array([[low, high]], np.float32)).values[:3, 0]
    positions = codes[0].astype(int) * 2**16 + codes[1] * 2**8 + codes[2]
    assert positions[0] <= positions[1]
    if low < high * (1 - 2**-14) and high > 1e-30:
        assert positions[0] < positions[1]


def test_an_offset_does_not_cost_precision() -> None:
    ripple = 0.01 * np.sin(np.arange(160) / 3)
    raw = (300 + ripple).astype(np.float32)[:, None]
    assert np.abs(SERIES.decode(SERIES.encode(raw)) - raw).max() < 1.3e-4


@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), rows=st.integers(1, 40))
def test_flat_windows(value: float, rows: int) -> None:
    short = np.array([value], np.float32).view(np.uint32) & np.uint32(0xFFFFFF00)  # 16 significant bits
    raw = np.full((rows, 1), short.view(np.float32)[0])
    assert np.array_equal(SERIES.decode(SERIES.encode(raw)), raw)
    raw = np.full((rows, 1), value, np.float32)
    error = np.abs(SERIES.decode(SERIES.encode(raw)).astype(float) - value).max()
    assert error <= abs(value) * 2**-23 + 2**-149


def test_gaps_do_not_move_the_bins() -> None:
    full = np.random.default_rng(0).standard_normal((16, 1)).astype(np.float32)
    gaps = full.copy()
    kept = np.isin(full, [full.min(), full.max()])
    gaps[~kept] = np.nan
    codes, sparse = SERIES.encode(full).values, SERIES.encode(gaps).values
    assert np.array_equal(codes[:4], sparse[:4])
    assert np.array_equal(codes[4:][kept], sparse[4:][kept])
    assert (sparse[4:][~kept] == MISSING).all()


def test_a_window_of_gaps_only() -> None:
    raw = np.full((20, 2), np.nan, np.float32)
    codes = SERIES.encode(raw)
    assert codes.values[:4].reshape(4, -1).T.tolist() == [[128, 0, 0, 0]] * 4
    assert np.isnan(SERIES.decode(codes)).all()


def test_windows_and_channels_stand_for_themselves() -> None:
    raw = np.random.default_rng(0).standard_normal((50, 3)).cumsum(axis=0).astype(np.float32)
    codes = SERIES.encode(raw)
    assert codes.grid == (4, 3)
    for c in range(3):
        assert np.array_equal(SERIES.encode(raw[:, c : c + 1]).values[..., 0], codes.values[..., c])
    assert np.array_equal(SERIES.encode(raw[16:32]).values, codes.values[:, 1:2])
    assert np.array_equal(SERIES.encode(np.asfortranarray(raw)).values, codes.values)


@pytest.mark.parametrize("octaves", [-40, -1, 2, 60])
def test_another_unit_moves_the_scale_and_leaves_the_bins(octaves: int) -> None:
    raw = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    codes, other = SERIES.encode(raw).values, SERIES.encode(np.ldexp(raw, octaves)).values
    assert np.array_equal(codes[4:], other[4:])
    assert np.array_equal(codes[3] + 4 * octaves, other[3])


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_codes_decode_to_finite_values_and_gaps(data: st.DataObject) -> None:
    drawn = [
        data.draw(hnp.arrays(np.int32, (2, 1), elements=st.integers(0, s - 1))) for s in SERIES.spec.codebook_sizes
    ]
    values = np.stack(drawn)
    back = SERIES.decode(Codes(values, (32, 1)))
    missing = values[4:].transpose(1, 0, 2).reshape(32, 1) == MISSING
    assert np.array_equal(np.isnan(back), missing)
    assert np.isfinite(back[~missing]).all()


def test_the_widest_window_uses_the_last_scale() -> None:
    raw = np.array([[FLOAT32_MAX], [-FLOAT32_MAX]], np.float32)
    codes = SERIES.encode(raw)
    assert codes.values[3].item() == SCALE_SIZE - 1
    assert np.array_equal(SERIES.decode(codes), raw)


def test_real_series_beats_eight_bits_over_the_whole_channel() -> None:
    path = Path(__file__).parents[2] / "examples/data/series/walking.csv"
    raw = np.loadtxt(path, delimiter=",", skiprows=1).astype(np.float32)
    back = SERIES.decode(SERIES.encode(raw))
    step = (raw.max(axis=0) - raw.min(axis=0)) / 255
    uniform = np.rint((raw - raw.min(axis=0)) / step) * step + raw.min(axis=0)
    assert ((back - raw) ** 2).mean() < 0.2 * ((uniform - raw) ** 2).mean()


@pytest.mark.parametrize("window", [1, 5, 100])
def test_other_windows(window: int) -> None:
    tokenizer = SeriesBins(window=window)
    raw = np.random.default_rng(0).standard_normal((33, 2)).astype(np.float32)
    codes = tokenizer.encode(raw)
    assert codes.values.shape == (4 + window, -(-33 // window), 2)
    assert tokenizer.num_tokens((33, 2)) == codes.num_tokens
    assert np.abs(tokenizer.decode(codes) - raw).max() < 0.03


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        (np.zeros((0, 3), np.float32), InputError, "a series of 0 rows and 3 channels: there is nothing to encode"),
        (np.zeros((3, 0), np.float32), InputError, "a series of 3 rows and 0 channels: there is nothing to encode"),
        (np.array([[0, np.nan], [1, -np.inf]], np.float32), InputError, "row 1, column 1 is -inf: give finite values"),
        (np.zeros((3, 2)), ShapeError, r"given float64 of shape \[3, 2\]: .*; write x.astype\(np.float32\)"),
        (np.zeros(3, np.float32), ShapeError, r"given float32 of shape \[3\]: .*; for one channel write x\[:, None\]"),
        (np.zeros((1, 2, 3), np.float32), ShapeError, r"given float32 of shape \[1, 2, 3\]: give float32 \[rows, ch"),
        ([[1.0]], ShapeError, r"given list: give a NumPy array float32 \[rows, channels\]"),
    ],
)
def test_what_is_no_series_is_refused(raw: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SERIES.encode(raw)


def test_decode_refuses_a_grid_that_does_not_fit_the_extent() -> None:
    codes = SERIES.encode(np.zeros((20, 2), np.float32)).values
    for extent in [(33, 2), (16, 2), (20, 1)]:
        with pytest.raises(ShapeError, match=r"a grid of \[2, 2\] windows and channels for a series of"):
            SERIES.decode(Codes(codes, extent))


def test_a_window_below_one_is_refused() -> None:
    with pytest.raises(SpecError, match="window=0: give the rows of a window, 1 or more"):
        SeriesBins(window=0)
