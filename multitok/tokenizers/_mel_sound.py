"""Sound from mel energies, for the tokenizers of spectrograms: a vocoder where there is one, else Griffin-Lim.

In a checkpoint a vocoder is one key of the configuration, and tensors whose names begin with "vocoder.".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.griffin_lim import GriffinLim
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.vocoder import ExactVocoder, VocoderConfig
from multitok.protocol import Json

GRIFFIN_LIM_ITERATIONS = 32
KEY, PREFIX = "vocoder", "vocoder."


class MelInverse(Protocol):
    """Energies -> samples. States are immutable; the split into steps does not show."""

    def initial_state(self) -> Any:
        """Before the first frame."""

    def step(self, state: Any, energies: NDArray[np.float64], /) -> tuple[Any, NDArray[np.float32]]:
        """The state after energies [f, M], any f, and the samples [n] that are known now and were not before."""

    def finish(self, state: Any, /) -> NDArray[np.float32]:
        """The samples [n] that are left: with those before, F * hop of them."""


def mel_inverse(mel: MelSpectrogram, vocoder: ExactVocoder | None) -> MelInverse:
    """What makes sound of these energies.

    Args:
        mel: How they come about.
        vocoder: None for Griffin-Lim.

    Raises:
        SpecError: The vocoder is for other energies.
    """
    if vocoder is None:
        return GriffinLim(mel, GRIFFIN_LIM_ITERATIONS)
    config = vocoder.config
    theirs = (config.sample_rate_hz, config.hop_length, config.net.in_dim)
    own = (mel.sample_rate_hz, mel.hop_length, mel.num_mels)
    if theirs != own:
        raise SpecError(f"a vocoder for (rate, hop, bands) = {theirs}: the spectrogram has {own}")
    return vocoder


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
