"""The vocoder: the same samples for every split, those of the net in torch, and as many as there are frames' hops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError
from multitok.nets.vocoder import FLOOR, ExactVocoder, VocoderConfig, prior_filters, synthesis_window
from multitok.nets.vocoder_module import Vocoder, freeze_vocoder, thaw_vocoder
from tests.nets.small_vocoder import vocoder


def _energies(num_frames: int, seed: int = 0) -> NDArray[np.float64]:
    return np.asarray(10 ** np.random.default_rng(seed).normal(-2, 1.5, (num_frames, 80)))


def _in_pieces(made: ExactVocoder, energies: NDArray[np.float64], cuts: list[int]) -> NDArray[np.float32]:
    state, parts = made.initial_state(), []
    for piece in np.split(energies, cuts):
        state, samples = made.step(state, piece)
        parts.append(samples)
    return np.concatenate([*parts, made.finish(state)])


@pytest.mark.parametrize("lookahead", [0, 2])
def test_splits_do_not_show(lookahead: int) -> None:
    made, energies = vocoder(lookahead=lookahead), _energies(60)
    whole = made.run(energies)
    assert whole.shape == (60 * 200,)
    assert whole.dtype == np.float32
    for seed in range(6):
        cuts = np.sort(np.random.default_rng(seed).integers(0, 61, 8)).tolist()
        assert np.array_equal(_in_pieces(made, energies, cuts), whole)
    assert np.array_equal(_in_pieces(made, energies, list(range(1, 60))), whole)


@pytest.mark.parametrize("num_frames", [0, 1, 2, 3, 7])
def test_every_number_of_frames(num_frames: int) -> None:
    assert vocoder().run(_energies(num_frames)).shape == (num_frames * 200,)


def test_samples_are_those_of_the_trained_net() -> None:
    made, energies = vocoder(), _energies(40)
    module = thaw_vocoder(made)
    with torch.no_grad():
        wanted = module(torch.from_numpy(energies).float()[None])[0].numpy()
    found = made.run(energies)[: wanted.size]
    # The last frames of the module's sound lack those that the look-ahead held back.
    inside = slice(0, wanted.size - 600)
    error = found[inside] - wanted[inside]
    assert 10 * np.log10(np.square(wanted[inside]).mean() / np.square(error).mean()) > 35


def test_thawed_and_frozen_again_is_the_same_sound() -> None:
    made, energies = vocoder(), _energies(20)
    again = freeze_vocoder(thaw_vocoder(made), [torch.from_numpy(_energies(40, 1))])
    difference = made.run(energies) - again.run(energies)
    assert np.square(difference).mean() < 1e-3 * np.square(made.run(energies)).mean()


def test_magnitudes_follow_the_energies() -> None:
    made, energies = vocoder(), _energies(30)
    quiet = made.run(np.full((30, 80), FLOOR))
    assert np.array_equal(quiet, made.run(np.zeros((30, 80))))
    assert np.square(quiet).mean() < 1e-3 * np.square(made.run(energies)).mean()
    # Each frequency lies in two bands at most, as the exact sum takes for granted.
    assert ((prior_filters(made.config) > 0).sum(axis=0) <= 2).all()


def test_windows_add_up_to_one() -> None:
    window = synthesis_window(vocoder().config)
    assert np.allclose(window.reshape(-1, 200).sum(axis=0), 1)


def test_tensors_and_configuration_rebuild_it() -> None:
    made, energies = vocoder(), _energies(10)
    config = VocoderConfig.from_json(made.config.to_json())
    assert config == made.config
    assert np.array_equal(ExactVocoder(config, made.tensors()).run(energies), made.run(energies))


def test_refusals() -> None:
    made = vocoder()
    with pytest.raises(ShapeError, match=r"reads \[f, 80\]"):
        made.step(made.initial_state(), np.ones((3, 79)))
    with pytest.raises(SpecError, match="give 642 outputs"):
        VocoderConfig(net=made.config.net, hop_length=160, window_length=640)
    with pytest.raises(SpecError):
        ExactVocoder(made.config, {})


def test_training_module_answers_for_frames_with_enough_ahead() -> None:
    module = Vocoder(vocoder().config)
    assert module(torch.ones(3, 12, 80)).shape == (3, 10 * 200)
