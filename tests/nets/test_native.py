"""The native engine gives the integers of the plain reference, on every path, for every cut and number of threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok import doctor
from multitok.codebook import native as codebook_native
from multitok.errors import InputError, ShapeError, SpecError
from multitok.nets import native
from multitok.nets.native import NativeStack
from multitok.nets.program import ConvOp, QuantizeOp, ResidualOp, StackProgram
from tests.nets import stack_reference

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
PATHS = native.supported_paths() if native.available() is None else []
KINDS = ("encoder", "decoder", "context", "plain")


def values(random: np.random.Generator, *shape: int) -> NDArray[np.int16]:
    """Values of the whole range, whole frames of its ends now and then."""
    drawn = random.integers(-1024, 1024, shape).astype(np.int16)
    extreme = random.integers(0, 2, shape, dtype=np.int16) * np.int16(2047) - np.int16(1024)
    return np.where(random.random((shape[0], 1, 1, 1)) < 0.3, extreme, drawn)


def check(program: StackProgram, given: NDArray[np.int16], threads: tuple[int, ...] = (1, 3)) -> NDArray[np.int32]:
    expected = stack_reference.run(program, given)
    for path in PATHS:
        stack = NativeStack(program, path=path)
        assert stack.path == path
        for number in threads:
            got = stack.run(given, threads=number)
            assert got.dtype == np.int32
            np.testing.assert_array_equal(got, expected, err_msg=f"{path}, {number} threads")
    return expected


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.tuples(*[st.integers(1, 50)] * 4), st.integers(0, 2),
    st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(1, 18)),
)  # fmt: skip
def test_random_stacks(
    seed: int, kind: str, widths: tuple[int, int, int, int], blocks: int, sizes: tuple[int, int, int]
) -> None:
    random = np.random.default_rng(seed)
    program = stack_reference.program(random, kind, widths, blocks)
    step = 2 if kind in ("encoder", "plain") else 1
    check(program, values(random, sizes[0], step * sizes[1], step * sizes[2], widths[0]), (1, 2, 5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 70, 2), (1, 2, 150), (37, 2, 2), (2, 30, 26)])
def test_shapes(kind: str, shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(shape[1])
    widths = {"encoder": (48, 64, 128, 32), "decoder": (24, 64, 48, 48), "context": (24, 96, 96, 24)}
    program = stack_reference.program(random, kind, widths.get(kind, (5, 16, 33, 7)), 1)
    check(program, values(random, *shape, program.inputs), (1, 7))


def constant(inputs: int, outputs: int, weight: int, scale: float, output: str, bias: int = 0) -> ConvOp:
    weights = np.full((outputs, 1, 1, inputs), weight, np.int8)
    return ConvOp(weights, np.full(outputs, bias, np.int32), np.full(outputs, scale, np.float32), output)  # type: ignore[arg-type]


@pytest.mark.parametrize(("weight", "end", "outcome"), [(127, 32767, 255), (-128, -32768, 0)])
def test_streams_saturate(weight: int, end: int, outcome: int) -> None:
    add = ResidualOp(constant(20, 9, 127, 1, "u8", bias=255), constant(9, 20, weight, 1, "s16"))
    assert (stack_reference.apply(add, np.full((1, 1, 1, 20), end // 2)) == end).all()
    program = StackProgram((constant(3, 20, 100, 0.2, "s16"), *[add] * 3, QuantizeOp(), constant(20, 2, 1, 1, "s32")))
    for level in (1023, -1024, 0):
        assert (check(program, np.full((1, 2, 5, 3), level, np.int16)) == 20 * outcome).all()


@pytest.mark.parametrize("inputs", [130, 129, 96])
def test_the_largest_sums(inputs: int) -> None:
    """Sums next to 2^24, of products that would saturate 16 bits in pairs."""
    weight = 127
    middle = constant(16, inputs, 127, 1, "u8", bias=2**14)
    exact = [constant(inputs, 3, w, 1, "s32", bias=b) for w, b in ((weight, 5), (-128, 2**18), (weight - 1, -7))]
    for last in exact:
        program = StackProgram((constant(2, 16, 1, 1, "u8"), middle, last))
        for level in (1023, 300, -1024):
            outcome = check(program, np.full((1, 1, 13, 2), level, np.int16))
            assert outcome[0, 0, 0, 0] == 255 * inputs * int(last.weights[0, 0, 0, 0]) + last.bias[0]


@pytest.mark.parametrize("output", ["u8", "s16", "s32"])
def test_halves_go_to_the_even_integer(output: str) -> None:
    first = constant(1, 1, 1, 1, "u8")
    scale = {"u8": 0.5, "s16": 2.5, "s32": 16777.5}[output]
    if output == "s32":
        program = StackProgram((first, constant(1, 1, 1, scale, "s32")))
    elif output == "s16":
        program = StackProgram((constant(1, 1, 1, scale, "s16"), QuantizeOp(), constant(1, 1, 1, 1, "s32")))
    else:
        program = StackProgram((constant(1, 1, 1, scale, "u8"), constant(1, 1, 1, 1, "s32")))
    given = np.arange(-1024, 1024, dtype=np.int16).reshape(1, 8, 256, 1)
    outcome = check(program, given)
    if output == "u8":
        assert outcome.ravel()[1024:1032].tolist() == [0, 0, 1, 2, 2, 2, 3, 4]
    if output == "s32":
        assert outcome.ravel()[1024:1028].tolist() == [0, 16778, 33555, 50332]


def test_scales_beyond_the_floats() -> None:
    """Products that overflow are clamped, products too small for a float are zero."""
    op = ConvOp(
        np.array([1, -1, 1, 1], np.int8).reshape(4, 1, 1, 1),
        np.zeros(4, np.int32),
        np.array([3e38, 3e38, 1e-45, -0.0], np.float32),
        "s16",
    )
    program = StackProgram((op, QuantizeOp(), constant(4, 4, 1, 1, "s32")))
    check(program, np.arange(-8, 8, dtype=np.int16).reshape(1, 1, 16, 1))


def test_another_float_mode_changes_nothing() -> None:
    random = np.random.default_rng(5)
    program = stack_reference.program(random, "encoder", (4, 16, 16, 8), 1)
    torch.set_flush_denormal(True)
    try:
        check(program, values(random, 1, 6, 6, 4))
    finally:
        torch.set_flush_denormal(False)


def test_any_memory_layout() -> None:
    random = np.random.default_rng(6)
    program = stack_reference.program(random, "context", (4, 8, 8, 4), 0)
    given = values(random, 2, 5, 6, 4)
    expected = NativeStack(program).run(given)
    np.testing.assert_array_equal(NativeStack(program).run(np.asfortranarray(given)), expected)
    given.setflags(write=False)
    np.testing.assert_array_equal(NativeStack(program).run(given), expected)


def test_tiles_with_their_surroundings_give_what_the_whole_gives() -> None:
    random = np.random.default_rng(7)
    program = stack_reference.program(random, "encoder", (6, 16, 24, 5), 1)
    given = values(random, 1, 60, 64, 6)
    stack = NativeStack(program)
    whole = stack.run(given)
    # One convolution at entry, two in the fine block: 3; two in the coarse block: 4 more.
    tile = stack.run(given[:, 20:52, 8:56])
    np.testing.assert_array_equal(tile[:, 4:-4, 4:-4], whole[:, 14:22, 8:24])


def test_threads_may_share_a_stack() -> None:
    random = np.random.default_rng(8)
    program = stack_reference.program(random, "decoder", (5, 16, 16, 3), 1)
    stack, given = NativeStack(program), values(random, 3, 20, 21, 5)
    expected = stack_reference.run(program, given)
    wrong: list[int] = []

    def work(number: int) -> None:
        outcomes = [stack.run(given, threads=1 + number % 3) for _ in range(5)]
        wrong.extend(number for outcome in outcomes if not np.array_equal(outcome, expected))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class TestRefusals:
    program = stack_reference.program(np.random.default_rng(9), "encoder", (3, 4, 5, 6), 1)

    @pytest.mark.parametrize("value", [-1025, 1024, 32767, -32768])
    @pytest.mark.parametrize("threads", [1, 3])
    def test_values_out_of_range(self, value: int, threads: int) -> None:
        given = np.zeros((2, 64, 64, 3), np.int16)
        given[1, 63, 63, 2] = value
        for path in PATHS:
            with pytest.raises(InputError, match=r"a stack takes -1024 to 1023; clip them"):
                NativeStack(self.program, path=path).run(given, threads=threads)

    def test_shapes_and_dtypes(self) -> None:
        stack = NativeStack(self.program)
        with pytest.raises(ShapeError, match="fold to 3 x 4, which is odd"):
            stack.run(np.zeros((1, 3, 4, 3), np.int16))
        with pytest.raises(ShapeError, match="values of dtype int32: give int16"):
            stack.run(np.zeros((1, 4, 4, 3), np.int32))  # type: ignore[arg-type]
        assert stack.run(np.zeros((0, 4, 4, 3), np.int16)).shape == (0, 2, 2, 6)

    def test_paths(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(SpecError, match="path 'avx99' is none that runs here; those are: portable"):
            NativeStack(self.program, path="avx99")
        monkeypatch.setenv("MULTITOK_NATIVE_PATH", "portable")
        assert NativeStack(self.program).path == "portable"
        monkeypatch.setenv("MULTITOK_NATIVE_PATH", "amx")  # a path of codebooks only
        assert NativeStack(self.program).path == PATHS[-1]


class TestDoctor:
    def test_names_the_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MULTITOK_NATIVE_PATH", "portable")
        (finding,) = doctor._integer_nets()
        assert finding.state == "ok"
        assert finding.value.startswith("native portable, threads: ")

    def test_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "supported_paths", lambda: ["portable"])
        monkeypatch.setenv("MULTITOK_NATIVE_PATH", "avx512-vnni")
        (finding,) = doctor._integer_nets()
        assert (finding.state, finding.fix) == ("broken", "unset MULTITOK_NATIVE_PATH")
        monkeypatch.setenv("MULTITOK_NATIVE", "0")
        (finding,) = doctor._integer_nets()
        assert (finding.state, finding.fix) == ("absent", "unset MULTITOK_NATIVE")
        assert "torch runs them, slower" in finding.value


class TestAbsence:
    def test_switched_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MULTITOK_NATIVE", "0")
        assert native.available() == "switched off by MULTITOK_NATIVE=0; unset MULTITOK_NATIVE"

    def test_a_library_without_stacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Older:
            """A library built before there were stacks."""

        monkeypatch.setattr(codebook_native, "loaded_library", lambda: Older())
        native._load.cache_clear()
        try:
            assert "is older than its source, it runs no stacks; pip install" in str(native.available())
        finally:
            native._load.cache_clear()


def peak_bytes() -> int:
    from resource import RUSAGE_SELF, getrusage

    return int(getrusage(RUSAGE_SELF).ru_maxrss) * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_does_not_grow_with_the_height(run_apart: Callable[[str], str]) -> None:
    """64 MiB in, 32 MiB out: a stack that kept its layers would hold a gigabyte."""
    code = """
import numpy as np
from multitok.nets.native import NativeStack
from tests.nets import stack_reference, test_native
program = stack_reference.program(np.random.default_rng(0), "encoder", (4, 64, 64, 4), 1)
stack = NativeStack(program)
given = np.zeros((1, 2**16, 128, 4), np.int16)
given[:] = 1
stack.run(given[:, :64], threads=2)
before = test_native.peak_bytes()
stack.run(given, threads=2)
print(test_native.peak_bytes() - before)
"""
    assert int(run_apart(code)) < 64 * 2**20


@pytest.fixture
def run_apart() -> Callable[[str], str]:
    """Runs code in a new interpreter; gives what it prints."""
    import subprocess

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
