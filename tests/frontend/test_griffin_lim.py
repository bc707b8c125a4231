"""Griffin-Lim: sound whose mel energies come close, in tiles without a seam, the same bits for any split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import ShapeError, SpecError
from multitok.frontend import griffin_lim
from multitok.frontend.griffin_lim import GriffinLim
from multitok.frontend.spectrogram import MelSpectrogram

MEL = MelSpectrogram(sample_rate_hz=16_000, hop_length=200, window_length=600, fft_length=1024, num_mels=80)
SMALL = MelSpectrogram(sample_rate_hz=800, hop_length=4, window_length=12, fft_length=16, num_mels=3)


def log_spectral_distance_db(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[F] root mean square over bands of the difference of log energies, in dB."""
    logs = [10 * np.log10(np.maximum(MEL.energies(samples), 1e-5)) for samples in (left, right)]
    return np.sqrt(((logs[0] - logs[1]) ** 2).mean(axis=1))


def sweep(num_samples: int) -> np.ndarray:
    t = np.arange(num_samples) / 16_000
    return (0.3 * np.sin(2 * np.pi * 300 * t) + 0.2 * np.sin(2 * np.pi * 2_000 * t**1.2)).astype(np.float32)


def test_inversion_comes_close_in_every_frame() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 12_345)
    t = np.arange(12_345) / 16_000
    samples = (0.3 * np.sin(2 * np.pi * 440 * t * (1 + t)) + 0.01 * noise).astype(np.float32)
    energies = MEL.energies(samples)
    back = GriffinLim(MEL, 32).run(energies)
    assert (back.shape, back.dtype) == ((62 * 200,), np.float32)
    distance = log_spectral_distance_db(samples, back[: samples.size])
    assert distance.mean() < 1.5
    worse = log_spectral_distance_db(samples, GriffinLim(MEL, 1).run(energies)[: samples.size])
    assert distance.mean() < 0.7 * worse.mean()


def test_silence_stays_silent() -> None:
    assert np.abs(GriffinLim(MEL, 4).run(np.zeros((5, 80)))).max() < 1e-9
    assert GriffinLim(MEL, 4).run(np.zeros((0, 80))).shape == (0,)


@pytest.mark.parametrize("tile_frames", [7, 37, 90])
def test_tiles_are_those_of_the_whole(tile_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    energies = MEL.energies(sweep(20_001))
    whole = GriffinLim(MEL, 6).run(energies)
    monkeypatch.setattr(griffin_lim, "TILE_FRAMES", tile_frames)
    np.testing.assert_allclose(GriffinLim(MEL, 6).run(energies), whole, atol=1e-4)


@given(cuts=st.lists(st.integers(0, 60), max_size=4), num_frames=st.integers(0, 60), tile=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_any_split_gives_the_same_bits(cuts: list[int], num_frames: int, tile: int) -> None:
    energies = np.random.default_rng(0).uniform(0, 9, (num_frames, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(griffin_lim, "TILE_FRAMES", tile)
        inverse = GriffinLim(SMALL, 3)
        state, parts = inverse.initial_state(), []
        for piece in np.split(energies, sorted(cuts)):
            state, samples = inverse.step(state, piece)
            parts.append(samples)
        parts.append(inverse.finish(state))
        assert np.array_equal(np.concatenate(parts), inverse.run(energies))
        assert sum(part.size for part in parts) == 4 * num_frames


@pytest.mark.parametrize("shape", [(5, 79), (80,), (2, 5, 80)])
def test_energies_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"energies of shape \[.*\]: give \[frames, 80\]"):
        GriffinLim(MEL, 1).run(np.zeros(shape))


def test_a_window_between_hops_is_refused() -> None:
    with pytest.raises(SpecError, match="Griffin-Lim needs a window that is a multiple of the hop"):
        GriffinLim(MelSpectrogram(16_000, 160, 400, 400, 80), iterations=1)
