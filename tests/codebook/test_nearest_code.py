"""`nearest_code` against a slow, obvious reference: one vector at a time, one dimension at a time, in Python floats."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from multitok.codebook import certified, nearest_code
from multitok.errors import InputError, ShapeError


def reference(vectors: NDArray[np.float32], codebook: NDArray[np.float32]) -> list[int]:
    """The definition in `nearest_code`'s docstring, word for word."""
    found = []
    for vector in vectors.tolist():
        best, best_distance = 0, float("inf")
        for index, code in enumerate(codebook.tolist()):
            distance = 0.0
            for left, right in zip(vector, code, strict=True):
                distance += (left - right) * (left - right)
            if distance < best_distance:
                best, best_distance = index, distance
        found.append(best)
    return found


def draw(seed: int, count: int, dim: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


@pytest.mark.parametrize(("count", "size", "dim"), [(50, 64, 8), (7, 300, 33), (40, 1, 5), (40, 9, 1), (1, 1, 1)])
def test_gaussian(count: int, size: int, dim: int) -> None:
    vectors, codebook = draw(0, count, dim), draw(1, size, dim)
    found = nearest_code(vectors, codebook)
    assert found.dtype == np.int32
    assert found.tolist() == reference(vectors, codebook)


def test_no_vectors() -> None:
    assert nearest_code(np.empty((0, 3), np.float32), np.ones((2, 3), np.float32)).shape == (0,)


def test_duplicated_codes_give_the_lowest_index() -> None:
    half = draw(2, 40, 6)
    vectors = draw(3, 60, 6)
    found = nearest_code(vectors, np.concatenate([half, half]))
    assert found.max() < 40
    assert found.tolist() == reference(vectors, half)


def test_ties_on_integers_give_the_lowest_index() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.integers(-2, 3, (300, 3)).astype(np.float32)
    codebook = rng.integers(-2, 3, (50, 3)).astype(np.float32)
    assert nearest_code(vectors, codebook).tolist() == reference(vectors, codebook)


@pytest.mark.parametrize("offset", [100.0, 1e5])
def test_offset(offset: float) -> None:
    vectors, codebook = draw(5, 80, 8) + np.float32(offset), draw(6, 90, 8) + np.float32(offset)
    assert nearest_code(vectors, codebook).tolist() == reference(vectors, codebook)


@pytest.mark.parametrize("spread", [1e-4, 1e-7])
def test_tight_clusters(spread: float) -> None:
    centres = draw(7, 5, 12)
    codebook = np.repeat(centres, 20, axis=0) + np.float32(spread) * draw(8, 100, 12)
    vectors = np.repeat(centres, 20, axis=0) + np.float32(spread) * draw(9, 100, 12)
    assert nearest_code(vectors, codebook).tolist() == reference(vectors, codebook)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 2e38])
def test_extreme_magnitudes(scale: float) -> None:
    vectors, codebook = np.clip(draw(10, 30, 4), -1, 1), np.clip(draw(11, 40, 4), -1, 1)
    vectors, codebook = vectors * np.float32(scale), codebook * np.float32(scale)
    assert nearest_code(vectors, codebook).tolist() == reference(vectors, codebook)


def test_vectors_far_from_a_small_codebook() -> None:
    # Here even the float64 distances round to ties; the definition then asks for the lowest index.
    vectors, codebook = draw(12, 40, 3) * np.float32(1e12), draw(13, 30, 3) * np.float32(1e-6)
    assert nearest_code(vectors, codebook).tolist() == reference(vectors, codebook)


finite = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-40, 3e38, -3e38])


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 5), st.integers(1, 12), st.integers(0, 8))
def test_any_finite_values(data: st.DataObject, dim: int, size: int, count: int) -> None:
    vectors = data.draw(arrays(np.float32, (count, dim), elements=finite))
    codebook = data.draw(arrays(np.float32, (size, dim), elements=finite))
    assert nearest_code(vectors, codebook).tolist() == reference(vectors, codebook)


def test_any_memory_layout() -> None:
    vectors, codebook = draw(14, 40, 6), draw(15, 20, 6)
    expected = reference(vectors, codebook)
    assert nearest_code(np.asfortranarray(vectors), np.asfortranarray(codebook)).tolist() == expected
    wide = np.repeat(vectors, 2, axis=1)
    assert nearest_code(wide[:, ::2], codebook).tolist() == expected
    assert nearest_code(vectors[::-1], codebook).tolist() == expected[::-1]


def test_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codebook = np.round(draw(16, 500, 8), 1), np.round(draw(17, 128, 8), 1)
    expected = nearest_code(vectors, codebook)
    assert expected[:40].tolist() == reference(vectors[:40], codebook)
    monkeypatch.setattr(certified, "BLOCK_SCORES", 1)
    monkeypatch.setattr(certified, "BLOCK_PAIRS", 3)
    assert np.array_equal(nearest_code(vectors, codebook), expected)
    one_by_one = [int(nearest_code(vectors[i : i + 1], codebook)[0]) for i in range(len(vectors))]
    assert one_by_one == expected.tolist()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    real = np.empty

    def empty(shape: object, *args: object, **kwargs: object) -> NDArray[np.generic]:
        nonlocal largest
        made = real(shape, *args, **kwargs)
        largest = max(largest, made.nbytes)
        return made

    monkeypatch.setattr(np, "empty", empty)
    nearest_code(draw(18, 20_000, 2), draw(19, 512, 2))
    assert largest <= 4 * certified.BLOCK_SCORES


def test_does_not_depend_on_the_threads() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from multitok.codebook import nearest_code\n"
        "rng = np.random.default_rng(0)\n"
        "x = np.round(rng.standard_normal((5000, 32), dtype=np.float32), 2)\n"
        "c = np.round(rng.standard_normal((1024, 32), dtype=np.float32), 2)\n"
        "print(hashlib.sha256(nearest_code(x, c).tobytes()).hexdigest())\n"
    )
    outputs = set()
    for threads in ("1", "2"):
        setting = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **setting}, capture_output=True, text=True, check=True
        )
        outputs.add(run.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    vectors, codebook = draw(20, 10, 3), draw(21, 4, 3)
    vectors[7, 2] = bad
    with pytest.raises(InputError, match=r"vectors\[7, 2\] is -?(nan|inf): nearest_code takes finite values only"):
        nearest_code(vectors, codebook)
    with pytest.raises(InputError, match=r"codebook\[7, 2\]"):
        nearest_code(codebook, vectors)


@pytest.mark.parametrize(
    ("vectors", "codebook", "message"),
    [
        (np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), "vectors have D = 3, the codebook has D = 4"),
        (np.ones(3, np.float32), np.ones((2, 3), np.float32), r"vectors given as float32 of shape \[3\]"),
        (np.ones((2, 3)), np.ones((2, 3), np.float32), r"vectors given as float64 .* give a float32 array \[N, D\]"),
        (np.ones((2, 3), np.float32), np.ones((2, 3), np.int64), "codebook given as int64"),
        (np.ones((2, 3), np.float32), np.ones((0, 3), np.float32), "give at least one code"),
        (np.ones((2, 0), np.float32), np.ones((2, 0), np.float32), "of at least one dimension"),
        ([[1.0]], np.ones((2, 3), np.float32), "vectors given as list"),
    ],
)
def test_wrong_arrays(vectors: NDArray[np.float32], codebook: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        nearest_code(vectors, codebook)
