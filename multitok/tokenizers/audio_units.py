"""Speech units as runs and merges: fewer tokens for the same words. Made by `AudioSemantic.deduplicated` and `.merged`.

    frames of units    7 7 7 12 12 3 3 3 3      50 a second
    deduplicated       7 12 3                   a token for each run
      with durations   7 12 3 / 3 2 4           and a second codebook: its frames, so nothing is lost
    merged             [7 12] 3                 runs that often follow each other are one token (`_unit_bpe.py`); of
                                                steady units, so that none flickers, and with one unit for silence

How many tokens there are depends on the content: the stride is 0, the extent counts samples. Without durations `decode`
divides the clip's length evenly among the runs. Runs are known when they end, so this kind does not stream.

Shape letters: V units, n tokens, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError
from multitok.frontend.resample import to_mono
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec, Waveform
from multitok.tokenizers._unit_bpe import UnitBpe, frames_of, runs_of, spread
from multitok.tokenizers.audio_semantic import FRAME_LENGTH, SAMPLE_RATE_HZ, AudioSemantic

LONGEST_RUN = 32  # frames: 0.64 s; a longer run is several
TYPICAL_RUN = 2  # frames of a run where neither durations nor the clip's length are known
PREFIX = "semantic."


class AudioUnits(TokenizerBase[Waveform]):
    """Waveforms <-> tokens of runs of speech units: codes [1, n], or [2, n] with durations.

    Args:
        semantic: What makes units of sound, and sound of units.
        bpe: Merges of its units, perhaps none.
        penalty: What a change of unit costs, see `AudioSemantic.steady_units`; 0 takes the nearest units.
        durations: Whether a second codebook says how many frames a token lasts: code 0 is one frame.
        name: Name inside a vocabulary.

    Raises:
        SpecError: The merges are of another number of units.
    """

    def __init__(
        self,
        *,
        semantic: AudioSemantic,
        bpe: UnitBpe,
        penalty: float = 0.0,
        durations: bool = False,
        name: str = "speech",
    ) -> None:
        if not 0 <= penalty < np.inf:
            raise SpecError(f"penalty={penalty}: a change of unit costs 0 or more")
        if bpe.num_units != semantic.spec.codebook_sizes[0]:
            raise SpecError(f"merges of {bpe.num_units} units for a tokenizer of {semantic.spec.codebook_sizes[0]}")
        self._semantic, self._bpe, self._durations, self._penalty = semantic, bpe, durations, float(penalty)
        # A token of several units is at most as long as so many runs.
        self._longest = LONGEST_RUN * int(bpe.lengths.max())
        self._spec = TokenizerSpec(
            kind="audio-units",
            name=name,
            modality=Modality.AUDIO,
            codebook_sizes=(bpe.num_tokens, self._longest) if durations else (bpe.num_tokens,),
            grid_axes=("t",),
            stride=(0,),
            sample_rate_hz=SAMPLE_RATE_HZ,
        )

    @property
    def spec(self) -> TokenizerSpec:
        """Tokens, and durations where asked for, over ("t",); the stride is 0, since the content decides."""
        return self._spec

    def encode(self, raw: Waveform, /) -> Codes:
        """Tokens of a clip; the extent is (N,), its samples at 16 kHz.

        Raises:
            InputError: No sample, a sample that is not finite, or samples far beyond full scale.
        """
        samples = to_mono(raw, SAMPLE_RATE_HZ)
        units = self._semantic.steady_units(Waveform(samples, SAMPLE_RATE_HZ), self._penalty)
        return Codes(self.tokens_of(units), (samples.size,))

    def tokens_of(self, units: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Tokens, and durations where asked for, of units [F]: [1, n] or [2, n]."""
        if self._bpe.silent.size:
            units = np.where(np.isin(units, self._bpe.silent), self._bpe.silent[0], units)
        if not self._durations:
            return self._bpe.encode(runs_of(units)[0])[None]
        runs, lengths = runs_of(units, LONGEST_RUN)
        tokens = self._bpe.encode(runs)
        ends = np.cumsum(self._bpe.lengths[tokens])
        totals = np.diff(np.cumsum(lengths)[ends - 1], prepend=0)
        return np.stack([tokens, totals.astype(np.int32) - 1])

    def units_of(self, codes: Codes, /) -> NDArray[np.int32]:
        """Units [F] of tokens: with durations and without merges the very ones that were encoded.

        Args:
            codes: Of this tokenizer. F fits the extent; where that is none of a clip (a model's output counts its
                tokens), tokens last as long as they say, or TYPICAL_RUN frames a run.

        Raises:
            ShapeError: The codes are not of this kind, or durations contradict the extent.
            CodeRangeError: A code lies outside its codebook.
        """
        self._spec.check(codes)
        tokens, num_samples = codes.values[0], codes.extent[0]
        runs, parts = self._bpe.decode(tokens), self._bpe.lengths[tokens]
        wanted = -(-num_samples // FRAME_LENGTH)
        is_clip = num_samples != codes.grid[0] or num_samples == 1
        if self._durations:
            # A model may say fewer frames than units; each has one at least.
            totals = np.maximum(codes.values[1] + 1, parts)
            if is_clip and totals.sum() != wanted:
                raise ShapeError(
                    f"durations of {totals.sum()} frames for {num_samples} samples, which have {wanted}: "
                    "take durations and extent from one clip, or give the number of tokens as extent"
                )
            return frames_of(runs, spread(totals, parts))
        if not is_clip or not runs.size:
            return frames_of(runs, np.full(runs.size, TYPICAL_RUN))
        whole = spread(np.array([wanted]), np.array([runs.size]))
        return frames_of(runs, whole)

    def decode(self, codes: Codes, /) -> Waveform:
        """Sound of the units, in an average voice; exactly as many samples as the clip had.

        Raises:
            ShapeError: The codes are not of this kind, or durations contradict the extent.
            CodeRangeError: A code lies outside its codebook.
        """
        units = self.units_of(codes)
        whole = units.size * FRAME_LENGTH
        is_clip = whole - FRAME_LENGTH < codes.extent[0] <= whole
        return self._semantic.decode(Codes(units[None], (codes.extent[0] if is_clip else whole,)))

    def get_config(self) -> dict[str, Json]:
        """What the units are made by, what a change costs, and whether durations are kept."""
        return {
            "name": self._spec.name,
            "penalty": self._penalty,
            "durations": self._durations,
            "semantic": self._semantic.get_config(),
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """Those of the units' tokenizer, and the merges."""
        held = {PREFIX + key: value for key, value in self._semantic.get_tensors().items()}
        return {**held, "merges": self._bpe.merges, "silent": self._bpe.silent}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> AudioUnits:
        """Rebuild a tokenizer from its configuration and tensors."""
        inner = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
        semantic = AudioSemantic.from_state(config["semantic"], inner)
        bpe = UnitBpe(semantic.spec.codebook_sizes[0], tensors["merges"], tensors["silent"])
        return cls(
            semantic=semantic, bpe=bpe, penalty=config["penalty"], durations=config["durations"], name=config["name"]
        )
