"""Mel-VQ: the contracts, the arithmetic against a slow reference, prediction and quantisers, vocoder or not."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.codebook import nearest_code
from multitok.errors import SpecError
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.protocol import Codes, Waveform
from multitok.tokenizers._mel_latents import (
    BASIS_SCALE,
    LATENT_SCALE,
    MOST_LATENT,
    PREDICTION_SCALE,
    MelLatents,
    ResidualBeam,
    ScalarGroups,
)
from multitok.tokenizers.audio_mel_vq import AudioMelVq
from multitok.train.mel_vq import train_mel_vq
from tests.nets.small_vocoder import vocoder
from tests.stream_contract import check_streaming, sound


def _waves(count: int = 6) -> list[Waveform]:
    return [_swells(40_000, seed) for seed in range(count)]


def _swells(num_samples: int, seed: int) -> Waveform:
    """Noise below and above 2 kHz, each swelling and fading by 30 dB in its own time."""
    rng = np.random.default_rng(seed)
    noise, t = rng.normal(0, 0.2, num_samples), np.arange(num_samples) / 16_000
    low = np.convolve(noise, np.hanning(9) / 4, "same")
    speeds, phases = rng.uniform(2, 8, 2), rng.uniform(0, 6, 2)
    gains = [10 ** (0.75 * (np.sin(speed * t + phase) - 1)) for speed, phase in zip(speeds, phases, strict=True)]
    return Waveform((low * gains[0] + (noise - low) * gains[1]).astype(np.float32), 16_000)


@cache
def _trained(**options: Any) -> AudioMelVq:
    sizes = options.pop("codebook_sizes", (16, 16))
    return train_mel_vq(_waves(), codebook_sizes=sizes, latent_dim=12, rounds=2, iterations=3, **options)


def _log_distance_db(tokenizer: AudioMelVq) -> float:
    """Of energies, by way of the codes alone."""
    mel = MelSpectrogram(16_000, 200, 600, 1024, 80)
    wave = _swells(32_000, 77)
    synthesis = tokenizer._synthesis()
    values = tokenizer.encode(wave).values
    _, levels = synthesis.latents.decode(synthesis.latents.initial_state(), values)
    wanted = 10 * np.log10(mel.energies(wave.samples[0]) + 1e-6)
    found: NDArray[np.float64] = levels.reshape(-1, 80)[: len(wanted)] * (10 / 32)
    return float(np.sqrt(np.square(found - wanted).mean()))


@pytest.mark.parametrize(
    "options",
    [{}, {"quantizer": "scalar"}, {"patch_frames": 3}, {"past_patches": 0}, {"beam": 1}],
    ids=["residual", "scalar", "patches", "unpredicted", "greedy"],
)
def test_streams_equal_the_whole(options: dict[str, Any]) -> None:
    check_streaming(_trained(**options).with_vocoder(vocoder()), examples=4, max_s=0.6)


@pytest.mark.parametrize("num_samples", [1, 199, 200, 201, 599, 600, 601])
@pytest.mark.parametrize("patch_frames", [1, 3])
def test_number_of_patches(num_samples: int, patch_frames: int) -> None:
    tokenizer = _trained(patch_frames=patch_frames)
    codes = tokenizer.encode(Waveform(np.full(num_samples, 0.1, np.float32), 16_000))
    assert codes.grid == (-(-num_samples // (200 * patch_frames)),)
    assert tokenizer.decode(codes).samples.shape == (1, num_samples)


def test_arithmetic_is_that_of_fractions() -> None:
    """Latents, predictions and levels in exact rational numbers, frame by frame."""
    rng = np.random.default_rng(0)
    d, length, past = 3, 5, 2
    basis = rng.integers(-(2**12), 2**12, (length, d)).astype(np.int16)
    prediction = rng.integers(-(2**11), 2**11, (past * d, d)).astype(np.int16)
    mean = rng.integers(-200, 200, length).astype(np.int16)
    book = rng.integers(-900, 900, (7, d)).astype(np.int16)
    latents = MelLatents(mean, basis, prediction, ResidualBeam([book]))
    levels = rng.integers(-250, 130, (40, length)).astype(np.float64)
    _, codes = latents.encode(latents.initial_state(), levels)
    state = [[0] * d for _ in range(past)]
    for t, row in enumerate(levels.astype(int).tolist()):
        given = [row[i] - int(mean[i]) for i in range(length)]
        latent = [
            round(Fraction(sum(given[i] * int(basis[i, j]) for i in range(length)) * LATENT_SCALE, BASIS_SCALE))
            for j in range(d)
        ]
        flat = [value for each in state for value in each]
        predicted = [
            round(Fraction(sum(flat[i] * int(prediction[i, j]) for i in range(past * d)), PREDICTION_SCALE))
            for j in range(d)
        ]
        missed = [latent[j] - predicted[j] for j in range(d)]
        costs = [sum((missed[j] - int(entry[j])) ** 2 for j in range(d)) for entry in book]
        assert int(codes[0, t]) == costs.index(min(costs))
        decoded = [predicted[j] + int(book[codes[0, t], j]) for j in range(d)]
        state = [[min(max(value, -MOST_LATENT), MOST_LATENT) for value in decoded], *state][:past]


def test_any_codes_decode_to_something_finite() -> None:
    tokenizer = _trained().with_vocoder(vocoder())
    values = np.random.default_rng(0).integers(0, 16, (2, 400)).astype(np.int32)
    assert np.isfinite(tokenizer.decode(Codes(values, (80_000,))).samples).all()
    # A prediction that runs away is stopped.
    wild = MelLatents(
        np.zeros(2, np.int16),
        np.full((2, 1), 2**12, np.int16),
        np.full((1, 1), 2**14, np.int16),
        ResidualBeam([np.full((1, 1), 100, np.int16)]),
    )
    past, levels = wild.decode(wild.initial_state(), np.zeros((1, 50), np.int32))
    assert past.tolist() == [[MOST_LATENT]]
    assert np.isfinite(levels).all()


def test_prediction_and_more_codes_help() -> None:
    good = _log_distance_db(_trained())
    assert good < 0.95 * _log_distance_db(_trained(past_patches=0))
    assert _log_distance_db(_trained(codebook_sizes=(64, 64, 64))) < 0.9 * good


def test_a_beam_of_one_is_greedy_and_more_is_no_worse() -> None:
    rng = np.random.default_rng(1)
    books = [(rng.normal(size=(32, 6)) * 400 / (k + 1)).astype(np.int16) for k in range(3)]
    vectors = np.rint(rng.normal(size=(200, 6)) * 400)
    errors = []
    for beam in (1, 4, 16):
        quantizer = ResidualBeam(books, beam)
        found = [quantizer.encode(vector) for vector in vectors]
        codes = np.array([each for each, _ in found]).T
        assert np.array_equal(np.array([decoded for _, decoded in found]), quantizer.decode(codes))
        errors.append(np.square(vectors - quantizer.decode(codes)).sum())
    left = vectors.astype(np.float32)
    for k, book in enumerate(books):
        greedy = nearest_code(left, book.astype(np.float32))
        if k == 0:
            first = ResidualBeam(books).encode(vectors[0])[0][0]
            assert first == greedy[0]
        left = left - book[greedy]
    assert errors[0] == np.square(left).sum()
    assert errors[0] > errors[1] >= errors[2]


def test_scalar_groups_are_mixed_radix() -> None:
    quantizer = ScalarGroups(np.array([10, 20, 30], np.int16), [[3, 4], [5]])
    assert quantizer.codebook_sizes == (12, 5)
    codes, decoded = quantizer.encode(np.array([11.0, -35.0, 61.0]))
    assert codes.tolist() == [2 + 0 * 3, 4]
    assert decoded.tolist() == [10, -30, 60]
    assert quantizer.encode(np.array([-99.0, 99.0, -99.0]))[0].tolist() == [0 + 3 * 3, 0]
    every = np.stack(np.meshgrid(np.arange(12), np.arange(5)), 0).reshape(2, -1).astype(np.int32)
    again = np.array([quantizer.encode(row)[0] for row in quantizer.decode(every)]).T
    assert np.array_equal(again, every)


def test_training_repeats() -> None:
    first, second = (train_mel_vq(_waves(2), codebook_sizes=(8,), latent_dim=4, rounds=2, seed=3) for _ in range(2))
    assert all(np.array_equal(value, second.get_tensors()[key]) for key, value in first.get_tensors().items())


def test_a_vocoder_changes_the_sound_and_no_code() -> None:
    plain, wave = _trained(), sound(16_000, 16_000)
    voiced = plain.with_vocoder(vocoder())
    assert voiced.encode(wave) == plain.encode(wave)
    assert not np.array_equal(voiced.decode(plain.encode(wave)).samples, plain.decode(plain.encode(wave)).samples)
    assert "vocoder" not in plain.get_config()
    rebuilt = AudioMelVq.from_state(voiced.get_config(), voiced.get_tensors())
    codes = plain.encode(wave)
    assert np.array_equal(rebuilt.decode(codes).samples, voiced.decode(codes).samples)
    again = rebuilt.with_vocoder(None)
    assert again.get_config() == plain.get_config()


def test_parts_that_do_not_fit() -> None:
    tokenizer = _trained()
    config, tensors = tokenizer.get_config(), tokenizer.get_tensors()
    with pytest.raises(SpecError, match="rows together"):
        AudioMelVq.from_state(config, {**tensors, "codebooks": tensors["codebooks"][1:]})
    with pytest.raises(SpecError, match="need int16"):
        AudioMelVq.from_state(config, {**tensors, "basis": tensors["basis"][:, 1:]})
    with pytest.raises(SpecError, match="give one of residual, scalar"):
        AudioMelVq.from_state({**config, "quantizer": {"kind": "tree"}}, tensors)
    with pytest.raises(SpecError, match="floor_log10"):
        AudioMelVq.from_state({**config, "floor_log10": 3.0}, tensors)
    with pytest.raises(SpecError, match="a vocoder for"):
        tokenizer.with_vocoder(vocoder(hop_length=160, window_length=640))
    with pytest.raises(SpecError, match="beam=0"):
        ResidualBeam([np.zeros((4, 2), np.int16)], 0)


def test_saved_and_loaded(tmp_path: Path) -> None:
    import multitok

    tokenizer = _trained().with_vocoder(vocoder())
    loaded = multitok.load(multitok.save(tokenizer, tmp_path / "saved", card="# card\n"))
    wave = sound(10_000, 16_000)
    assert loaded.encode(wave) == tokenizer.encode(wave)
