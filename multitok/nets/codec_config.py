"""The shape of the codec: what a code stands for, how wide its nets are, how far it looks ahead.

Shape letters: W samples of a window, S = W / 2 + 1 frequencies, M bands, D latents, K codebooks. Imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import log2
from typing import Any

from multitok.errors import SpecError
from multitok.nets.causal.config import CausalConfig

# What the encoder sees of each frequency: real and imaginary part, magnitude. The decoder makes the first two.
ENCODER_PARTS, DECODER_PARTS = 3, 2


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Sound <-> K codes for every `hop_length` samples.

        samples -> spectra, one a hop / encoder.stack -> encoder -> latents [D], one a hop -> K codes
        K codes -> latents -> decoder -> spectra, one a hop / decoder.unstack -> overlap-add -> samples

    Frames lie in the middle of their hops. Magnitudes are compressed to their fourth root on the way in. The decoder
    makes a spectrum's envelope, as logarithms of the energies in M mel bands, and apart from it the fine structure.

    Args:
        encoder: From 3 S values of a frame (`ENCODER_PARTS`) to D latents.
        decoder: From D latents to 2 S + M values of a frame.
        codebook_sizes: V of each of the K codebooks, which quantise one after the other what is left over.
        sample_rate_hz: Of the samples.
        hop_length: Samples for which there is one code of each codebook.
        window_length: W, of both nets' frames.
        num_bands: M.

    Raises:
        SpecError: Sizes do not fit each other.
    """

    encoder: CausalConfig
    decoder: CausalConfig
    codebook_sizes: tuple[int, ...]
    sample_rate_hz: int = 16_000
    hop_length: int = 320
    window_length: int = 640
    num_bands: int = 80

    def __post_init__(self) -> None:
        object.__setattr__(self, "codebook_sizes", tuple(self.codebook_sizes))
        if not self.codebook_sizes or min(self.codebook_sizes) < 1 or self.sample_rate_hz < 1 or self.hop_length < 1:
            raise SpecError(
                f"codebook_sizes={self.codebook_sizes}, sample_rate_hz={self.sample_rate_hz}, hop_length="
                f"{self.hop_length}: give one codebook or more, and numbers of at least 1"
            )
        if self.encoder.unstack != 1 or self.decoder.stack != 1 or self.encoder.out_dim != self.decoder.in_dim:
            raise SpecError(
                f"the encoder gives {self.encoder.unstack} x {self.encoder.out_dim} latents, the decoder takes "
                f"{self.decoder.stack} x {self.decoder.in_dim}: give 1 of the same number each"
            )
        wanted = frame_values(self.window_length, self.num_bands)
        if (self.encoder.in_dim, self.decoder.out_dim) != wanted:
            raise SpecError(
                f"encoder.in_dim={self.encoder.in_dim}, decoder.out_dim={self.decoder.out_dim}: windows of "
                f"{self.window_length} samples with num_bands={self.num_bands} need {wanted[0]} and {wanted[1]}"
            )
        for part, frames in (("encoder.stack", self.encoder.stack), ("decoder.unstack", self.decoder.unstack)):
            hop = self.hop_length // frames
            if self.hop_length % frames or self.window_length % hop or (self.window_length - hop) % 2:
                raise SpecError(
                    f"{part}={frames} with hop_length={self.hop_length} and window_length={self.window_length}: the "
                    "hop is to be a multiple of it, and the window a multiple of the quotient, an even number longer"
                )

    @property
    def latent_dim(self) -> int:
        """D."""
        return self.encoder.out_dim

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self.codebook_sizes)

    @property
    def analysis_hop_length(self) -> int:
        """Samples from one frame of the encoder to the next."""
        return self.hop_length // self.encoder.stack

    @property
    def synthesis_hop_length(self) -> int:
        """Samples from one frame of the decoder to the next."""
        return self.hop_length // self.decoder.unstack

    @property
    def frame_rate_hz(self) -> Fraction:
        """Codes of each codebook a second."""
        return Fraction(self.sample_rate_hz, self.hop_length)

    def bitrate_bps(self, num_codebooks: int) -> float:
        """Bits a second of the first codebooks.

        Args:
            num_codebooks: How many.
        """
        return float(self.frame_rate_hz) * sum(log2(size) for size in self.codebook_sizes[:num_codebooks])

    @property
    def encoder_lookahead_samples(self) -> int:
        """Samples after the end of a code's hop that the code depends on."""
        beside = (self.window_length - self.analysis_hop_length) // 2
        return beside + self.encoder.lookahead * self.hop_length

    @property
    def decoder_lookahead_samples(self) -> int:
        """Samples by which decoded sound waits for codes that come after its own."""
        # A sample in the second half of a window's overlap needs the frame after: of the same code or of the next.
        beside = (self.window_length - self.synthesis_hop_length) // 2
        return -(-beside // self.hop_length) * self.hop_length + self.decoder.lookahead * self.hop_length

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes."""
        return {
            "encoder": self.encoder.to_json(),
            "decoder": self.decoder.to_json(),
            "codebook_sizes": list(self.codebook_sizes),
            "sample_rate_hz": self.sample_rate_hz,
            "hop_length": self.hop_length,
            "window_length": self.window_length,
            "num_bands": self.num_bands,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CodecConfig:
        """The shape that `to_json` wrote.

        Raises:
            SpecError: A field is missing, unknown or cannot be.
        """
        try:
            nets = {name: CausalConfig(**data[name]) for name in ("encoder", "decoder")}
            return cls(**{**data, **nets})
        except (KeyError, TypeError) as error:
            raise SpecError(f"not the shape of a codec: {error}") from error


def frame_values(window_length: int, num_bands: int) -> tuple[int, int]:
    """Values of a frame that the encoder sees and that the decoder makes.

    Args:
        window_length: W.
        num_bands: M.
    """
    frequencies = window_length // 2 + 1
    return ENCODER_PARTS * frequencies, DECODER_PARTS * frequencies + num_bands
