"""Training of speech units: what is fitted, that the seed fixes it, the command, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import multitok
from multitok.cli import cli
from multitok.errors import CheckpointError, InputError, SpecError
from multitok.frontend import media
from multitok.protocol import Modality
from multitok.tokenizers._semantic_frames import LogMelFrontEnd, MfccFrontEnd
from multitok.tokenizers._semantic_sound import UnitSound
from multitok.train.semantic import (
    fit_codebooks,
    fit_sound,
    log_energies,
    make_front_end,
    silent_units,
    train_semantic,
)
from tests.tokenizers.semantic_models import speech_like

WAVES = [speech_like(32_000, seed) for seed in range(4)]


def test_training_is_fixed_by_its_seed() -> None:
    def trained(seed: int) -> str:
        made = train_semantic(
            WAVES, LogMelFrontEnd(frames=1), codebook_sizes=(8, 16), codebook_size=16, num_tokens=24, iterations=3,
            max_frames=300, seed=seed,
        )  # fmt: skip
        return multitok.fingerprint(made)

    assert trained(0) == trained(0) != trained(1)


def test_units_of_training_sound_like_what_was_trained_on() -> None:
    made = train_semantic(
        WAVES, LogMelFrontEnd(frames=1), codebook_sizes=(32,), codebook_size=32, num_tokens=64, iterations=8
    )
    wave = WAVES[0]
    energies = log_energies(wave.samples[0])
    units = made.encode(wave).values[0]
    predicted = UnitSound(made.get_tensors()["sound"]).log_energies(np.pad(units, 2, mode="edge"))
    left_over = ((predicted - energies) ** 2).mean()
    assert left_over < 0.35 * energies.var()
    again = log_energies(made.decode(made.encode(wave)).samples[0])
    assert np.corrcoef(again.ravel(), energies.ravel())[0, 1] > 0.8
    shorter = made.merged().encode(wave)
    assert shorter.num_tokens < made.deduplicated(durations=False).encode(wave).num_tokens


def test_codebooks_are_clusters_of_normalised_features() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 50, (6, 5)) + np.array([1000, 0, 0, 0, 0])
    features = (centres[rng.integers(0, 6, 3000)] + rng.normal(0, 0.5, (3000, 5))).astype(np.float32)
    codebooks = fit_codebooks(features, (2, 6), seed=1)
    assert codebooks.sizes == (2, 6)
    assert codebooks.values.dtype == np.int8
    found = codebooks.of_size(6) * codebooks.std + codebooks.mean
    nearest = np.abs(found[:, None] - centres).max(axis=2)
    assert (nearest.min(axis=0) < 2).all()


def test_a_table_of_sound_is_found_again() -> None:
    rng = np.random.default_rng(0)
    table = np.zeros((5, 6, 80), np.float32)
    table[2] = rng.normal(-1, 1, (6, 80))
    table[1], table[3] = rng.normal(0, 0.3, (2, 6, 80))
    units = [rng.integers(0, 6, 2000).astype(np.int32) for _ in range(3)]
    sound = UnitSound(table)
    logs = [sound.log_energies(np.pad(clip, 2, mode="edge")) for clip in units]
    found = UnitSound(fit_sound(units, logs, 6))
    fresh = rng.integers(0, 6, 500)
    assert np.abs(found.log_energies(fresh) - sound.log_energies(fresh)).max() < 0.05


def test_units_that_were_never_seen_sound_like_the_average() -> None:
    units = [np.zeros(300, np.int32)]
    logs = [np.full((300, 80), -2.0, np.float32)]
    found = UnitSound(fit_sound(units, logs, 3)).log_energies(np.full(9, 2))
    assert np.abs(found + 2).max() < 0.01


def test_silent_units_are_the_quiet_ones() -> None:
    units = [np.array([0, 0, 1, 1, 2, 3, 3, 0, 1, 3], np.int32)]
    level = np.array([-1.0, -5.0, -2.0, -1.5], np.float32)
    assert silent_units(units, [np.tile(level[units[0]][:, None], 80)], 5).tolist() == [1]


def test_energies_of_a_frame_are_those_in_its_middle() -> None:
    clicks = np.zeros(16_000, np.float32)
    clicks[320 * 20 + 160] = 1.0
    energies = log_energies(clicks).mean(axis=1)
    assert energies.shape == (50,)
    assert energies.argmax() == 20


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no waveform"):
        train_semantic([], LogMelFrontEnd())
    with pytest.raises(SpecError, match="one of codebook_sizes"):
        train_semantic(WAVES, LogMelFrontEnd(), codebook_sizes=(8,), codebook_size=9)
    with pytest.raises(SpecError, match="whisper:PATH"):
        make_front_end("ear", 1)
    with pytest.raises(CheckpointError):
        make_front_end(f"whisper:{tmp_path}", 1)
    assert isinstance(make_front_end("mfcc", 0), MfccFrontEnd)


@pytest.mark.parametrize("front_end", ["mfcc", "best-rq"])
def test_the_command_makes_a_checkpoint(front_end: str, tmp_path: Path) -> None:
    for i, wave in enumerate(WAVES):
        media.write(tmp_path / f"{i}.wav", Modality.AUDIO, wave)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    out = tmp_path / "units"
    command = ["train", "semantic", str(tmp_path), "--out", str(out), "--front-end", front_end]
    settings = ["--codebook-sizes", "8,16", "--codebook-size", "16", "--tokens", "20"]
    result = CliRunner().invoke(cli, [*command, *settings])
    assert result.exit_code == 0, result.output
    assert "left out" in result.stderr
    loaded = multitok.load(out)
    assert loaded.spec.kind == "audio-semantic"
    assert loaded.encode(WAVES[0]).grid == (100,)
