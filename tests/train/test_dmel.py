"""Fitting dMel levels: an optimum of Lloyd's quantiser per band, the same for the same sound and seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import multitok
from multitok.errors import InputError
from multitok.protocol import Waveform
from multitok.train.dmel import lloyd_levels, train_dmel


def waves() -> list[Waveform]:
    rng = np.random.default_rng(0)
    loudness = np.repeat(10 ** rng.uniform(-3, 0, 40), 400)
    return [Waveform((rng.standard_normal(16_000) * loudness * gain).astype(np.float32), 16_000) for gain in (0.1, 0.3)]


def mean_square(values: np.ndarray, levels: np.ndarray) -> float:
    return float((np.abs(values[:, None] - levels).min(axis=1) ** 2).mean())


@given(
    values=hnp.arrays(np.float64, st.integers(8, 60), elements=st.floats(-9, 3, width=16), unique=True),
    num_levels=st.integers(2, 8),
)
@settings(max_examples=60)
def test_levels_rise_and_are_the_means_of_what_lies_nearest(values: np.ndarray, num_levels: int) -> None:
    levels = lloyd_levels(values, num_levels)
    assert levels.shape == (num_levels,)
    assert (np.diff(levels) > 0).all()
    edges = (levels[1:] + levels[:-1]) / 2
    nearest = np.searchsorted(edges, values, side="right")
    for i in range(num_levels):
        if (nearest == i).any():
            assert levels[i] == pytest.approx(values[nearest == i].mean(), abs=1e-9)


def test_levels_are_better_than_even_ones() -> None:
    values = np.random.default_rng(0).standard_normal(5_000) ** 3
    even = np.linspace(values.min(), values.max(), 33)[1::2]
    assert mean_square(values, lloyd_levels(values, 16)) < 0.25 * mean_square(values, even)


def test_one_value_taken_often_gets_a_level_of_its_own() -> None:
    values = np.concatenate([np.full(1_000, -7.5), np.linspace(0, 1, 50)])
    assert lloyd_levels(values, 4)[0] == pytest.approx(-7.5, abs=1e-9)


def test_training_is_deterministic_and_the_seed_counts() -> None:
    first, second = train_dmel(waves(), num_mels=20), train_dmel(waves(), num_mels=20)
    assert multitok.fingerprint(first) == multitok.fingerprint(second)
    assert multitok.fingerprint(first) != multitok.fingerprint(train_dmel(waves(), num_mels=20, seed=1))


def test_every_code_is_used_on_the_sound_fitted_to() -> None:
    tokenizer = train_dmel(waves(), num_mels=20, num_levels=8, gains_db=(0.0, 0.0), name="noise")
    assert tokenizer.spec.codebook_sizes == (8,) * 20
    assert tokenizer.spec.name == "noise"
    values = np.concatenate([tokenizer.encode(wave).values for wave in waves()], axis=1)
    assert all(set(band) == set(range(8)) for band in values.tolist())


def test_fitting_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no waveform to fit levels to: give some minutes"):
        train_dmel([])
    with pytest.raises(InputError, match="1 different values for 16 levels: give more, or more varied, data"):
        train_dmel([Waveform(np.zeros(800, np.float32), 16_000)])
