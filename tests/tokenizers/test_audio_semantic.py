"""Speech units: the contracts of tokenizers and streams with every front end, sizes, sound, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import multitok
from multitok.errors import InputError, SpecError
from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.freeze import freeze
from multitok.nets.causal.module import CausalNet
from multitok.protocol import Codes, Waveform
from multitok.tokenizers._semantic_codebooks import Codebooks
from multitok.tokenizers._semantic_frames import CausalNetFrontEnd, LogMelFrontEnd, MfccFrontEnd
from multitok.tokenizers._semantic_front_ends import FrontEnd
from multitok.tokenizers._semantic_sound import RAISED_LOG10, UnitSound
from multitok.train.semantic import best_rq, random_projection
from tests import samples
from tests.contract import check_tokenizer
from tests.stream_contract import check_streaming
from tests.tokenizers.semantic_models import small_whisper, speech_like, tokenizer


def _causal_net() -> CausalNetFrontEnd:
    torch.manual_seed(0)
    config = CausalConfig(in_dim=80, out_dim=12, channels=16, hidden=24, taps=3, dilations=(1, 2), stack=2, lookahead=2)
    net = CausalNet(config)
    for block in net.blocks:
        torch.nn.init.normal_(block.contract.weight, std=0.2)
    exact = freeze(net, [torch.randn(2, 64, 80)])
    return CausalNetFrontEnd(config=config.to_json(), tensors=exact.tensors())


FRONT_ENDS: dict[str, Callable[[], FrontEnd]] = {
    "log-mel": lambda: LogMelFrontEnd(frames=1),
    "mfcc": MfccFrontEnd,
    "random-projection": lambda: random_projection([speech_like(8000)]),
    "causal-net": _causal_net,
    "whisper": small_whisper,
}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_contract(name: str, tmp_path: Path) -> None:
    made = tokenizer(FRONT_ENDS[name]())
    check_tokenizer(made, samples.raws(made), tmp_path)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_streams(name: str) -> None:
    check_streaming(tokenizer(FRONT_ENDS[name]()), examples=4, max_s=0.7)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_frame_knows_no_more_of_the_future_than_it_says(name: str) -> None:
    front_end = FRONT_ENDS[name]()
    made = tokenizer(front_end)
    wave = speech_like(16_000).samples[0]
    changed = wave.copy()
    changed[9_600:] = 0.3 * np.sign(np.sin(np.arange(6_400)))
    before = made.features(Waveform(wave, 16_000))
    after = made.features(Waveform(changed, 16_000))
    assert front_end.lookahead_s is not None
    known = int((9_600 - front_end.lookahead_s * 16_000) // 320)
    assert np.array_equal(before[:known], after[:known])
    assert not np.array_equal(before, after)


def test_another_size_is_another_codebook_of_the_same_features() -> None:
    small = tokenizer(LogMelFrontEnd(frames=0))
    large = small.with_codebook_size(40)
    wave = speech_like(9_000)
    assert small.available_codebook_sizes == (20, 40)
    assert (small.spec.codebook_sizes, large.spec.codebook_sizes) == ((20,), (40,))
    assert np.array_equal(small.features(wave), large.features(wave))
    assert large.with_codebook_size(20).encode(wave) == small.encode(wave)
    assert multitok.fingerprint(small) != multitok.fingerprint(large)
    with pytest.raises(SpecError, match="has 20, 40"):
        small.with_codebook_size(30)


def test_units_are_the_nearest_clusters() -> None:
    made = tokenizer(LogMelFrontEnd(frames=1))
    wave = speech_like(12_345)
    features = made.features(wave).astype(np.float64)
    codebook = made.get_tensors()["codebooks"][:20].astype(np.float64)
    distances = ((features[:, None] - codebook) ** 2).sum(axis=2)
    assert np.array_equal(made.encode(wave).values[0], distances.argmin(axis=1))


def test_codebooks_in_int8_are_multiplied_out() -> None:
    values = np.random.default_rng(0).integers(-127, 128, (7, 3)).astype(np.int8)
    scale = np.array([0.5, 0.25, 2], np.float32)
    codebooks = Codebooks(values, (3, 4), np.zeros(3, np.float32), np.ones(3, np.float32), scale)
    assert np.array_equal(codebooks.of_size(4), values[3:] * scale)
    with pytest.raises(SpecError, match="int8"):
        Codebooks(values, (3, 4), np.zeros(3, np.float32), np.ones(3, np.float32))
    with pytest.raises(SpecError, match="rising"):
        Codebooks(values, (4, 3), np.zeros(3, np.float32), np.ones(3, np.float32), scale)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 8, 61])
def test_sound_has_the_length_of_its_units(num_frames: int) -> None:
    units = np.random.default_rng(num_frames).integers(0, 9, num_frames).astype(np.int32)
    for places in (1, 3, 5):
        table = np.random.default_rng(1).normal(-1, 1, (places, 9, 80)).astype(np.float16)
        sound = UnitSound(table)
        state, samples_ = sound.step(sound.initial_state(), units)
        whole = np.concatenate([samples_, sound.finish(state)])
        assert whole.shape == (320 * num_frames,)
        assert np.isfinite(whole).all()


def test_energies_of_sound_lie_between_those_of_the_units_around() -> None:
    table = np.zeros((1, 2, 80), np.float32)
    table[0, 1] = 1.0
    taken = []

    class Taker:
        def initial_state(self) -> None: ...

        def step(self, state: None, energies: np.ndarray) -> tuple[None, np.ndarray]:
            taken.append(energies)
            return None, np.zeros(200 * len(energies), np.float32)

        def finish(self, state: None) -> np.ndarray:
            return np.zeros(0, np.float32)

    sound = UnitSound(table, Taker())
    units = np.array([0, 1, 1, 0, 1], np.int32)
    state = sound.initial_state()
    for unit in units:
        state, _ = sound.step(state, np.array([unit]))
    sound.finish(state)
    middles = np.clip(((np.arange(8) + 0.5) * 200) / 320 - 0.5, 0, 4)
    logs = np.log10(np.concatenate(taken)[:, 0]) - RAISED_LOG10
    assert np.allclose(logs, np.interp(middles, np.arange(5), units), atol=0.01)


def test_what_is_refused() -> None:
    made = tokenizer(LogMelFrontEnd(frames=0))
    with pytest.raises(InputError):
        made.encode(Waveform(np.zeros((1, 0), np.float32), 16_000))
    silent = type(made).from_state(
        made.get_config(), {key: value for key, value in made.get_tensors().items() if key != "sound"}
    )
    with pytest.raises(InputError, match="no sound"):
        silent.decode(Codes(np.zeros((1, 3), np.int32), (960,)))
    with pytest.raises(SpecError, match="no merges for 40"):
        made.with_codebook_size(40).merged()
    with pytest.raises(SpecError, match="log-mel"):
        type(made).from_state({**made.get_config(), "front_end": {"type": "ear"}}, made.get_tensors())


def test_best_rq_compares_by_angle_and_is_drawn_from_the_seed(tmp_path: Path) -> None:
    waves = [speech_like(16_000, seed) for seed in range(2)]
    made = best_rq(waves, codebook_size=64, seed=3)
    assert multitok.fingerprint(made) == multitok.fingerprint(best_rq(waves, codebook_size=64, seed=3))
    assert multitok.fingerprint(made) != multitok.fingerprint(best_rq(waves, codebook_size=64, seed=4))
    features = made.features(waves[0]).astype(np.float64)
    codebook = made.get_tensors()["codebooks"].astype(np.float64)
    cosines = features @ codebook.T / np.linalg.norm(codebook, axis=1)
    assert (made.encode(waves[0]).values[0] == cosines.argmax(axis=1)).mean() > 0.99
    assert len(set(made.encode(waves[0]).values[0].tolist())) > 10


def test_a_projection_is_exact_whatever_the_number_of_frames() -> None:
    rng = np.random.default_rng(0)
    projection = rng.integers(-32767, 32768, (512, 9)).astype(np.int16)
    scale, mean, std = np.full(9, 2e-5, np.float32), np.zeros(512, np.float32), np.full(512, 2, np.float32)
    codebooks = Codebooks(np.zeros((4, 9), np.float32), (4,), mean, std, None, projection, scale)
    features = rng.normal(0, 2, (300, 512)).astype(np.float32)
    whole = codebooks.normalised(features)
    pieces = [codebooks.normalised(features[i : i + 7]) for i in range(0, 300, 7)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.abs(whole - features / 2 @ (projection * scale)).max() < 0.05
    with pytest.raises(SpecError, match=r"\[512, 9\]"):
        Codebooks(np.zeros((4, 9), np.float32), (4,), mean, std, None, projection[:, :5], scale)


def test_a_vocoder_makes_the_sound_of_units_in_any_pieces() -> None:
    made = tokenizer(LogMelFrontEnd(frames=0)).with_renderer(multitok.load("dmel-vocoder").vocoder)  # type: ignore[attr-defined]
    codes = made.encode(speech_like(6_789))
    whole = made.decode(codes).samples[0]
    stream = made.decode_stream()
    pieces = [stream.push(codes.values[:, i : i + 3]) for i in range(0, codes.grid[0], 3)]
    assert np.array_equal(np.concatenate([*pieces, stream.flush(6_789)]), whole)
    assert whole.shape == (6_789,)
    assert not np.array_equal(whole, made.with_renderer(None).decode(codes).samples[0])
