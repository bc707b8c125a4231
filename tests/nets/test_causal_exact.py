"""Exact causal nets: the same bits for every split, thread and BLAS; a slow reference; what is lost by freezing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import ShapeError, SpecError
from multitok.nets.causal import exact as exact_module
from multitok.nets.causal.bounds import (
    EXACT_FLOAT32,
    NORM_STEPS,
    largest_input,
    largest_sum_after_hidden,
    largest_sum_after_norm,
    norm_length,
)
from multitok.nets.causal.config import NORM_EPSILON, CausalConfig
from multitok.nets.causal.exact import CausalState, ExactCausalNet, tensor_forms
from multitok.nets.causal.freeze import freeze, thaw
from multitok.nets.causal.module import CausalNet

SMALL = CausalConfig(
    in_dim=5, out_dim=3, channels=12, hidden=20, taps=3, dilations=(1, 2, 3), stack=2, unstack=3, lookahead=2
)


@st.composite
def configs(draw: st.DrawFn) -> CausalConfig:
    return CausalConfig(
        in_dim=draw(st.integers(1, 6)),
        out_dim=draw(st.integers(1, 4)),
        channels=draw(st.integers(1, 24)),
        hidden=draw(st.integers(1, 30)),
        taps=draw(st.integers(1, 5)),
        dilations=tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))),
        stack=draw(st.integers(1, 3)),
        unstack=draw(st.integers(1, 3)),
        lookahead=draw(st.integers(0, 4)),
    )


def random_net(config: CausalConfig, seed: int = 0) -> CausalNet:
    """A net in which every weight matters, some more than others."""
    torch.manual_seed(seed)
    net = CausalNet(config)
    for block in net.blocks:
        torch.nn.init.normal_(block.contract.weight, std=config.hidden**-0.5)
        torch.nn.init.normal_(block.contract.bias, std=0.3)
    for parameter in net.parameters():
        parameter.data *= torch.exp(0.3 * torch.randn(parameter.shape))
    return net.eval()


def frames_of(config: CausalConfig, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, config.in_dim)).astype(np.float32)


def frozen(config: CausalConfig, seed: int = 0) -> ExactCausalNet:
    return freeze(random_net(config, seed), [torch.from_numpy(frames_of(config, 50, 9))])


def split(net: ExactCausalNet, frames: np.ndarray, lengths: list[int]) -> np.ndarray:
    state, outputs, first = net.initial_state(), [], 0
    for length in [*lengths, len(frames)]:
        state, found = net.step(state, frames[first : first + length])
        outputs.append(found)
        first += length
    return np.concatenate([*outputs, net.finish(state)])


def snr_db(wanted: np.ndarray, found: np.ndarray) -> float:
    wanted = wanted.astype(np.float64)
    return float(10 * np.log10((wanted**2).mean() / ((wanted - found) ** 2).mean()))


def slow_run(config: CausalConfig, tensors: dict[str, np.ndarray], frames: np.ndarray) -> np.ndarray:
    """Straight from the definition: whole clip, sums of products in int64, one value after the other elsewhere."""
    f32 = np.float32

    def product(steps: np.ndarray, weights: np.ndarray) -> np.ndarray:
        sums = steps.astype(np.int64) @ weights.astype(np.int64).T
        assert np.abs(sums).max(initial=0) < 2**24
        return sums.astype(f32)

    def normalized(x: np.ndarray) -> np.ndarray:
        rows = []
        for row in x:
            squares = [value * value for value in row]
            while len(squares) % 2 == 0:
                half = len(squares) // 2
                squares = [squares[i] + squares[half + i] for i in range(half)]
            total = squares[0]
            for square in squares[1:]:
                total = total + square
            root = np.sqrt(total * f32(1 / len(row)) + f32(NORM_EPSILON))
            rows.append(np.rint(row * (f32(NORM_STEPS) / root)))
        return np.array(rows, f32).reshape(x.shape)

    count = -(-len(frames) // config.stack)
    padded = np.zeros(((count + config.lookahead) * config.stack, config.in_dim), f32)
    padded[: len(frames)] = frames
    t = tensors
    limit = min((2**24 - 1) // int(np.abs(t["enter"].astype(int)).sum(1).max()), 2**15 - 1)
    steps = np.clip(np.rint(padded.reshape(count + config.lookahead, -1) * t["enter_gain"]), -limit, limit)
    x = product(steps, t["enter"]) * t["enter_scale"] + t["enter_bias"]
    for b, dilation in enumerate(config.dilations):
        y = np.zeros_like(x)
        for now in range(len(x)):
            for tap in range(config.taps):
                then = now - (config.taps - 1 - tap) * dilation
                term = (x[then] if then >= 0 else np.zeros_like(x[0])) * t[f"taps_{b}"][tap]
                y[now] = term if tap == 0 else y[now] + term
            y[now] = y[now] + t[f"taps_bias_{b}"]
        sums = product(normalized(y), t[f"expand_{b}"]) / f32(2 ** int(t[f"shift_{b}"][0]))
        hidden = np.rint(np.maximum(sums + t[f"expand_bias_{b}"], 0))
        x = x + (product(hidden, t[f"contract_{b}"]) * t[f"contract_scale_{b}"] + t[f"contract_bias_{b}"])
    out = product(normalized(x), t["leave"]) * t["leave_scale"] + t["leave_bias"]
    return out[config.lookahead :].reshape(-1, config.out_dim)


@given(config=configs(), count=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_it_computes_its_definition_to_the_bit(config: CausalConfig, count: int, seed: int) -> None:
    net, frames = frozen(config, seed), frames_of(config, count, seed)
    assert np.array_equal(net.run(frames), slow_run(config, net.tensors(), frames))


@given(config=configs(), lengths=st.lists(st.integers(0, 9), max_size=12), left=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_any_split_gives_the_same_bits(config: CausalConfig, lengths: list[int], left: int) -> None:
    net, frames = frozen(config), frames_of(config, sum(lengths) + left)
    whole = net.run(frames)
    assert whole.shape == (-(-len(frames) // config.stack) * config.unstack, config.out_dim)
    assert np.array_equal(split(net, frames, lengths), whole)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5, 8, 13, 32, 100, 300])
def test_any_piece_gives_the_same_bits_at_real_size(pieces: int) -> None:
    config = CausalConfig(
        in_dim=80, out_dim=64, channels=256, hidden=768, taps=5, dilations=(1, 2, 4), stack=2, lookahead=4
    )
    net, frames = frozen(config), frames_of(config, 600)
    assert np.array_equal(split(net, frames, [pieces] * (len(frames) // pieces)), net.run(frames))


@pytest.mark.parametrize("tile_frames", [1, 7, 64])
def test_tiles_do_not_show(tile_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, frames = frozen(SMALL), frames_of(SMALL, 77)
    whole = net.run(frames)
    monkeypatch.setattr(exact_module, "TILE_FRAMES", tile_frames)
    assert np.array_equal(net.run(frames), whole)


@pytest.mark.parametrize("few", [0, 1, 50])
def test_both_ways_to_multiply_give_the_same_bits(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, frames = frozen(SMALL), frames_of(SMALL, 77)
    whole = net.run(frames)
    monkeypatch.setattr(exact_module, "FEW_FRAMES", few)
    assert np.array_equal(net.run(frames), whole)


def test_threads_may_share_a_net() -> None:
    net = frozen(replace(SMALL, channels=64, hidden=128))
    clips = [frames_of(SMALL, 40 + 13 * i, i) for i in range(16)]
    alone = [net.run(clip) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: split(net, clip, [3] * 10), clips))
    assert all(np.array_equal(left, right) for left, right in zip(alone, together, strict=True))


HASH = """
import hashlib, sys
import numpy as np
from multitok.frontend.log_mel import LogMel
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.exact import ExactCausalNet, tensor_forms
config = CausalConfig(in_dim=80, out_dim=64, channels=128, hidden=512, taps=3, dilations=(1, 2), lookahead=1)
rng = np.random.default_rng(3)
tensors = {}
for key, (dtype, shape) in tensor_forms(config).items():
    whole = np.dtype(dtype).kind == "i"
    tensors[key] = rng.integers(-127, 128, shape).astype(dtype) if whole else rng.uniform(0, 0.1, shape).astype(dtype)
tensors["enter_gain"][:] = 500
for key in ("shift_0", "shift_1"):
    tensors[key] = np.array([12], np.int32)
samples = rng.normal(0, 0.1, 80_000).astype(np.float32)
frames = LogMel(MelSpectrogram(16_000, 160, 400, 400, 80)).run(samples)
out = ExactCausalNet(config, tensors).run(frames)
sys.stdout.write(hashlib.sha256(frames.tobytes() + out.tobytes()).hexdigest())
"""


def test_threads_and_vector_widths_do_not_show() -> None:
    found = set()
    for variables in (
        {"OPENBLAS_NUM_THREADS": "1"},
        {"OPENBLAS_NUM_THREADS": "2"},
        # The oldest kernels that OpenBLAS and NumPy have, where the machine has a choice.
        {"OPENBLAS_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Prescott"},
        {"NPY_DISABLE_CPU_FEATURES": "X86_V4 X86_V3 AVX512_ICL AVX512F AVX2 FMA3"},
    ):
        command = [sys.executable, "-c", HASH]
        found.add(subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=True).stdout)
    assert len(found) == 1
    assert len(found.pop()) == hashlib.sha256().digest_size * 2


def test_a_step_leaves_its_state_as_it_is() -> None:
    net, frames = frozen(SMALL), frames_of(SMALL, 30)
    state, _ = net.step(net.initial_state(), frames[:9])
    before = CausalState(state.num_frames, state.partial.copy(), tuple(past.copy() for past in state.past))
    first = net.step(state, frames[9:])[1]
    assert state.num_frames == before.num_frames
    assert np.array_equal(state.partial, before.partial)
    assert all(np.array_equal(left, right) for left, right in zip(state.past, before.past, strict=True))
    assert np.array_equal(net.step(state, frames[9:])[1], first)


def test_a_state_does_not_grow() -> None:
    net = frozen(SMALL)
    state, _ = net.step(net.initial_state(), frames_of(SMALL, 5001))
    held = [state.partial, *state.past]
    assert all(array.base is None for array in held)
    assert sum(array.size for array in held) == 5 + sum(2 * d * SMALL.channels for d in SMALL.dilations)


def test_the_first_outputs_wait_for_the_look_ahead() -> None:
    net, frames = frozen(SMALL), frames_of(SMALL, 8)
    state, none = net.step(net.initial_state(), frames[:5])
    assert none.shape == (0, 3)
    state, some = net.step(state, frames[5:])
    assert some.shape == (6, 3)
    assert net.finish(state).shape == (6, 3)
    assert net.finish(net.initial_state()).shape == (0, 3)


def test_what_lies_after_the_stream_may_be_given() -> None:
    net, frames = frozen(SMALL), frames_of(SMALL, 9)
    longer = np.concatenate([frames, np.full((7, 5), -1.5, np.float32)])
    assert np.array_equal(net.run(frames, silence=-1.5), net.run(longer)[: 5 * 3])


@pytest.mark.parametrize("value", [0.0, 1e30, -1e38])
def test_inputs_far_from_the_calibration_give_finite_outputs(value: float) -> None:
    assert np.isfinite(frozen(SMALL).run(np.full((20, 5), value, np.float32))).all()


def test_freezing_loses_little() -> None:
    config = CausalConfig(in_dim=40, out_dim=32, channels=256, hidden=512, taps=5, dilations=(1,) * 6, lookahead=1)
    net, frames = random_net(config), frames_of(config, 300)
    exact = freeze(net, [torch.from_numpy(frames)])
    with torch.no_grad():
        wanted = net(torch.from_numpy(frames)[None])[0, 1:].numpy()
        thawed = thaw(exact)(torch.from_numpy(frames)[None])[0, 1:].numpy()
    found = exact.run(frames)[: len(wanted)]
    assert snr_db(wanted, found) > 30
    assert snr_db(thawed, found) > 38


def test_a_thawed_net_freezes_to_itself() -> None:
    exact = frozen(SMALL)
    again = freeze(thaw(exact), [torch.from_numpy(frames_of(SMALL, 50, 9))])
    for key, value in exact.tensors().items():
        if value.dtype == np.int8:
            assert np.array_equal(value, again.tensors()[key]), key
        else:
            np.testing.assert_allclose(value, again.tensors()[key], rtol=1e-4, atol=1e-6)


def test_tensors_rebuild_the_net() -> None:
    exact, frames = frozen(SMALL), frames_of(SMALL, 30)
    tensors = exact.tensors()
    assert {key: (value.dtype, value.shape) for key, value in tensors.items()} == tensor_forms(SMALL)
    again = ExactCausalNet(CausalConfig(**SMALL.to_json()), tensors)
    tensors["enter"][:] = 0
    assert np.array_equal(again.run(frames), exact.run(frames))


@given(channels=st.integers(1, 64), seed=st.integers(0, 99))
@settings(deadline=None)
def test_no_sum_after_a_norm_exceeds_its_bound_and_some_come_close(channels: int, seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-127, 128, (7, channels)).astype(np.int8)
    weights[0, 0] = 127
    bound = largest_sum_after_norm(weights)
    aligned = weights.astype(np.float64)
    lengths = np.sqrt((aligned**2).mean(1, keepdims=True))
    steps = np.rint(NORM_STEPS * aligned / np.maximum(lengths, 1e-9))
    largest = np.abs(steps @ weights.T.astype(np.float64)).max()
    assert 0.9 * bound < largest <= bound
    assert np.sqrt((steps**2).sum(1)).max() <= norm_length(channels)


@given(seed=st.integers(0, 999))
@settings(deadline=None)
def test_no_sum_after_hidden_units_exceeds_its_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    expand = rng.integers(-127, 128, (24, 16)).astype(np.int8)
    contract = rng.integers(-127, 128, (5, 24)).astype(np.int8)
    bias, shift = rng.normal(0, 30, 24).astype(np.float32), int(rng.integers(0, 8))
    bound = largest_sum_after_hidden(expand, shift, bias, contract)
    # Climb towards the inputs that make a row's sum of positive terms largest.
    x = rng.normal(size=(5, 16))
    for _ in range(30):
        x *= NORM_STEPS / np.sqrt((x**2).mean(1, keepdims=True))
        active = np.rint(np.maximum(np.rint(x) @ expand.T / 2.0**shift + bias, 0)) > 0
        x = np.einsum("oe,oe,ec->oc", np.maximum(contract, 0), active, expand.astype(float)) + 1e-9
    x *= NORM_STEPS / np.sqrt((x**2).mean(1, keepdims=True))
    hidden = np.rint(np.maximum(np.rint(x) @ expand.T / 2.0**shift + bias, 0))
    assert (hidden * np.maximum(contract, 0)).sum(1).max() <= bound


@given(seed=st.integers(0, 99), inputs=st.integers(1, 900))
def test_inputs_are_limited_by_the_rows(seed: int, inputs: int) -> None:
    weights = np.random.default_rng(seed).integers(-127, 128, (6, inputs)).astype(np.int8)
    limit = largest_input(weights)
    row = np.abs(weights.astype(int)).sum(1).max()
    assert row * limit < EXACT_FLOAT32 <= max(row * (limit + 1), EXACT_FLOAT32 * (limit == 2**15 - 1))


@pytest.mark.parametrize("shape", [(4,), (4, 6), (1, 4, 5)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    net = frozen(SMALL)
    with pytest.raises(ShapeError, match=r"this net reads \[n, 5\]"):
        net.step(net.initial_state(), np.zeros(shape, np.float32))


def test_tensors_that_do_not_fit_are_refused() -> None:
    tensors = frozen(SMALL).tensors()
    cases = [
        ({"enter": None}, r"enter is nothing: this configuration needs int8 \[12, 10\]"),
        ({"enter": tensors["enter"].astype(np.int16)}, r"enter is int16 \[12, 10\]"),
        ({"taps_1": tensors["taps_1"][:2]}, r"taps_1 is float32 \[2, 12\]: this configuration needs float32 \[3, 12\]"),
        ({"leave_bias": np.full(9, np.nan, np.float32)}, "leave_bias holds a value that is not finite"),
        ({"enter_gain": np.zeros(10, np.float32)}, "enter_gain holds a value that is not above 0"),
        ({"taps_3": tensors["taps_1"]}, "unknown tensors taps_3"),
        ({"shift_2": np.array([-20], np.int32)}, r"contract_2: a sum could reach .* float32 is exact up to 2\^24"),
        ({"expand_bias_0": np.full(20, 1e7, np.float32)}, "contract_0: a sum could reach"),
    ]
    for change, message in cases:
        changed = {key: value for key, value in (tensors | change).items() if value is not None}
        with pytest.raises(SpecError, match=message):
            ExactCausalNet(SMALL, changed)


def test_sums_that_are_too_large_after_a_norm_are_refused_and_freeze_avoids_them() -> None:
    config = CausalConfig(in_dim=1, out_dim=1, channels=1024, hidden=1, taps=1, dilations=(1,))
    net = CausalNet(config)
    torch.nn.init.ones_(net.leave.weight)
    tensors = freeze(net, [torch.ones(1, 1)]).tensors()
    assert 0 < tensors["leave"].min() == tensors["leave"].max() < 127
    with pytest.raises(SpecError, match="leave: a sum could reach"):
        ExactCausalNet(config, tensors | {"leave": np.full((1, 1024), 127, np.int8)})


@pytest.mark.parametrize("calibration", [[], [torch.zeros(3, 5)], [torch.full((3, 5), torch.inf)]])
def test_calibration_without_range_is_refused(calibration: list[torch.Tensor]) -> None:
    with pytest.raises(SpecError, match="give typical inputs"):
        freeze(random_net(SMALL), calibration)


def test_a_net_that_is_not_finite_is_refused() -> None:
    net = random_net(SMALL)
    net.blocks[1].expand.bias.data[3] = torch.nan
    with pytest.raises(SpecError, match=r"blocks.1.expand.bias holds a value that is not finite"):
        freeze(net, [torch.ones(3, 5)])


def test_the_exact_net_does_without_torch() -> None:
    code = "import sys, multitok.nets.causal.exact; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
