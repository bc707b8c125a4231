"""Codebook statistics against Python's own integers and fractions, and against themselves in every other order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from multitok.codebook import native, segment_sums
from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError
from multitok.quantize import (
    code_sums,
    ema_codebook,
    ema_update,
    fixed_code_sums,
    perplexity,
    sum_exponent,
    torch_ops,
    usage,
)
from tests.quantize import ranks

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def reference(vectors: Any, codes: Any, codebook_size: int, exponent: int) -> tuple[list[int], list[list[int]]]:
    """The definition: each value as the integer nearest to value * 2^exponent, ties to even, in unlimited integers."""
    dim = vectors.shape[1]
    counts, sums = [0] * codebook_size, [[0] * dim for _ in range(codebook_size)]
    for vector, code in zip(vectors.tolist(), codes.tolist(), strict=True):
        counts[code] += 1
        for d, value in enumerate(vector):
            sums[code][d] += round(Fraction(value) * Fraction(2) ** exponent)
    return counts, sums


def draw(seed: int, count: int = 200, dim: int = 5, size: int = 11) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dim), dtype=np.float32) * np.float32(10) ** rng.integers(-3, 4, (count, 1))
    return vectors.astype(np.float32), rng.integers(0, size, count).astype(np.int32)


@pytest.fixture(params=["native", "fallback"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "fallback":
        monkeypatch.setenv("MULTITOK_NATIVE", "0")
    elif reason := native.available():
        pytest.skip(reason)
    return name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [None, 3, 0, -2])
def test_equals_the_definition(engine: str, dtype: torch.dtype, exponent: int | None) -> None:
    vectors, codes = (torch.from_numpy(each) for each in draw(0))
    vectors = vectors.to(dtype)
    counts, sums, used = fixed_code_sums(vectors, codes, 12, exponent=exponent)
    assert used == (exponent if exponent is not None else sum_exponent(float(vectors.abs().max()), 200))
    assert (counts.dtype, sums.dtype) == (torch.int64, torch.int64)
    assert (counts.tolist(), sums.tolist()) == reference(vectors, codes, 12, used)
    _, real = code_sums(vectors, codes, 12, exponent=exponent)
    assert real.tolist() == [[float(Fraction(each) / Fraction(2) ** used) for each in row] for row in sums.tolist()]
    if dtype != torch.bfloat16:
        arrays_of = fixed_code_sums(vectors.numpy(), codes.numpy(), 12, exponent=exponent)
        assert [type(each) for each in arrays_of[:2]] == [np.ndarray, np.ndarray]
        assert (arrays_of[0].tolist(), arrays_of[1].tolist(), arrays_of[2]) == (counts.tolist(), sums.tolist(), used)


def test_ties_go_to_the_even_integer(engine: str) -> None:
    values = np.array([[0.5], [1.5], [2.5], [-0.5], [-1.5], [3.5 + 2**-40]])
    counts, sums = code_sums(values, np.arange(6), 6, exponent=0)
    assert counts.tolist() == [1] * 6
    assert sums[:, 0].tolist() == [0, 2, 2, 0, -2, 4]


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 3), st.integers(0, 12))
def test_any_values_in_any_order_and_split(data: st.DataObject, dtype: Any, dim: int, count: int) -> None:
    finite = st.floats(allow_nan=False, allow_infinity=False, width=np.dtype(dtype).itemsize * 8)
    vectors = data.draw(arrays(dtype, (count, dim), elements=finite))
    codes = data.draw(arrays(np.int64, count, elements=st.integers(0, 3)))
    counts, sums, exponent = fixed_code_sums(vectors, codes, 4)
    assert (counts.tolist(), sums.tolist()) == reference(vectors, codes, 4, exponent)

    order = np.array(data.draw(st.permutations(range(count))), np.int64)
    with np.errstate(over="ignore"):  # the sum itself may lie beyond float64
        expected, shuffled = code_sums(vectors, codes, 4), code_sums(vectors[order], codes[order], 4)
    assert [each.tobytes() for each in shuffled] == [each.tobytes() for each in expected]

    cut = data.draw(st.integers(0, count))
    left, right = (
        fixed_code_sums(vectors[part], codes[part], 4, exponent=exponent) for part in (order[:cut], order[cut:])
    )
    assert np.array_equal(left[0] + right[0], counts)
    assert np.array_equal(left[1] + right[1], sums)


def test_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITOK_NATIVE", "0")
    vectors, codes = draw(1)
    expected = code_sums(vectors, codes, 11)
    monkeypatch.setattr(segment_sums, "BLOCK_VALUES", 1)
    for given_ in ((vectors, codes), (torch.from_numpy(vectors), torch.from_numpy(codes))):
        found = code_sums(*given_, 11)
        assert np.array_equal(found[0], expected[0])
        assert np.array_equal(found[1], expected[1])


def test_does_not_depend_on_the_threads() -> None:
    vectors, codes = (torch.from_numpy(each) for each in draw(2, count=40_000, dim=16, size=50))
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(code_sums(vectors, codes, 50)[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_error_stays_below_the_bound() -> None:
    vectors, codes = draw(3, count=3000)
    _, sums = code_sums(vectors, codes, 11)
    largest = float(np.abs(vectors).max())
    for code in range(11):
        own = vectors[codes == code].astype(np.float64)
        for d in range(5):
            exact = math.fsum(own[:, d])
            bound = len(own) * 3000 * largest * 2.0**-61 + 2.0**-53 * abs(exact)
            assert abs(sums[code, d] - exact) <= bound + 2.0**-53 * abs(exact)  # fsum rounds once too


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False), st.integers(1, 2**50))
def test_the_exponent_is_safe_and_fine(largest: float, count: int) -> None:
    exponent = sum_exponent(largest, count)
    total = count * Fraction(largest) * Fraction(2) ** exponent
    assert total + Fraction(count, 2) < 2**63
    assert exponent == 1022 or total > 2**60


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, 1.0, 5e-324])
def test_equal_values_at_the_limits(engine: str, value: float) -> None:
    vectors = np.full((1024, 2), value)
    counts, sums, exponent = fixed_code_sums(vectors, np.zeros(1024, np.int64), 1)
    assert counts.tolist() == [1024]
    assert sums.tolist() == [[1024 * round(Fraction(value) * Fraction(2) ** exponent)] * 2]
    assert (sums != 0).all() == (value != 5e-324)  # the finest step is 2^-1022


def test_any_leading_shape_and_layout(engine: str) -> None:
    vectors, codes = draw(4, count=24)
    expected = code_sums(vectors, codes, 11)
    wide = np.repeat(vectors, 2, axis=1).reshape(2, 3, 4, 10)
    for x, c in [
        (vectors.reshape(2, 3, 4, 5), codes.reshape(2, 3, 4)),
        (wide[..., ::2], codes.reshape(2, 3, 4).astype(np.uint8)),
        (np.asfortranarray(vectors), codes.astype(np.int64)),
        (vectors[::-1], codes[::-1].astype(np.uint16)),
    ]:
        tensor = torch.tensor(x.copy()).mT.contiguous().mT  # keeps the values, changes the strides
        for found in (code_sums(x, c, 11), code_sums(tensor, torch.tensor(c.copy()), 11)):
            assert np.array_equal(found[0], expected[0])
            assert np.array_equal(found[1], expected[1])
    assert np.array_equal(code_sums(vectors.astype(">f4"), codes, 11)[1], expected[1])
    single = code_sums(vectors[0], codes[0:1].reshape(()), 11)
    assert np.array_equal(single[1][codes[0]], vectors[0].astype(np.float64))
    negated = torch.complex(torch.zeros(24, 5), -torch.from_numpy(vectors)).conj().imag
    assert negated.is_neg()
    assert np.array_equal(code_sums(negated, torch.from_numpy(codes), 11)[1], expected[1])


def test_no_vectors(engine: str) -> None:
    counts, sums = code_sums(np.empty((0, 3), np.float32), np.empty(0, np.int32), 2)
    assert counts.tolist() == [0, 0]
    assert sums.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_no_gradient_flows() -> None:
    vectors = torch.ones(3, 2, requires_grad=True)
    _, sums = code_sums(vectors, torch.tensor([0, 1, 1]), 2)
    assert not sums.requires_grad
    assert sums.tolist() == [[1, 1], [2, 2]]


ONES, ZEROS = np.ones((3, 2), np.float32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("vectors", "codes", "size", "exponent", "error", "message"),
    [
        (ONES, ZEROS + 4, 4, None, CodeRangeError, "codes reach from 4 to 4: allowed are 0 to 3"),
        (ONES, ZEROS - 1, 4, None, CodeRangeError, "codes reach from -1 to -1"),
        (ONES, ZEROS, 0, None, SpecError, "codebook_size=0"),
        (ONES, ZEROS, 4, 60, SpecError, "exponent=60: 3 vectors with values up to 1 allow -1022 to 59"),
        (ONES, ZEROS, 4, -1023, SpecError, "exponent=-1023"),
        (ONES, ZEROS[:2], 4, None, ShapeError, r"codes are int32 \[2\]: give an integer for each vector, \[3\]"),
        (ONES, ONES[:, 0], 4, None, ShapeError, "codes are float32"),
        (ONES.astype(np.int64), ZEROS, 4, None, ShapeError, "vectors given as int64"),
        (ONES[:, :0], ZEROS, 4, None, ShapeError, r"vectors are of shape \[3, 0\]"),
        (ONES, [0, 0, 0], 4, None, ShapeError, "vectors are ndarray, codes are list"),
        (torch.ones(3, 2), ZEROS, 4, None, ShapeError, "vectors are Tensor, codes are ndarray"),
        (
            torch.ones(3, 2, dtype=torch.int64),
            torch.zeros(3).long(),
            4,
            None,
            ShapeError,
            "vectors given as torch.int64",
        ),
        (torch.ones(3, 2), torch.zeros(3), 4, None, ShapeError, "codes are torch.float32"),
        (torch.ones(3, 2), torch.zeros(3, device="meta").long(), 4, None, ShapeError, "on cpu, codes are on meta"),
        (torch.ones(3, 2), torch.full((3,), 9), 4, None, CodeRangeError, "codes reach from 9 to 9"),
    ],
)
def test_what_cannot_be(
    vectors: Any, codes: Any, size: int, exponent: int | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        code_sums(vectors, codes, size, exponent=exponent)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    vectors = np.ones((4, 3), np.float32)
    vectors[2, 1] = bad
    for given_ in ((vectors, np.zeros(4, np.int32)), (torch.from_numpy(vectors), torch.zeros(4).long())):
        with pytest.raises(InputError, match="vectors hold a NaN or an infinity in row 2 of 4"):
            code_sums(*given_, 1)


def test_every_number_of_ranks_gives_the_same_bits(tmp_path: Path) -> None:
    """Two and three gloo ranks with batches of different sizes, one of them empty, against one process."""
    vectors, codes = draw(5, count=301)
    found = ranks.run(tmp_path, vectors, codes, 11)
    for name, splits in ranks.SPLITS.items():
        used = np.concatenate([np.arange(*span) for span in splits])
        counts, sums = code_sums(vectors[used], codes[used], 11)
        for rank in range(len(splits)):
            assert found[rank][name] == [counts.tobytes().hex(), sums.tobytes().hex()], (name, rank)
    # The refusal of one rank ends the call on all of them, each with its own words.
    assert "infinity in row 0 of 1" in found[1]["refused"]
    assert found[0]["refused"] == found[2]["refused"]
    assert "rank 1 of the group refused its vectors or codes" in found[0]["refused"]


def test_a_group_that_does_not_exist() -> None:
    with pytest.raises(SpecError, match="group=True, but there is no process group"):
        code_sums(ONES, ZEROS, 1, group=True)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("group", [None, True])
def test_compiles_without_a_break(alone: None, group: bool | None) -> None:
    def step(vectors: torch.Tensor, codes: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]) -> Any:
        state = ema_update(*state, *code_sums(vectors * 2, codes, 11, group=group), 0.9)
        return *state, ema_codebook(*state)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (30, 41):
        vectors, codes = (torch.from_numpy(each) for each in draw(8, count=count))
        state = torch.rand(11).double(), torch.rand(11, 5).double()
        found = compiled(vectors.requires_grad_(), codes, state)
        for left, right in zip(found, step(vectors, codes, state), strict=True):
            assert torch.equal(left, right)
            assert not left.requires_grad


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_operator_keeps_the_rules_of_torch(dtype: torch.dtype) -> None:
    vectors, codes = torch.randn(4, 6, 5).to(dtype), torch.randint(0, 7, (4, 6))
    torch.library.opcheck(torch_ops.code_sums, (vectors, codes, 7))
    torch.library.opcheck(torch_ops.code_sums, (vectors[:, ::2], codes[:, ::2], 7, 3))


def test_moving_averages_equal_a_loop() -> None:
    rng = np.random.default_rng(6)
    counts_ema, sums_ema = np.zeros(7), np.zeros((7, 3))
    expected = [(0.0, [0.0] * 3) for _ in range(7)]
    for _ in range(4):
        vectors, codes = rng.standard_normal((20, 3)), rng.integers(0, 6, 20)
        counts, sums = code_sums(vectors, codes, 7)
        counts_ema, sums_ema = ema_update(counts_ema, sums_ema, counts, sums, 0.9)
        expected = [
            (n * 0.9 + int(counts[i]) * (1 - 0.9), [m * 0.9 + s * (1 - 0.9) for m, s in zip(row, sums[i], strict=True)])
            for i, (n, row) in enumerate(expected)
        ]
    assert counts_ema.tolist() == [n for n, _ in expected]
    assert sums_ema.tolist() == [row for _, row in expected]

    codebook = ema_codebook(counts_ema, sums_ema, epsilon=0.01)
    total = sum(n for n, _ in expected)
    smoothed = [(n + 0.01) * total / (total + 7 * 0.01) for n, _ in expected]
    assert sum(smoothed) == pytest.approx(total)
    means = [[m / n for m in row] for (_, row), n in zip(expected, smoothed, strict=True)]
    assert codebook == pytest.approx(np.array(means))
    assert codebook[6].tolist() == [0, 0, 0]  # never used


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_moving_averages_are_the_same_bits_in_torch(size: int) -> None:
    rng = np.random.default_rng(size)
    counts, sums = rng.integers(0, 50, size), rng.standard_normal((size, 4))
    state = rng.random(size), rng.standard_normal((size, 4))
    kept = [each.tobytes() for each in state]
    new = ema_update(*state, counts, sums, 0.99)
    same = ema_update(*map(torch.from_numpy, state), torch.from_numpy(counts), torch.from_numpy(sums), 0.99)
    assert [each.dtype for each in same] == [torch.float64] * 2
    assert [each.numpy().tobytes() for each in same] == [each.tobytes() for each in new]
    assert ema_codebook(*same).numpy().tobytes() == ema_codebook(*new).tobytes()
    assert [each.tobytes() for each in state] == kept


@pytest.mark.parametrize("decay", [-0.1, 1.1, math.nan])
def test_a_decay_that_cannot_be(decay: float) -> None:
    with pytest.raises(SpecError, match="decay="):
        ema_update(np.zeros(1), np.zeros((1, 1)), np.zeros(1, np.int64), np.zeros((1, 1)), decay)


def test_usage_and_perplexity_of_tensors() -> None:
    codes = torch.tensor([[0, 1], [2, 3]])
    assert usage(codes, 8) == 0.5
    assert perplexity(codes, 8) == pytest.approx(4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_gives_the_same_bits(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    vectors, codes = (torch.from_numpy(each) for each in draw(7, count=100_000, dim=16, size=50))
    expected = code_sums(vectors.to(dtype), codes, 50)
    found = code_sums(vectors.to(dtype).cuda(), codes.cuda(), 50)
    assert all(torch.equal(left.cpu(), right) for left, right in zip(found, expected, strict=True))
