"""The residual quantiser against a loop over vectors, and the measures of use."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError
from multitok.quantize import ResidualQuantizer, perplexity, residual, usage


def make(sizes: tuple[int, ...] = (8, 5, 3), dim: int = 4) -> ResidualQuantizer:
    rng = np.random.default_rng(0)
    return ResidualQuantizer([rng.standard_normal((n, dim), dtype=np.float32) / 2**k for k, n in enumerate(sizes)])


def vectors(count: int = 30, dim: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((count, dim), dtype=np.float32)


def test_encode_equals_a_greedy_loop() -> None:
    quantizer = make()
    expected = []
    for vector in vectors():
        residual, codes = vector, []
        for codebook in quantizer.codebooks:
            distances = ((residual.astype(np.float64) - codebook) ** 2).sum(axis=1)
            codes.append(int(distances.argmin()))
            residual = residual - codebook[codes[-1]]
        expected.append(codes)
    assert quantizer.encode(vectors()).tolist() == expected


@pytest.mark.parametrize("values", [1, 4, 28, 10**6])
def test_encode_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    expected = make().encode(vectors())
    monkeypatch.setattr(residual, "BLOCK_VALUES", values)
    given = vectors()
    assert np.array_equal(make().encode(given), expected)
    assert np.array_equal(given, vectors())  # left as they were
    assert np.array_equal(make().encode(np.asfortranarray(given)[::-1]), expected[::-1])


@pytest.mark.filterwarnings("ignore:overflow")
def test_residuals_that_leave_float32() -> None:
    given = np.zeros((5, 1), np.float32)
    given[3] = -3e38
    far = ResidualQuantizer([np.full((1, 1), 3e38, np.float32), np.zeros((2, 1), np.float32)])
    with pytest.raises(InputError, match=r"vectors\[3\] minus its first 1 code vectors leaves the range of float32"):
        far.encode(given)


def test_decode_adds_the_code_vectors() -> None:
    quantizer = make()
    codes = quantizer.encode(vectors())
    for used in (1, 2, 3):
        expected = sum(quantizer.codebooks[k][codes[:, k]] for k in range(used))
        assert np.array_equal(quantizer.decode(codes, used), expected)
        assert np.array_equal(quantizer.decode(codes[:, :used]), expected)
    assert np.array_equal(quantizer.decode(codes), quantizer.decode(codes, 3))


def test_a_code_vector_is_its_own_code() -> None:
    quantizer = ResidualQuantizer([make().codebooks[0], np.zeros((1, 4), np.float32)])
    assert quantizer.encode(quantizer.codebooks[0]).tolist() == [[i, 0] for i in range(8)]


def test_a_prefix_of_the_codes_is_a_quantizer_of_its_own() -> None:
    quantizer = make()
    assert np.array_equal(
        ResidualQuantizer(quantizer.codebooks[:2]).encode(vectors()), quantizer.encode(vectors())[:, :2]
    )


def test_no_vectors() -> None:
    assert make().encode(np.empty((0, 4), np.float32)).shape == (0, 3)
    assert make().decode(np.empty((0, 3), np.int32)).shape == (0, 4)


def test_codebooks_are_copied_and_locked() -> None:
    own = np.ones((2, 2), np.float32)
    quantizer = ResidualQuantizer([own])
    own[:] = 5
    assert quantizer.codebooks[0].max() == 1
    with pytest.raises(ValueError, match="read-only"):
        quantizer.codebooks[0][0] = 3


@pytest.mark.parametrize(
    ("codebooks", "message"),
    [
        ([], "no codebooks given"),
        ([np.ones((2, 3))], "codebook 0 is float64"),
        ([np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)], "codebook 1 has D = 4, codebook 0 has D = 3"),
        ([np.ones((0, 3), np.float32)], r"codebook 0 is float32 \[0, 3\]"),
        ([np.full((2, 3), np.nan, np.float32)], "codebook 0 holds NaN"),
    ],
)
def test_codebooks_that_cannot_be(codebooks: list[NDArray[np.float32]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ResidualQuantizer(codebooks)


@pytest.mark.parametrize("bad", [-1, 5])
def test_codes_out_of_range(bad: int) -> None:
    with pytest.raises(CodeRangeError, match=f"code {bad} in codebook 1: allowed are 0 to 4"):
        make().decode(np.array([[0, bad, 0]], np.int32))


@pytest.mark.parametrize("codes", [np.zeros(3, np.int32), np.zeros((2, 4), np.int32), np.zeros((2, 3), np.float32)])
def test_codes_of_the_wrong_shape(codes: NDArray[np.int32]) -> None:
    with pytest.raises(ShapeError, match="give integers"):
        make().decode(codes)


@pytest.mark.parametrize("count", [0, 3])
def test_more_codebooks_than_codes(count: int) -> None:
    with pytest.raises(ShapeError, match=f"num_codebooks={count}: these codes allow 1 to 2"):
        make().decode(np.zeros((1, 2), np.int32), count)


def test_usage_and_perplexity() -> None:
    even = np.array([[0, 1], [2, 3]], np.int32)
    assert usage(even, 8) == 0.5
    assert perplexity(even, 8) == pytest.approx(4)
    assert perplexity(np.zeros(9, np.int32), 8) == pytest.approx(1)
    skewed = np.array([0, 0, 0, 1], np.int32)
    assert perplexity(skewed, 2) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_usage_refuses_what_has_none() -> None:
    with pytest.raises(InputError, match="no codes given"):
        usage(np.empty(0, np.int32), 4)
    with pytest.raises(CodeRangeError, match="allowed are 0 to 3"):
        perplexity(np.array([4], np.int32), 4)
