"""What codecs are and how they are trained: shape, losses and length. Imports no framework.

codec-16khz    16 codebooks of 1,024 at 80 Hz: 800 bit/s each, 5.6 kbit/s with 7
codec-small    the same codes from nets of a tenth: for trials
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from multitok.errors import SpecError
from multitok.nets.causal.config import CausalConfig
from multitok.nets.codec_config import CodecConfig, frame_values


@dataclass(frozen=True, kw_only=True)
class CodecPreset:
    """Shape of a codec and how it is trained; `dataclasses.replace` makes another.

    Args:
        codec: Its shape.
        clip_frames: Frames of a training clip; half a second or more.
        batch: Clips a step.
        steps: Optimiser steps.
        learning_rate: Peak of AdamW's.
        matrix_rate: Peak of Muon's, which the matrices of the blocks have.
        start_batches: Batches that linear maps and codebooks start from.
        level_weights: How often a clip is decoded from the first 1, 2, ... K codebooks, relative; none: evenly.
        spectral_weight: Of the spectra at several resolutions.
        phase_weight: Of the phases, within these.
        perceptual_weight: Of the audible disturbance; alone with it, words suffer.
        intelligibility_weight: Of the lost intelligibility.
        commitment_weight: Of the latents' distance to what they are quantised to.
        semantic_weight: Of the first codebook's likeness to a semantic tokenizer's features, where there is one.

    Raises:
        SpecError: A value cannot be.
    """

    codec: CodecConfig
    clip_frames: int = 80
    batch: int = 16
    steps: int = 4000
    learning_rate: float = 1e-3
    matrix_rate: float = 0.01
    start_batches: int = 25
    level_weights: tuple[float, ...] = ()
    spectral_weight: float = 2.0
    phase_weight: float = 0.15
    perceptual_weight: float = 0.3
    intelligibility_weight: float = 6.0
    commitment_weight: float = 3.0
    semantic_weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "level_weights", tuple(self.level_weights))
        weights = self.level_weights
        if weights and (len(weights) != self.codec.num_codebooks or min(weights) < 0 or sum(weights) <= 0):
            raise SpecError(f"level_weights={weights}: give one for each of {self.codec.num_codebooks} codebooks")
        counts = (self.clip_frames, self.batch, self.steps, self.start_batches)
        rates = (self.learning_rate, self.matrix_rate)
        if min(counts) < 1 or not all(0 < rate < 1 for rate in rates):
            raise SpecError(
                f"clip_frames, batch, steps, start_batches={counts}, learning_rate, matrix_rate={rates}: "
                "give counts of 1 or more and rates between 0 and 1"
            )
        if negative := [name for name in asdict(self) if name.endswith("_weight") and getattr(self, name) < 0]:
            raise SpecError(f"{', '.join(negative)}: give weights of losses of at least 0")

    @property
    def clip_samples(self) -> int:
        """Samples of a training clip, those included that the nets only look ahead at."""
        ahead = self.codec.encoder.lookahead + self.codec.decoder.lookahead
        return (self.clip_frames + ahead) * self.codec.hop_length

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes."""
        return {**asdict(self), "codec": self.codec.to_json(), "level_weights": list(self.level_weights)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CodecPreset:
        """The preset that `to_json` wrote."""
        return cls(**{**data, "codec": CodecConfig.from_json(data["codec"])})


def level_weights(num_codebooks: int, favourite: int) -> tuple[float, ...]:
    """One clip in 25 from the first codebook alone, half of the others from `favourite`, the rest from 2 to K evenly.

    Args:
        num_codebooks: K, at least 2.
        favourite: The number that matters most.
    """
    weights = [0.04] + [0.48 / (num_codebooks - 1)] * (num_codebooks - 1)
    weights[favourite - 1] += 0.48
    return tuple(weights)


def _codec(channels: int, blocks: tuple[int, int]) -> CodecConfig:
    seen, made = frame_values(600, 80, 800)
    sizes: dict[str, int] = {"channels": channels, "hidden": 3 * channels}
    encoder = CausalConfig(in_dim=seen, out_dim=96, taps=5, dilations=(1,) * blocks[0], lookahead=1, **sizes)
    # Of the shape of the shipped vocoder, from which it starts.
    decoder = CausalConfig(in_dim=96, out_dim=made, taps=7, dilations=(1,) * blocks[1], lookahead=2, **sizes)
    return CodecConfig(encoder=encoder, decoder=decoder, codebook_sizes=(1024,) * 16)


DEFAULT_PRESET = "codec-16khz"
PRESETS: dict[str, CodecPreset] = {
    "codec-16khz": CodecPreset(codec=_codec(256, (6, 8)), level_weights=level_weights(16, 7)),
    "codec-small": CodecPreset(codec=_codec(96, (3, 6)), level_weights=level_weights(16, 7), steps=1500),
}


def preset(name: str) -> CodecPreset:
    """A preset by its name.

    Raises:
        SpecError: There is none of this name.
    """
    if name not in PRESETS:
        raise SpecError(f"preset={name!r}: give one of {', '.join(PRESETS)}")
    return PRESETS[name]
