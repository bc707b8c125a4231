"""Sound as a mel spectrogram in few bits: a vector code or a few for each frame, predicted from the frames before.

Shape letters: N samples, F patches, M bands, K codebooks, L = patch_frames * M.

    samples -> mel energies [.., M] -> levels, on a grid of 0.3 dB -> patches [F, L] -> K codes each (`_mel_latents`)
    codes -> levels -> energies -> vocoder, or Griffin-Lim -> samples

Codes of one patch mean nothing without those before, as they say what the prediction missed. From the levels on all
arithmetic is exact, so codes depend on nothing but the samples: not on how a stream is cut, on batches or threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import FramingState
from multitok.frontend.log_mel import log10
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.vocoder import ExactVocoder
from multitok.protocol import Json, Modality, TokenizerSpec
from multitok.tokenizers._audio_stream import Analysis
from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer
from multitok.tokenizers._mel_latents import Floats, MelLatents, Quantizer, ResidualBeam, ScalarGroups
from multitok.tokenizers._mel_sound import MelInverse, mel_inverse, split_vocoder, vocoder_config, vocoder_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

# Levels in a factor of 10.
LEVELS_PER_DECADE = 32
# Decoded levels are rounded to this part of one, and end at 10^TOP_LOG10.
FINE, TOP_LOG10 = 8, 4
# Factor by which a decoded energy may well miss the true one.
MISSED = 10.0**0.15


class AudioMelVq(AudioStreamTokenizer):
    """Waveforms of any rate and channel count <-> vector codes of their mel spectrum.

    Args:
        mean: [L] int16, see `MelLatents`.
        basis: [L, D] int16.
        prediction: [P * D, D] int16.
        quantizer: Of what the prediction missed.
        vocoder: Makes samples of energies; None for Griffin-Lim.
        mel: Frames and bands.
        patch_frames: Frames that one code of each codebook stands for.
        floor_log10: 10 to this power is added to energies: below it differences count less and less.
        name: Name inside a vocabulary.

    Raises:
        SpecError: The parts do not fit each other.
    """

    def __init__(
        self,
        *,
        mean: NDArray[np.int16],
        basis: NDArray[np.int16],
        prediction: NDArray[np.int16],
        quantizer: Quantizer,
        vocoder: ExactVocoder | None = None,
        mel: MelSpectrogram | None = None,
        patch_frames: int = 1,
        floor_log10: float = -6.0,
        name: str = "audio",
    ) -> None:
        self._mel = mel or MelSpectrogram(16_000, 200, 600, 1024, 80)
        self._tensors = {"mean": mean, "basis": basis, "prediction": prediction}
        self._latents = MelLatents(mean, basis, prediction, quantizer)
        self._vocoder, self._patch_frames, self._floor_log10 = vocoder, patch_frames, floor_log10
        if patch_frames < 1 or len(mean) != patch_frames * self._mel.num_mels:
            raise SpecError(
                f"patches of {len(mean)} levels: {patch_frames} frames of {self._mel.num_mels} bands differ"
            )
        if not -12 <= floor_log10 <= 0:
            raise SpecError(f"floor_log10={floor_log10}: give -12 to 0")
        self._inverse = mel_inverse(self._mel, vocoder)
        self._spec = TokenizerSpec(
            kind="audio-mel-vq",
            name=name,
            modality=Modality.AUDIO,
            codebook_sizes=quantizer.codebook_sizes,
            grid_axes=("t",),
            stride=(self._mel.hop_length * patch_frames,),
            sample_rate_hz=self._mel.sample_rate_hz,
        )

    @property
    def spec(self) -> TokenizerSpec:
        """K codebooks over ("t",), one patch per `hop_length * patch_frames` samples."""
        return self._spec

    def with_vocoder(self, vocoder: ExactVocoder | None) -> Self:
        """The tokenizer of the same codes that decodes by another vocoder; None is for Griffin-Lim.

        Args:
            vocoder: For this tokenizer's bands, hop and rate.

        Raises:
            SpecError: It is for others.
        """
        return type(self)(
            **self._tensors,
            quantizer=self._latents.quantizer,
            vocoder=vocoder,
            mel=self._mel,
            patch_frames=self._patch_frames,
            floor_log10=self._floor_log10,
            name=self._spec.name,
        )

    @property
    def mel(self) -> MelSpectrogram:
        """Frames and bands."""
        return self._mel

    @property
    def vocoder(self) -> ExactVocoder | None:
        """What decodes; None for Griffin-Lim."""
        return self._vocoder

    def requantized(self, energies: Floats) -> Floats:
        """Energies [F, M] of a clip as their codes give them back: what a vocoder has to live with."""
        missing = -len(energies) % self._patch_frames
        levels = levels_of(np.pad(energies, [(0, missing), (0, 0)]), self._floor_log10)
        patches = levels.reshape(-1, self._patch_frames * self._mel.num_mels)
        _, codes = self._latents.encode(self._latents.initial_state(), patches)
        return self._synthesis().energies(self._latents.initial_state(), codes)[1][: len(energies)]

    def _analysis(self) -> Analysis:
        return _Analysis(self._mel, self._patch_frames, self._floor_log10, self._latents)

    def _synthesis(self) -> _Synthesis:
        floor = 10.0**self._floor_log10
        lowest = round(LEVELS_PER_DECADE * self._floor_log10)
        count = (LEVELS_PER_DECADE * TOP_LOG10 - lowest) * FINE + 1
        table = 10 ** ((lowest + np.arange(count) / FINE) / LEVELS_PER_DECADE) - floor
        return _Synthesis(self._latents, self._mel.num_mels, lowest, np.maximum(table, 0.0), self._inverse)

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        mel = self._mel
        return {
            "name": self._spec.name,
            "sample_rate_hz": mel.sample_rate_hz,
            "hop_length": mel.hop_length,
            "window_length": mel.window_length,
            "fft_length": mel.fft_length,
            "num_mels": mel.num_mels,
            "patch_frames": self._patch_frames,
            "floor_log10": self._floor_log10,
            "quantizer": self._latents.quantizer.get_config(),
            **vocoder_config(self._vocoder),
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """`mean`, `basis`, `prediction`, the quantiser's, and those of the vocoder after "vocoder."."""
        own = {key: value.copy() for key, value in self._tensors.items()}
        return own | self._latents.quantizer.get_tensors() | vocoder_tensors(self._vocoder)

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from what `get_config` and `get_tensors` returned.

        Raises:
            SpecError: A tensor is missing, left over or of another shape or dtype, or a value cannot be.
        """
        vocoder, own_config, own = split_vocoder(config, tensors)
        lengths = [own_config.pop(key) for key in _MEL_KEYS]
        quantizer = _quantizer(own_config.pop("quantizer"), own)
        arguments: dict[str, Any] = {**own_config, **own}
        return cls(**arguments, quantizer=quantizer, vocoder=vocoder, mel=MelSpectrogram(*lengths))


def levels_of(energies: Floats, floor_log10: float) -> Floats:
    """The grid levels of energies, as encoding takes them.

    Args:
        energies: [F, M].
        floor_log10: See `AudioMelVq`.
    """
    return np.rint(LEVELS_PER_DECADE * log10(energies + 10.0**floor_log10))


_MEL_KEYS = ("sample_rate_hz", "hop_length", "window_length", "fft_length", "num_mels")


def _quantizer(config: Mapping[str, Any], tensors: dict[str, NDArray[Any]]) -> Quantizer:
    """Takes its tensors out of `tensors`."""
    kinds = {"residual": ResidualBeam, "scalar": ScalarGroups}
    if config.get("kind") not in kinds:
        raise SpecError(f"quantizer {config.get('kind')!r}: give one of {', '.join(kinds)}")
    options = {key: value for key, value in config.items() if key != "kind"}
    if config["kind"] == "scalar":
        return ScalarGroups(tensors.pop("steps"), **options)
    rows, sizes = tensors.pop("codebooks"), options.pop("codebook_sizes")
    if sum(sizes) != len(rows):
        raise SpecError(f"codebook sizes {sizes}: the codebooks have {len(rows)} rows together")
    return ResidualBeam(np.split(rows, np.cumsum(sizes)[:-1]), **options)


@dataclass(frozen=True)
class _AnalysisState:
    framing: FramingState
    waiting: Floats  # [0 to patch_frames - 1, M] levels
    past: Floats


@dataclass(frozen=True)
class _Analysis:
    """Samples -> levels -> patches -> codes."""

    mel: MelSpectrogram
    patch_frames: int
    floor_log10: float
    latents: MelLatents

    def initial_state(self) -> _AnalysisState:
        waiting = np.zeros((0, self.mel.num_mels))
        return _AnalysisState(self.mel.initial_state(), waiting, self.latents.initial_state())

    def step(self, state: _AnalysisState, samples: NDArray[np.float32]) -> tuple[_AnalysisState, NDArray[np.int32]]:
        framing, energies = self.mel.step(state.framing, samples)
        return self._take(state, framing, energies)

    def finish(self, state: _AnalysisState) -> NDArray[np.int32]:
        left = self.mel.finish(state.framing)
        # Silence after the end makes the last patch whole.
        missing = -(len(state.waiting) + len(left)) % self.patch_frames
        return self._take(state, state.framing, np.pad(left, [(0, missing), (0, 0)]))[1]

    def _take(
        self, state: _AnalysisState, framing: FramingState, energies: Floats
    ) -> tuple[_AnalysisState, NDArray[np.int32]]:
        waiting = np.concatenate([state.waiting, levels_of(energies, self.floor_log10)])
        whole = len(waiting) // self.patch_frames * self.patch_frames
        patches = waiting[:whole].reshape(-1, self.patch_frames * self.mel.num_mels)
        past, codes = self.latents.encode(state.past, patches)
        return _AnalysisState(framing, waiting[whole:].copy(), past), codes


@dataclass(frozen=True)
class _SynthesisState:
    past: Floats
    inverse: Any


@dataclass(frozen=True)
class _Synthesis:
    """Codes -> levels -> energies, from a table -> samples."""

    latents: MelLatents
    num_mels: int
    lowest: int
    table: Floats
    inverse: MelInverse

    def initial_state(self) -> _SynthesisState:
        return _SynthesisState(self.latents.initial_state(), self.inverse.initial_state())

    def step(self, state: _SynthesisState, values: NDArray[np.int32]) -> tuple[_SynthesisState, NDArray[np.float32]]:
        past, energies = self.energies(state.past, values)
        low, high = energies * (1 / MISSED), energies * MISSED
        inverse, samples = self.inverse.step(state.inverse, energies, low, high)
        return _SynthesisState(past, inverse), samples

    def finish(self, state: _SynthesisState) -> NDArray[np.float32]:
        return self.inverse.finish(state.inverse)

    def energies(self, past: Floats, values: NDArray[np.int32]) -> tuple[Floats, Floats]:
        past, levels = self.latents.decode(past, values)
        places = np.rint((levels.reshape(-1, self.num_mels) - self.lowest) * FINE)
        return past, self.table[np.clip(places, 0, len(self.table) - 1).astype(np.intp)]
