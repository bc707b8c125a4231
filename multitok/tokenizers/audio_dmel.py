"""Sound as discretised mel spectrogram (dMel): each band's energy in each frame is one code.

Shape letters: N samples, F frames, K bands = codebooks, V levels per band.

    sound -> mono at the tokenizer's rate -> mel energies [F, K] -> levels [K, F], one codebook per band

There is no net: a code says how loud one band is in one frame. So codes are robust, cheap (a few ms for a second of
sound on one core) and mean the same in every clip; phases are lost, and decode makes new ones: by a vocoder where the
tokenizer holds one, else by Griffin-Lim.
A code is the number of edges at or below the band's energy: a comparison of float64 numbers that depends on nothing
but the clip, whole or in pieces. Edges and levels are fitted to data per band by `multitok.train.dmel.train_dmel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import FramingState
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.vocoder import ExactVocoder
from multitok.protocol import Json, Modality, TokenizerSpec
from multitok.tokenizers._audio_stream import Analysis, Synthesis
from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer
from multitok.tokenizers._mel_sound import MelInverse, mel_inverse, split_vocoder, vocoder_config, vocoder_tensors

if TYPE_CHECKING:
    from typing_extensions import Self


class AudioDMel(AudioStreamTokenizer):
    """Waveforms of any rate and channel count <-> levels of their mel energies.

    Args:
        edges: [K, V - 1] float64: the energies between one level and the next, rising, above 0.
        levels: [K, V] float64: the energy that decode puts for each code, each between its edges.
        name: Name inside a vocabulary.
        sample_rate_hz: Rate that sound is resampled to, and that decode returns.
        hop_length: Samples per frame.
        window_length: Samples that a frame looks at.
        fft_length: Samples of the Fourier transform.
        vocoder: Makes samples of energies; None for Griffin-Lim.

    Raises:
        SpecError: Edges and levels do not fit each other, or the lengths do not, or the vocoder is for other energies.

    Source:
        Bai et al. 2024, "dMel: Speech Tokenization Made Simple"; here with edges and levels fitted per band.
    """

    def __init__(
        self,
        *,
        edges: NDArray[np.float64],
        levels: NDArray[np.float64],
        name: str = "audio",
        sample_rate_hz: int = 16_000,
        hop_length: int = 200,
        window_length: int = 600,
        fft_length: int = 1024,
        vocoder: ExactVocoder | None = None,
    ) -> None:
        self._edges = np.array(edges, np.float64)
        self._levels = np.array(levels, np.float64)
        _check_levels(self._edges, self._levels)
        self._mel = MelSpectrogram(sample_rate_hz, hop_length, window_length, fft_length, len(self._edges))
        self._vocoder, self._inverse = vocoder, mel_inverse(self._mel, vocoder)
        num_bands, num_levels = self._levels.shape
        self._spec = TokenizerSpec(
            kind="audio-dmel",
            name=name,
            modality=Modality.AUDIO,
            codebook_sizes=(num_levels,) * num_bands,
            grid_axes=("t",),
            stride=(hop_length,),
            sample_rate_hz=sample_rate_hz,
        )

    @property
    def spec(self) -> TokenizerSpec:
        """K codebooks of V levels over ("t",), one frame per `hop_length` samples."""
        return self._spec

    def with_vocoder(self, vocoder: ExactVocoder | None) -> Self:
        """The tokenizer of the same codes that decodes by another vocoder; None is for Griffin-Lim.

        Args:
            vocoder: For this tokenizer's bands, hop and rate.

        Raises:
            SpecError: It is for others.
        """
        config: dict[str, Any] = {key: value for key, value in self.get_config().items() if key != "vocoder"}
        return type(self)(edges=self._edges, levels=self._levels, vocoder=vocoder, **config)

    @property
    def mel(self) -> MelSpectrogram:
        """Frames and bands."""
        return self._mel

    @property
    def vocoder(self) -> ExactVocoder | None:
        """What decodes; None for Griffin-Lim."""
        return self._vocoder

    def requantized(self, energies: NDArray[np.float64]) -> NDArray[np.float64]:
        """Energies [F, K] as their codes give them back: what a vocoder has to live with."""
        return np.asarray(self._levels[np.arange(len(self._levels)), _codes_of(energies, self._edges).T])

    def _analysis(self) -> Analysis:
        return _Analysis(self._mel, self._edges)

    def _synthesis(self) -> Synthesis:
        return _Synthesis(self._inverse, self._levels, self._edges)

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments but the tensors."""
        return {
            "name": self._spec.name,
            "sample_rate_hz": self._mel.sample_rate_hz,
            "hop_length": self._mel.hop_length,
            "window_length": self._mel.window_length,
            "fft_length": self._mel.fft_length,
            **vocoder_config(self._vocoder),
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """`edges`, `levels`, and those of the vocoder after "vocoder."."""
        return {"edges": self._edges.copy(), "levels": self._levels.copy(), **vocoder_tensors(self._vocoder)}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from what `get_config` and `get_tensors` returned.

        Raises:
            SpecError: The parts do not fit each other.
        """
        vocoder, others, own = split_vocoder(config, tensors)
        arguments: dict[str, Any] = {**others, **own}
        return cls(**arguments, vocoder=vocoder)


@dataclass(frozen=True)
class _Analysis:
    """Samples -> how many edges [K, V - 1] each band's energy reaches."""

    mel: MelSpectrogram
    edges: NDArray[np.float64]

    def initial_state(self) -> FramingState:
        return self.mel.initial_state()

    def step(self, state: FramingState, samples: NDArray[np.float32]) -> tuple[FramingState, NDArray[np.int32]]:
        state, energies = self.mel.step(state, samples)
        return state, _codes_of(energies, self.edges)

    def finish(self, state: FramingState) -> NDArray[np.int32]:
        return _codes_of(self.mel.finish(state), self.edges)


@dataclass(frozen=True)
class _Synthesis:
    """Codes -> the energies [K, V] of their levels -> samples."""

    inverse: MelInverse
    levels: NDArray[np.float64]
    edges: NDArray[np.float64]

    def initial_state(self) -> Any:
        return self.inverse.initial_state()

    def step(self, state: Any, values: NDArray[np.int32]) -> tuple[Any, NDArray[np.float32]]:
        bands, codes = np.arange(len(self.levels)), values.T
        none, endless = np.zeros((len(bands), 1)), np.full((len(bands), 1), np.inf)
        low = np.concatenate([none, self.edges], axis=1)[bands, codes]
        high = np.concatenate([self.edges, endless], axis=1)[bands, codes]
        return self.inverse.step(state, self.levels[bands, codes], low, high)

    def finish(self, state: Any) -> NDArray[np.float32]:
        return self.inverse.finish(state)


def _codes_of(energies: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.asarray((energies[:, :, None] >= edges).sum(axis=2, dtype=np.int32).T)


def _check_levels(edges: NDArray[np.float64], levels: NDArray[np.float64]) -> None:
    if levels.ndim != 2 or edges.shape != (len(levels), levels.shape[1] - 1) or edges.size == 0:
        raise SpecError(
            f"edges {list(edges.shape)} and levels {list(levels.shape)}: give [bands, levels - 1] and [bands, levels], "
            "two levels or more"
        )
    if not (np.isfinite(levels).all() and (edges[:, 0] > 0).all() and (levels[:, 0] >= 0).all()):
        raise SpecError("edges are to lie above 0, levels at or above it, all finite")
    # Each level between its edges: so re-encoding a level gives its code back, and edges rise.
    if not ((levels[:, :-1] < edges).all() and (edges <= levels[:, 1:]).all()):
        raise SpecError("each level is to lie between its edges: levels[:, i] < edges[:, i] <= levels[:, i + 1]")
