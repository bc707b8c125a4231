"""Speech units: what is said, as one code for each 20 ms. A front end, and the nearest of its clusters.

    sound -> mono, 16 kHz -> front end -> features [F, D] -> normalised -> nearest cluster -> units [1, F]

A checkpoint holds one front end and codebooks of several sizes; `with_codebook_size` takes another of them. Units keep
words and drop most of the voice, so `decode` speaks in an average voice (`_semantic_sound.py`). For a shorter sequence
`deduplicated` and `merged` give tokenizers of runs of units (`audio_units.py`).

A unit depends on the sound and the checkpoint, not on batch, chunks, threads or what follows the clip: front ends with
look-ahead read a fixed stretch, and encoders that look to both sides run in windows at fixed places. With `causal-net`,
`log-mel`, `mfcc` and `random-projection` it does not depend on the machine either.

Shape letters: F frames, D values of a feature, V units, T units that a frame of sound depends on, M mel bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.errors import InputError, SpecError
from multitok.frontend.resample import PIECE_SAMPLES, to_mono
from multitok.protocol import Json, Modality, TokenizerSpec, Waveform
from multitok.tokenizers._audio_stream import Analysis, Synthesis
from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer
from multitok.tokenizers._semantic_codebooks import Codebooks
from multitok.tokenizers._semantic_front_ends import FrontEnd, front_end_config, make_front_end
from multitok.tokenizers._semantic_sound import Renderer, UnitSound
from multitok.tokenizers._unit_bpe import UnitBpe, steady_units

if TYPE_CHECKING:
    from multitok.tokenizers.audio_units import AudioUnits

SAMPLE_RATE_HZ = 16_000
FRAME_LENGTH = 320
PREFIX = "front_end."
NEAR_UNITS = 16  # units that a steadier path may take at a frame


class AudioSemantic(AudioStreamTokenizer):
    """Waveforms of any rate and channel count <-> speech units.

    Args:
        front_end: What makes features.
        codebooks: Their clusters.
        codebook_size: V: which of the codebooks.
        sound: [T, V', M]: the table by which `decode` makes sound, for the units of one of the codebooks; None where
            none was fitted, and `decode` refuses.
        units: Merges of units and the units of silence, by codebook size.
        penalties: What a change of unit costs where runs are merged, by codebook size, in squared distance.
        renderer: What makes samples of mel energies in `decode`, such as a vocoder; None for Griffin-Lim.
        name: Name inside a vocabulary.

    Raises:
        SpecError: The parts do not fit each other.

    Source:
        Hsu et al. 2021, "HuBERT"; Lakhotia et al. 2021, "On Generative Spoken Language Modeling from Raw Audio".
    """

    def __init__(
        self,
        *,
        front_end: FrontEnd,
        codebooks: Codebooks,
        codebook_size: int,
        sound: NDArray[np.floating[Any]] | None = None,
        units: Mapping[int, UnitBpe] | None = None,
        penalties: Mapping[int, float] | None = None,
        renderer: Renderer | None = None,
        name: str = "speech",
    ) -> None:
        if front_end.dim != len(codebooks.mean):
            raise SpecError(f"a front end of {front_end.dim} values, codebooks of {len(codebooks.mean)}: they differ")
        self._front_end, self._codebooks = front_end, codebooks
        self._codebook = Codebook(codebooks.of_size(codebook_size))
        self._sound, self._renderer = sound, renderer
        self._units, self._penalties = dict(units or {}), dict(penalties or {})
        self._spec = TokenizerSpec(
            kind="audio-semantic",
            name=name,
            modality=Modality.AUDIO,
            codebook_sizes=(codebook_size,),
            grid_axes=("t",),
            stride=(FRAME_LENGTH,),
            sample_rate_hz=SAMPLE_RATE_HZ,
        )

    @property
    def spec(self) -> TokenizerSpec:
        """One codebook of V units over ("t",), 50 frames a second."""
        return self._spec

    @property
    def available_codebook_sizes(self) -> tuple[int, ...]:
        """The sizes that `with_codebook_size` takes."""
        return self._codebooks.sizes

    @property
    def lookahead_s(self) -> float | None:
        """Sound after a frame's own end that its unit may depend on, in seconds."""
        return self._front_end.lookahead_s

    def with_codebook_size(self, codebook_size: int) -> AudioSemantic:
        """The same front end with another of the checkpoint's codebooks.

        Raises:
            SpecError: The checkpoint has no such codebook.
        """
        return self._changed(codebook_size=codebook_size)

    def with_renderer(self, renderer: Renderer | None) -> AudioSemantic:
        """The same units, made sound by another vocoder; it is not saved with the tokenizer.

        Args:
            renderer: Takes mel energies, 80 frames a second, such as `ExactVocoder`; None for Griffin-Lim.
        """
        return self._changed(renderer=renderer)

    def deduplicated(self, *, durations: bool = True, name: str | None = None) -> AudioUnits:
        """A tokenizer of runs of units, with their lengths (then nothing is lost) or without.

        Args:
            durations: Whether each run has a second code, its length in frames.
            name: Name inside a vocabulary; None keeps this one's.
        """
        from multitok.tokenizers.audio_units import AudioUnits

        size = self._spec.codebook_sizes[0]
        bpe = UnitBpe(size, np.empty((0, 2), np.int32), np.empty(0, np.int32))
        return AudioUnits(semantic=self, bpe=bpe, durations=durations, name=name or self._spec.name)

    def merged(self, *, penalty: float | None = None, durations: bool = False, name: str | None = None) -> AudioUnits:
        """A tokenizer of merges of runs of steady units: the shortest sequence.

        Args:
            penalty: What a change of unit costs, in squared distance: more gives fewer, longer runs, 0 the units of
                `encode`; None for what the merges were trained with.
            durations: Whether each token has a second code, its length in frames.
            name: Name inside a vocabulary; None keeps this one's.

        Raises:
            SpecError: No merges were trained for this codebook.
        """
        from multitok.tokenizers.audio_units import AudioUnits

        size = self._spec.codebook_sizes[0]
        if size not in self._units:
            known = ", ".join(map(str, self._units)) or "none"
            raise SpecError(f"no merges for {size} units here, but for these sizes: {known}; train_unit_bpe makes some")
        return AudioUnits(
            semantic=self,
            bpe=self._units[size],
            penalty=self._penalties.get(size, 0.0) if penalty is None else penalty,
            durations=durations,
            name=name or self._spec.name,
        )

    def features(self, wave: Waveform) -> NDArray[np.float32]:
        """Normalised features [F, D] of a clip: what the nearest cluster is looked for with.

        Raises:
            InputError: As for `encode`.
        """
        state, first = self._front_end.step(self._front_end.initial_state(), to_mono(wave, SAMPLE_RATE_HZ))
        return self._codebooks.normalised(np.concatenate([first, self._front_end.finish(state)]))

    def steady_units(self, wave: Waveform, penalty: float) -> NDArray[np.int32]:
        """Units [F] of a clip that change less often: each change costs `penalty`, and the nearest unit may give way.

        Raises:
            InputError: As for `encode`.
        """
        samples = to_mono(wave, SAMPLE_RATE_HZ)
        state, parts = self._front_end.initial_state(), []
        for start in range(0, samples.size, PIECE_SAMPLES):
            state, features = self._front_end.step(state, samples[start : start + PIECE_SAMPLES])
            parts.append(self._near(features))
        parts.append(self._near(self._front_end.finish(state)))
        codes, distances = (np.concatenate(each) for each in zip(*parts, strict=True))
        return steady_units(codes, distances, penalty)

    def get_config(self) -> dict[str, Json]:
        """The front end's configuration, the codebook in use, and the sizes that tensors are cut by."""
        return {
            "name": self._spec.name,
            "codebook_size": self._spec.codebook_sizes[0],
            "codebook_sizes": list(self._codebooks.sizes),
            "penalties": {str(size): penalty for size, penalty in self._penalties.items()},
            "front_end": front_end_config(self._front_end),
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The front end's tensors, the codebooks, the table of `decode`, and the merges of units."""
        held = {PREFIX + key: value for key, value in self._front_end.get_tensors().items()}
        held |= self._codebooks.tensors()
        if self._sound is not None:
            held["sound"] = self._sound
        for size, bpe in self._units.items():
            held |= {f"merges.{size}": bpe.merges, f"silent.{size}": bpe.silent}
        return held

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> AudioSemantic:
        """Rebuild a tokenizer from its configuration and tensors."""
        inner = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
        sizes = tuple(int(key.rpartition(".")[2]) for key in tensors if key.startswith("merges."))
        return cls(
            front_end=make_front_end(config["front_end"], inner),
            codebooks=Codebooks(
                tensors["codebooks"],
                tuple(config["codebook_sizes"]),
                tensors["mean"],
                tensors["std"],
                tensors.get("codebook_scale"),
                tensors.get("projection"),
                tensors.get("projection_scale"),
            ),
            codebook_size=config["codebook_size"],
            sound=tensors.get("sound"),
            units={size: UnitBpe(size, tensors[f"merges.{size}"], tensors[f"silent.{size}"]) for size in sizes},
            penalties={int(size): penalty for size, penalty in config["penalties"].items()},
            name=config["name"],
        )

    def _near(self, features: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        # The units near each frame and their squared distances.
        count = min(NEAR_UNITS, self._spec.codebook_sizes[0])
        found = self._codebook.search(self._codebooks.normalised(features), k=count, distances=True)
        return found.codes, found.distances

    def _changed(self, **parts: Any) -> AudioSemantic:
        before: dict[str, Any] = {
            "front_end": self._front_end, "codebooks": self._codebooks, "sound": self._sound, "units": self._units,
            "codebook_size": self._spec.codebook_sizes[0], "renderer": self._renderer, "name": self._spec.name,
            "penalties": self._penalties,
        }  # fmt: skip
        return AudioSemantic(**(before | parts))

    def _analysis(self) -> Analysis:
        return _Analysis(self._front_end, self._codebooks, self._codebook)

    def _synthesis(self) -> Synthesis:
        if self._sound is None:
            raise InputError("these units have no sound: the checkpoint was trained without a table for decode")
        size, sounding = self._spec.codebook_sizes[0], self._sound.shape[1]
        # Units of another codebook sound like the nearest ones of that which the table was fitted for.
        same = np.arange(size, dtype=np.int32)
        if size != sounding:
            same = Codebook(self._codebooks.of_size(sounding)).search(self._codebooks.of_size(size)).codes
        return _Synthesis(UnitSound(self._sound, self._renderer), same)


@dataclass(frozen=True)
class _Analysis:
    """Samples -> the unit of each frame."""

    front_end: FrontEnd
    codebooks: Codebooks
    codebook: Codebook

    def initial_state(self) -> Any:
        return self.front_end.initial_state()

    def step(self, state: Any, samples: NDArray[np.float32]) -> tuple[Any, NDArray[np.int32]]:
        state, features = self.front_end.step(state, samples)
        return state, self._units(features)

    def finish(self, state: Any) -> NDArray[np.int32]:
        return self._units(self.front_end.finish(state))

    def _units(self, features: NDArray[np.float32]) -> NDArray[np.int32]:
        units: NDArray[np.int32] = self.codebook.search(self.codebooks.normalised(features)).codes
        return units[None]


@dataclass(frozen=True)
class _Synthesis:
    """Units -> samples, each unit as the one that it sounds like."""

    sound: UnitSound
    same: NDArray[np.int32]

    def initial_state(self) -> Any:
        return self.sound.initial_state()

    def step(self, state: Any, values: NDArray[np.int32]) -> tuple[Any, NDArray[np.float32]]:
        return self.sound.step(state, self.same[values[0]])

    def finish(self, state: Any) -> NDArray[np.float32]:
        return self.sound.finish(state)
