"""What codecs are and how they are trained: shape, losses and length. Imports no framework.

codec-16khz    24 codebooks of 1,024 at 50 Hz: 500 bit/s each, 6 kbit/s with 12
codec-small    the same codes from nets of a tenth: for trials, and for a minute on a laptop
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
        clip_samples: Samples of a training clip, whole hops.
        batch: Clips a step.
        steps: Optimiser steps.
        learning_rate: Peak of AdamW's.
        matrix_rate: Peak of Muon's, which the matrices of the blocks have.
        start_step: Steps before there are codebooks, with noise in place of quantisation.
        start_batches: Batches whose latents the codebooks start from.
        level_weights: How often a clip is decoded from the first 1, 2, ... K codebooks, relative; none: evenly.
        phase_weight: Of the phases, within the spectral loss.
        perceptual_weight: Of the audible disturbance.
        envelope_weight: Of the energies in bands.
        commitment_weight: Of the latents' distance to what they are quantised to.
        semantic_weight: Of the first codebook's likeness to a semantic tokenizer's features, where there is one.

    Raises:
        SpecError: A value cannot be.
    """

    codec: CodecConfig
    clip_samples: int = 16_000
    batch: int = 16
    steps: int = 5000
    learning_rate: float = 2e-3
    matrix_rate: float = 0.02
    start_step: int = 250
    start_batches: int = 15
    level_weights: tuple[float, ...] = ()
    phase_weight: float = 0.15
    perceptual_weight: float = 1.0
    envelope_weight: float = 0.3
    commitment_weight: float = 0.25
    semantic_weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "level_weights", tuple(self.level_weights))
        weights = self.level_weights
        if weights and (len(weights) != self.codec.num_codebooks or min(weights) < 0 or sum(weights) <= 0):
            raise SpecError(f"level_weights={weights}: give one for each of {self.codec.num_codebooks} codebooks")
        if self.clip_samples % self.codec.hop_length:
            raise SpecError(f"clip_samples={self.clip_samples}: give a multiple of the hop, {self.codec.hop_length}")
        counts = (self.clip_samples, self.batch, self.steps, self.start_batches)
        rates = (self.learning_rate, self.matrix_rate)
        if min(counts) < 1 or self.start_step < 0 or not all(0 < rate < 1 for rate in rates):
            raise SpecError(
                f"clip_samples, batch, steps, start_batches={counts}, start_step={self.start_step}, learning_rate, "
                f"matrix_rate={rates}: give counts of 1 or more and rates between 0 and 1"
            )
        if negative := [name for name in asdict(self) if name.endswith("_weight") and getattr(self, name) < 0]:
            raise SpecError(f"{', '.join(negative)}: give weights of losses of at least 0")

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes."""
        return {**asdict(self), "codec": self.codec.to_json(), "level_weights": list(self.level_weights)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CodecPreset:
        """The preset that `to_json` wrote."""
        return cls(**{**data, "codec": CodecConfig.from_json(data["codec"])})


def level_weights(num_codebooks: int, favourite: int) -> tuple[float, ...]:
    """One clip in 20 from the first codebook alone, half of the others from `favourite`, the rest from 2 to K evenly.

    Args:
        num_codebooks: K, at least 2.
        favourite: The number that matters most.
    """
    weights = [0.05] + [0.475 / (num_codebooks - 1)] * (num_codebooks - 1)
    weights[favourite - 1] += 0.475
    return tuple(weights)


def _codec(channels: int, blocks: tuple[int, int], latents: int = 64, codebooks: int = 24) -> CodecConfig:
    seen, made = frame_values(640, 80)
    return CodecConfig(
        encoder=CausalConfig(
            in_dim=seen, out_dim=latents, channels=2 * channels, hidden=6 * channels, taps=5,
            dilations=(1,) * blocks[0], lookahead=1,
        ),
        decoder=CausalConfig(
            in_dim=latents, out_dim=made, channels=3 * channels, hidden=9 * channels, taps=5,
            dilations=(1,) * blocks[1], unstack=2, lookahead=1,
        ),
        codebook_sizes=(1024,) * codebooks,
    )  # fmt: skip


DEFAULT_PRESET = "codec-16khz"
PRESETS: dict[str, CodecPreset] = {
    "codec-16khz": CodecPreset(codec=_codec(128, (6, 8)), level_weights=level_weights(24, 12), steps=5000),
    "codec-small": CodecPreset(
        codec=_codec(48, (3, 4)), level_weights=level_weights(24, 12), steps=1500, start_step=150
    ),
}
