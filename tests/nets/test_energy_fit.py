"""Sound pulled towards the energies that codes allow: nearer with each pass, untouched within; splits do not show."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.energy_fit import EnergyFit
from tests.stream_contract import sound

MEL = MelSpectrogram(16_000, 200, 600, 1024, 80)
FIT = EnergyFit(MEL)


def _run(
    samples: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64], cuts: list[int]
) -> NDArray[np.float32]:
    """Samples in pieces that end after these frames; the energies of a piece come with its samples."""
    state, parts = FIT.initial_state(), []
    bounds = [0, *cuts, len(low)]
    for start, end in itertools.pairwise(bounds):
        piece = samples[start * 200 : end * 200] if end < len(low) else samples[start * 200 :]
        state, ready = FIT.step(state, piece, low[start:end], high[start:end])
        parts.append(ready)
    return np.concatenate([*parts, FIT.finish(state)])


def _distance_db(samples: NDArray[np.float32], wanted: NDArray[np.float64]) -> float:
    logs = [10 * np.log10(np.maximum(energies, 1e-6)) for energies in (MEL.energies(samples), wanted)]
    return float(np.abs(logs[0] - logs[1]).mean())


@pytest.mark.parametrize("num_samples", [200, 201, 1_000, 12_345])
def test_as_many_samples_as_before(num_samples: int) -> None:
    samples = sound(num_samples, 16_000).samples[0]
    wanted = MEL.energies(samples) * 2
    assert _run(samples, wanted, wanted, []).shape == samples.shape


def test_sound_within_its_cells_stays() -> None:
    samples = sound(8_000, 16_000).samples[0]
    energies = MEL.energies(samples)
    made = _run(samples, energies * 0.99, energies * 1.01 + 1e-9, [])
    np.testing.assert_allclose(made, samples, atol=1e-6)


def test_each_pass_comes_nearer() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 16_000).astype(np.float32)
    gains = 10 ** (np.sin(np.arange(80) / 9) + np.sin(np.arange(80)[:, None] / 11))
    wanted = MEL.energies(samples) * gains
    distances = [_distance_db(samples, wanted)]
    for _ in range(3):
        samples = _run(samples, wanted, wanted, [])
        distances.append(_distance_db(samples, wanted))
    assert distances == sorted(distances, reverse=True)
    assert distances[2] < 0.5 * distances[0]


def test_splits_do_not_show() -> None:
    samples = sound(10_000, 16_000).samples[0]
    rng = np.random.default_rng(1)
    low = MEL.energies(samples) * 10 ** rng.normal(0, 0.3, (50, 80))
    high = low * 1.5
    whole = _run(samples, low, high, [])
    for seed in range(5):
        cuts = np.sort(np.random.default_rng(seed).integers(1, 50, 6)).tolist()
        assert np.array_equal(_run(samples, low, high, cuts), whole)
    assert np.array_equal(_run(samples, low, high, list(range(1, 50))), whole)
