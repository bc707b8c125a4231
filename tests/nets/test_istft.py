"""Overlap-add of inverse FFT frames: the clip back from its frames, and the same bits for every split."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.nets.istft import InverseStft


def _window(length: int) -> NDArray[np.float64]:
    return np.asarray(np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2)


def _spectra(samples: NDArray[np.float64], length: int, hop: int) -> NDArray[np.complex128]:
    lead = (length - hop) // 2
    padded = np.pad(samples, lead)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]
    return np.asarray(np.fft.rfft(frames * _window(length)))


def _run(istft: InverseStft, parts: list[NDArray[np.complex128]]) -> list[NDArray[np.float32]]:
    state, found = istft.initial_state(), []
    for part in parts:
        state, samples = istft.step(state, part)
        found.append(samples)
    return [*found, istft.finish(state)]


@pytest.mark.parametrize(("length", "hop"), [(800, 200), (640, 160)])
def test_frames_of_a_clip_give_it_back(length: int, hop: int) -> None:
    samples = np.random.default_rng(0).normal(size=hop * 11)
    spectra = _spectra(samples, length, hop)
    assert len(spectra) == 11
    # Squared Hann windows a quarter apart add up to 1.5.
    back = np.concatenate(_run(InverseStft(_window(length) / 1.5, hop), [spectra]))
    assert back.dtype == np.float32
    assert back.size == samples.size
    np.testing.assert_allclose(back[2 * hop : -2 * hop], samples[2 * hop : -2 * hop], atol=1e-5)


@pytest.mark.parametrize(("length", "hop"), [(800, 200), (640, 320)])
def test_splits_do_not_show(length: int, hop: int) -> None:
    rng = np.random.default_rng(1)
    spectra = rng.normal(size=(40, length // 2 + 1)) + 1j * rng.normal(size=(40, length // 2 + 1))
    istft = InverseStft(_window(length), hop)
    whole = np.concatenate(_run(istft, [spectra]))
    for seed in range(5):
        cuts = np.sort(np.random.default_rng(seed).integers(0, 41, 12))
        assert np.array_equal(np.concatenate(_run(istft, np.split(spectra, cuts))), whole)
    assert np.array_equal(np.concatenate(_run(istft, list(spectra[:, None]))), whole)


def test_latency_is_half_the_overlap() -> None:
    istft = InverseStft(_window(800), 200)
    sizes = [part.size for part in _run(istft, list(np.zeros((4, 1, 401), complex)))]
    assert sizes == [0, 100, 200, 200, 300]


@pytest.mark.parametrize(("frames", "samples"), [(0, 0), (1, 200), (2, 400)])
def test_few_frames(frames: int, samples: int) -> None:
    parts = _run(InverseStft(_window(800), 200), [np.zeros((frames, 401), complex)])
    assert sum(part.size for part in parts) == samples


def test_a_state_can_be_used_again() -> None:
    istft = InverseStft(_window(640), 320)
    spectra = np.ones((3, 321), complex)
    state, _ = istft.step(istft.initial_state(), spectra)
    first = istft.step(state, spectra)[1]
    assert np.array_equal(istft.step(state, spectra)[1], first)


def test_lengths_that_do_not_fit() -> None:
    with pytest.raises(SpecError, match="multiple of the hop"):
        InverseStft(_window(500), 200)
