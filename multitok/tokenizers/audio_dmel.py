"""Sound as discretised mel spectrogram (dMel): each band's energy in each frame is one code.

Shape letters: N samples, F frames, K bands = codebooks, V levels per band.

    sound -> mono at the tokenizer's rate -> mel energies [F, K] -> levels [K, F], one codebook per band

There is no net: a code says how loud one band is in one frame. So codes are robust, cheap (a few ms for a second of
sound on one core) and mean the same in every clip; phases are lost, and decode finds new ones by Griffin-Lim.
A code is the number of edges at or below the band's energy: a comparison of float64 numbers that depends on nothing
but the clip. Edges and levels are fitted to data per band by `multitok.train.dmel.train_dmel`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec, Waveform

GRIFFIN_LIM_ITERATIONS = 32


class AudioDMel(TokenizerBase[Waveform]):
    """Waveforms of any rate and channel count <-> levels of their mel energies.

    Args:
        edges: [K, V - 1] float64: the energies between one level and the next, rising, above 0.
        levels: [K, V] float64: the energy that decode puts for each code, each between its edges.
        name: Name inside a vocabulary.
        sample_rate_hz: Rate that sound is resampled to, and that decode returns.
        hop_length: Samples per frame.
        window_length: Samples that a frame looks at.
        fft_length: Samples of the Fourier transform.

    Raises:
        SpecError: Edges and levels do not fit each other, or the lengths do not.

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
    ) -> None:
        self._edges = np.array(edges, np.float64)
        self._levels = np.array(levels, np.float64)
        _check_levels(self._edges, self._levels)
        self._mel = MelSpectrogram(sample_rate_hz, hop_length, window_length, fft_length, len(self._edges))
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

    def encode(self, raw: Waveform, /) -> Codes:
        """Codes [K, F], F = ceil(N / hop_length), N the samples at the tokenizer's rate.

        Args:
            raw: Channels are averaged, other rates resampled.

        Returns:
            Codes with extent (N,).

        Raises:
            InputError: No sample, a sample that is not finite, or samples far beyond full scale.
        """
        samples = to_mono(raw, self._mel.sample_rate_hz)
        values = np.empty((self._spec.num_codebooks, self._mel.num_frames(samples.size)), np.int32)
        first = 0
        for energies in self._mel.blocks(samples):
            values[:, first : first + len(energies)] = (energies[:, :, None] >= self._edges).sum(axis=2).T
            first += len(energies)
        return Codes(values, (samples.size,))

    def decode(self, codes: Codes, /) -> Waveform:
        """Mono sound whose mel energies come close to the codes' levels.

        Args:
            codes: [K, F] with extent (N,), F = ceil(N / hop_length).

        Returns:
            One channel of exactly N samples at the tokenizer's rate; finite.

        Raises:
            ShapeError: The grid does not fit the extent, or the codes are not of this kind.
            CodeRangeError: A code lies outside its codebook.
        """
        self._spec.check(codes)
        energies = self._levels[np.arange(len(self._levels)), codes.values.T]
        samples = self._mel.invert(energies, codes.extent[0], GRIFFIN_LIM_ITERATIONS)
        return Waveform(samples, self._mel.sample_rate_hz)

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments but the tensors."""
        return {
            "name": self._spec.name,
            "sample_rate_hz": self._mel.sample_rate_hz,
            "hop_length": self._mel.hop_length,
            "window_length": self._mel.window_length,
            "fft_length": self._mel.fft_length,
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """`edges` and `levels`."""
        return {"edges": self._edges.copy(), "levels": self._levels.copy()}


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
