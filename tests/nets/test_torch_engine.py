"""The engine of torch gives the integers of the plain reference, for any number of threads and memory layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.nets.engine import TorchRunner, make_stack
from multitok.nets.native import NativeStack, available
from tests.nets import stack_reference


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(["encoder", "decoder", "context", "plain"]),
    st.tuples(*[st.integers(1, 40)] * 4), st.integers(0, 2),
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 12)),
)  # fmt: skip
def test_random_stacks(
    seed: int, kind: str, widths: tuple[int, int, int, int], blocks: int, sizes: tuple[int, int, int]
) -> None:
    random = np.random.default_rng(seed)
    program = stack_reference.program(random, kind, widths, blocks)
    values = random.integers(-1024, 1024, (sizes[0], 2 * sizes[1], 2 * sizes[2], widths[0])).astype(np.int16)
    np.testing.assert_array_equal(TorchRunner(program).run(values), stack_reference.run(program, values))


@pytest.mark.parametrize("kind", ["encoder", "decoder", "context"])
def test_shipped_widths(kind: str) -> None:
    random = np.random.default_rng(1)
    widths = {"encoder": (48, 64, 128, 32), "decoder": (32, 64, 128, 48), "context": (32, 96, 96, 32)}[kind]
    program = stack_reference.program(random, kind, widths, 1)
    values = random.integers(-1024, 1024, (1, 12, 40, widths[0])).astype(np.int16)
    expected = stack_reference.run(program, values)
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            np.testing.assert_array_equal(TorchRunner(program).run(values), expected)
    finally:
        torch.set_num_threads(threads)


def test_the_engine_follows_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    program = stack_reference.program(np.random.default_rng(2), "context", (3, 4, 5, 6), 0)
    if available() is None:
        assert isinstance(make_stack(program), NativeStack)
    monkeypatch.setenv("MULTITOK_NATIVE", "0")
    assert isinstance(make_stack(program), TorchRunner)
