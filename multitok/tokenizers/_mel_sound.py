"""Sound from mel energies, for the tokenizers of spectrograms: a vocoder where there is one, else Griffin-Lim.

In a checkpoint a vocoder is one key of the configuration, and tensors whose names begin with "vocoder.".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.griffin_lim import GriffinLim, GriffinLimState
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.energy_fit import EnergyFit, FitState
from multitok.nets.vocoder import ExactVocoder, VocoderConfig, VocoderState
from multitok.protocol import Json

GRIFFIN_LIM_ITERATIONS = 32
KEY, PREFIX = "vocoder", "vocoder."

Floats = NDArray[np.float64]


class MelInverse(Protocol):
    """Energies -> samples. States are immutable; the split into steps does not show."""

    def initial_state(self) -> Any:
        """Before the first frame."""

    def step(self, state: Any, energies: Floats, low: Floats, high: Floats, /) -> tuple[Any, NDArray[np.float32]]:
        """The samples [n] that are known now and were not before.

        Args:
            state: Where the stream stands.
            energies: [f, M], any f.
            low: [f, M] the least energies that the codes may stand for.
            high: [f, M] the largest.

        Returns:
            Where it stands then, and the samples.
        """

    def finish(self, state: Any, /) -> NDArray[np.float32]:
        """The samples [n] that are left: with those before, F * hop of them."""


@dataclass(frozen=True)
class ByGriffinLim:
    """Griffin-Lim, which takes the energies as they are.

    Args:
        griffin_lim: For the tokenizer's spectrogram.
    """

    griffin_lim: GriffinLim

    def initial_state(self) -> GriffinLimState:
        """See `MelInverse`."""
        return self.griffin_lim.initial_state()

    def step(
        self, state: GriffinLimState, energies: Floats, low: Floats, high: Floats
    ) -> tuple[GriffinLimState, NDArray[np.float32]]:
        """See `MelInverse`."""
        return self.griffin_lim.step(state, energies)

    def finish(self, state: GriffinLimState) -> NDArray[np.float32]:
        """See `MelInverse`."""
        return self.griffin_lim.finish(state)


@dataclass(frozen=True)
class FittedState:
    """Of the vocoder and of each pass over its sound."""

    vocoder: VocoderState
    fits: tuple[FitState, ...]


@dataclass(frozen=True)
class ByVocoder:
    """A vocoder, and passes that pull its sound towards the energies that the codes allow.

    Args:
        vocoder: For the tokenizer's bands, hop and rate.
        fit: One such pass.
        count: How many.
    """

    vocoder: ExactVocoder
    fit: EnergyFit
    count: int

    def initial_state(self) -> FittedState:
        """See `MelInverse`."""
        return FittedState(self.vocoder.initial_state(), (self.fit.initial_state(),) * self.count)

    def step(
        self, state: FittedState, energies: Floats, low: Floats, high: Floats
    ) -> tuple[FittedState, NDArray[np.float32]]:
        """See `MelInverse`."""
        vocoder, samples = self.vocoder.step(state.vocoder, energies)
        after = []
        for each in state.fits:
            own, samples = self.fit.step(each, samples, low, high)
            after.append(own)
        return FittedState(vocoder, tuple(after)), samples

    def finish(self, state: FittedState) -> NDArray[np.float32]:
        """See `MelInverse`."""
        samples = self.vocoder.finish(state.vocoder)
        none = np.zeros((0, self.vocoder.config.net.in_dim))
        for each in state.fits:
            own, first = self.fit.step(each, samples, none, none)
            samples = np.concatenate([first, self.fit.finish(own)])
        return samples


def mel_inverse(mel: MelSpectrogram, vocoder: ExactVocoder | None) -> MelInverse:
    """What makes sound of these energies.

    Args:
        mel: How they come about.
        vocoder: None for Griffin-Lim.

    Raises:
        SpecError: The vocoder is for other energies.
    """
    if vocoder is None:
        return ByGriffinLim(GriffinLim(mel, GRIFFIN_LIM_ITERATIONS))
    config = vocoder.config
    theirs = (config.sample_rate_hz, config.hop_length, config.net.in_dim)
    own = (mel.sample_rate_hz, mel.hop_length, mel.num_mels)
    if theirs != own:
        raise SpecError(f"a vocoder for (rate, hop, bands) = {theirs}: the spectrogram has {own}")
    return ByVocoder(vocoder, EnergyFit(mel), config.fits)


def vocoder_config(vocoder: ExactVocoder | None) -> dict[str, Json]:
    """What a vocoder adds to a tokenizer's configuration."""
    return {} if vocoder is None else {KEY: vocoder.config.to_json()}


def vocoder_tensors(vocoder: ExactVocoder | None) -> dict[str, NDArray[Any]]:
    """What a vocoder adds to a tokenizer's tensors."""
    return {} if vocoder is None else {PREFIX + key: value for key, value in vocoder.tensors().items()}


def split_vocoder(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> tuple[ExactVocoder | None, dict[str, Any], dict[str, NDArray[Any]]]:
    """The vocoder in a tokenizer's state, and the configuration and the tensors without it.

    Args:
        config: Of the tokenizer.
        tensors: Of the tokenizer.

    Raises:
        SpecError: The vocoder's tensors are not those of its configuration.
    """
    others = {key: value for key, value in config.items() if key != KEY}
    if KEY not in config:
        return None, others, dict(tensors)
    net = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    rest = {key: value for key, value in tensors.items() if not key.startswith(PREFIX)}
    return ExactVocoder(VocoderConfig.from_json(config[KEY]), net), others, rest
