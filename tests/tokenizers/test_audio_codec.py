"""The codec as a tokenizer: contract, streams, levels, bitrates, its module, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import CodeRangeError, ShapeError, SpecError
from multitok.metrics.levels import LevelDroppable
from multitok.nets.codec_config import CodecConfig
from multitok.protocol import Codes, Waveform
from multitok.tokenizers.audio_codec import AudioCodec
from tests import samples
from tests.contract import check_tokenizer
from tests.nets import small_codec
from tests.stream_contract import check_streaming, sound

CODEC = small_codec.exact_codec()
TOKENIZER = AudioCodec(CODEC)
RATE_HZ = 16_000


def test_contract(tmp_path: Path) -> None:
    check_tokenizer(TOKENIZER, samples.raws(TOKENIZER), tmp_path)


@pytest.mark.parametrize("count", [2, 4])
def test_streams(count: int) -> None:
    check_streaming(TOKENIZER.first_codebooks(count))


def test_codes_follow_the_sound() -> None:
    codes = TOKENIZER.encode(sound(RATE_HZ, RATE_HZ))
    assert codes.grid == (80,)
    assert all(len(np.unique(row)) > 4 for row in codes.values)
    other = TOKENIZER.encode(sound(RATE_HZ, RATE_HZ, seed=1))
    assert codes != other


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 6_000), st.integers(0, 100))
def test_the_first_codebooks_are_a_tokenizer_of_their_own(count: int, num_samples: int, seed: int) -> None:
    wave = sound(num_samples, RATE_HZ, seed=seed)
    whole, first = TOKENIZER.encode(wave), TOKENIZER.first_codebooks(count)
    cut = first.encode(wave)
    assert cut == Codes(whole.values[:count], whole.extent)
    decoded = first.decode(cut).samples
    assert decoded.shape == (1, num_samples)
    for codes in (whole, cut):
        assert np.array_equal(TOKENIZER.decode(codes, num_codebooks=count).samples, decoded)
    stream = TOKENIZER.decode_stream(num_codebooks=count)
    pieces = [stream.push(cut.values[:, t : t + 3]) for t in range(0, cut.grid[0], 3)]
    assert np.array_equal(np.concatenate([*pieces, stream.flush(num_samples)]), decoded[0])


def test_more_codebooks_change_the_sound() -> None:
    codes = TOKENIZER.encode(sound(RATE_HZ, RATE_HZ))
    decoded = [TOKENIZER.decode(codes, num_codebooks=k).samples for k in range(1, 5)]
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(decoded))
    assert np.array_equal(decoded[-1], TOKENIZER.decode(codes).samples)
    assert isinstance(TOKENIZER, LevelDroppable)
    assert TOKENIZER.level_droppable


def test_rates_and_lookahead() -> None:
    assert TOKENIZER.frame_rate == Fraction(80)
    assert TOKENIZER.bitrate_bps == 80 * 4 * 4
    assert TOKENIZER.at_bitrate(1279).spec.num_codebooks == 3
    assert TOKENIZER.at_bitrate(1e6).spec.num_codebooks == 4
    with pytest.raises(SpecError, match="one codebook takes 320"):
        TOKENIZER.at_bitrate(319)
    assert (TOKENIZER.encoder_lookahead_s, TOKENIZER.decoder_lookahead_s) == (0.025, 0.05)


def test_the_lookahead_is_what_codes_and_sound_depend_on() -> None:
    hop, ahead = 200, round(TOKENIZER.encoder_lookahead_s * RATE_HZ)
    wave = sound(40 * hop, RATE_HZ)
    codes = TOKENIZER.encode(wave).values
    changed = wave.samples.copy()
    changed[:, 20 * hop :] = -changed[:, 20 * hop :] * 0.5 + 0.05
    first = int((TOKENIZER.encode(Waveform(changed, RATE_HZ)).values != codes).any(axis=0).argmax())
    assert 20 * hop - ahead - hop < (first + 1) * hop <= 20 * hop + hop
    assert (first + 1) * hop + ahead > 20 * hop
    other = codes.copy()
    other[:, 20:] = (other[:, 20:] + 5) % 16
    before, after = (TOKENIZER.decode(Codes(each, (40 * hop,))).samples[0] for each in (codes, other))
    start = int((before != after).argmax())
    assert (20 * hop - start) / RATE_HZ <= TOKENIZER.decoder_lookahead_s
    assert start < 20 * hop


def test_the_module_has_the_codes_and_the_sound_of_the_tokenizer() -> None:
    tokenizer = TOKENIZER.first_codebooks(3)
    module = tokenizer.module
    waves = [sound(4_000, RATE_HZ, seed=seed) for seed in range(3)]
    batch = torch.from_numpy(np.stack([wave.samples[0] for wave in waves]))
    codes = module.encode(batch)
    assert codes.shape == (3, 3, 20)
    decoded = module.decode(codes, 4_000)
    for wave, own, made in zip(waves, codes, decoded, strict=True):
        expected = tokenizer.encode(wave)
        assert np.array_equal(own.numpy(), expected.values)
        assert np.array_equal(made.numpy(), tokenizer.decode(expected).samples[0])
    assert torch.equal(
        module.decode(codes[:, :2], 4_000)[0],
        torch.from_numpy(tokenizer.decode(tokenizer.encode(waves[0]), num_codebooks=2).samples[0]),
    )
    assert list(module.state_dict()) == list(module.parameters()) == []
    with pytest.raises(ShapeError, match="give floats"):
        module.encode(batch[0])
    with pytest.raises(ShapeError, match="k from 1 to 3"):
        module.decode(torch.zeros(1, 4, 2, dtype=torch.int64))
    with pytest.raises(CodeRangeError):
        module.decode(torch.full((1, 3, 2), 16))


def test_gradients_pass_through_the_module() -> None:
    batch = torch.from_numpy(np.stack([sound(4_000, RATE_HZ, seed=seed).samples[0] for seed in range(2)]))
    batch.requires_grad_()
    made = TOKENIZER.module(batch)
    made.square().mean().backward()
    assert made.shape == batch.shape
    assert batch.grad is not None
    assert bool(batch.grad.isfinite().all())
    assert float(batch.grad.abs().sum()) > 0
    exact = TOKENIZER.module.decode(TOKENIZER.module.encode(batch), 4_000)
    # Rounding moves some codes; the sound is about the same.
    assert float((made - exact).detach().square().mean()) < 0.3 * float(exact.square().mean())


def test_a_cut_tokenizer_keeps_all_codebooks_in_its_checkpoint() -> None:
    cut = TOKENIZER.first_codebooks(2)
    assert cut.get_config()["num_codebooks"] == 2
    assert cut.get_tensors().keys() == TOKENIZER.get_tensors().keys()
    assert AudioCodec.from_state(cut.get_config(), cut.get_tensors()).spec == cut.spec


def _without(key: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda config, tensors: (config if key in config else tensors).pop(key)


MALFORMED: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "no codec": (_without("codec"), "lacks codec"),
    "no number of codebooks": (_without("num_codebooks"), "lacks num_codebooks"),
    "too many codebooks": (lambda config, _: config.update(num_codebooks=5), "has 1 to 4"),
    "no codebooks": (lambda config, _: config["codec"].update(codebook_sizes=[]), "one codebook or more"),
    "a field too many": (lambda config, _: config["codec"].update(depth=3), "not the shape of a codec"),
    "no encoder": (lambda config, _: config["codec"].pop("encoder"), "not the shape of a codec"),
    "another window": (lambda config, _: config["codec"].update(window_length=400), "windows of 400 and 800 samples"),
    "another hop": (lambda config, _: config["codec"].update(hop_length=300), "give a multiple of the hop"),
    "a long window": (lambda config, _: config["codec"].update(fft_length=512), "window <= FFT"),
    "other latents": (lambda config, _: config["codec"]["decoder"].update(in_dim=9), "the decoder takes 9"),
    "another net": (lambda config, _: config["codec"]["encoder"].update(hidden=25), "this configuration needs"),
    "a missing codebook": (_without("codebook_3"), "codebook_3 is missing"),
    "a codebook of floats": (
        lambda _, tensors: tensors.update(codebook_0=tensors["codebook_0"].astype(np.float32)),
        "needs float16",
    ),
    "a codebook that is not finite": (
        lambda _, tensors: tensors["codebook_1"].__setitem__((0, 0), np.nan),
        "codebook 1 holds NaN",
    ),
    "a tensor too many": (lambda _, tensors: tensors.update(codebook_4=tensors["codebook_0"]), "unknown tensors"),
    "a missing weight": (_without("encoder.enter"), "enter is nothing"),
    "a missing map": (_without("skip.weights"), "weights of a linear map is nothing"),
    "a map of floats": (
        lambda _, tensors: tensors.update({"envelope.weights": tensors["envelope.weights"].astype(np.float32)}),
        "this one needs int16",
    ),
    "a map that is not finite": (
        lambda _, tensors: tensors["envelope.bias"].__setitem__(0, np.inf),
        "bias of a linear map holds a value that is not finite",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused(name: str) -> None:
    spoil, message = MALFORMED[name]
    config, tensors = TOKENIZER.get_config(), TOKENIZER.get_tensors()
    spoil(config, tensors)
    with pytest.raises(SpecError, match=message):
        AudioCodec.from_state(config, tensors)


def test_the_shape_travels_as_json() -> None:
    assert CodecConfig.from_json(CODEC.config.to_json()) == CODEC.config


@pytest.mark.parametrize("count", [0, 5])
def test_numbers_of_codebooks_that_cannot_be(count: int) -> None:
    codes = TOKENIZER.encode(sound(1_000, RATE_HZ))
    for refused in (
        lambda: TOKENIZER.first_codebooks(count),
        lambda: TOKENIZER.decode(codes, num_codebooks=count),
        lambda: TOKENIZER.decode_stream(num_codebooks=count),
    ):
        with pytest.raises(SpecError):
            refused()
