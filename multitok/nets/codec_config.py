"""The shape of the codec: what a code stands for, how wide its nets are, how far it looks ahead.

Shape letters: S frequencies of an analysed frame, R of a made one, M mel bands, D latents, K codebooks. Imports no
framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import log2
from typing import Any

from multitok.errors import SpecError
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.causal.config import CausalConfig


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Sound <-> K codes for every `hop_length` samples.

        samples -> frames -+-> spectrum, log mel energies -> encoder --+
                           +-> log mel energies -> linear map ---------+-> latents [D] -> K codes
        K codes -> latents -+-> decoder ---> fine structure --+
                            +-> linear map -> log mel energies -> envelope -> spectra -> overlap-add -> samples

    Frames lie in the middle of their hops.

    Args:
        encoder: From 3 S + M values of a frame to D latents.
        decoder: From D latents to 2 R values of a frame.
        codebook_sizes: V of each of the K codebooks, which quantise one after the other what is left over.
        sample_rate_hz: Of the samples.
        hop_length: Samples for which there is one code of each codebook.
        window_length: Samples of an analysed frame; S = window_length / 2 + 1.
        fft_length: Of the mel energies' transform.
        num_mels: M.
        synthesis_length: Samples of a made frame; R = synthesis_length / 2 + 1.

    Raises:
        SpecError: Sizes do not fit each other.
    """

    encoder: CausalConfig
    decoder: CausalConfig
    codebook_sizes: tuple[int, ...]
    sample_rate_hz: int = 16_000
    hop_length: int = 200
    window_length: int = 600
    fft_length: int = 1024
    num_mels: int = 80
    synthesis_length: int = 800

    def __post_init__(self) -> None:
        object.__setattr__(self, "codebook_sizes", tuple(self.codebook_sizes))
        if not self.codebook_sizes or min(self.codebook_sizes) < 1 or self.sample_rate_hz < 1:
            raise SpecError(
                f"codebook_sizes={self.codebook_sizes}, sample_rate_hz={self.sample_rate_hz}: give one codebook or "
                "more, and numbers of at least 1"
            )
        nets = (self.encoder, self.decoder)
        if {(net.stack, net.unstack) for net in nets} != {(1, 1)} or self.encoder.out_dim != self.decoder.in_dim:
            raise SpecError(
                f"the encoder gives {self.encoder.out_dim} latents, the decoder takes {self.decoder.in_dim}: give "
                "equal numbers, and nets with stack=1 and unstack=1"
            )
        wanted = frame_values(self.window_length, self.num_mels, self.synthesis_length)
        if (self.encoder.in_dim, self.decoder.out_dim) != wanted:
            raise SpecError(
                f"encoder.in_dim={self.encoder.in_dim}, decoder.out_dim={self.decoder.out_dim}: windows of "
                f"{self.window_length} and {self.synthesis_length} samples with {self.num_mels} mel bands need "
                f"{wanted[0]} and {wanted[1]}"
            )
        if self.synthesis_length % self.hop_length or (self.synthesis_length - self.hop_length) % 2:
            raise SpecError(
                f"synthesis_length={self.synthesis_length} with hop_length={self.hop_length}: give a multiple of the "
                "hop, and an even number longer"
            )
        assert self.mel.lead >= 0  # which checks the other lengths

    @cached_property
    def mel(self) -> MelSpectrogram:
        """Frames and their mel energies."""
        return MelSpectrogram(self.sample_rate_hz, self.hop_length, self.window_length, self.fft_length, self.num_mels)

    @property
    def latent_dim(self) -> int:
        """D."""
        return self.encoder.out_dim

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self.codebook_sizes)

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
        return self.mel.lead + self.encoder.lookahead * self.hop_length

    @property
    def decoder_lookahead_samples(self) -> int:
        """Samples by which decoded sound waits for codes that come after its own."""
        # The frames that reach back over a sample, then those that the net looks ahead.
        overlapping = -(-((self.synthesis_length - self.hop_length) // 2) // self.hop_length)
        return (overlapping + self.decoder.lookahead) * self.hop_length

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes."""
        return {
            "encoder": self.encoder.to_json(),
            "decoder": self.decoder.to_json(),
            "codebook_sizes": list(self.codebook_sizes),
            "sample_rate_hz": self.sample_rate_hz,
            "hop_length": self.hop_length,
            "window_length": self.window_length,
            "fft_length": self.fft_length,
            "num_mels": self.num_mels,
            "synthesis_length": self.synthesis_length,
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


def frame_values(window_length: int, num_mels: int, synthesis_length: int) -> tuple[int, int]:
    """Values of a frame that the encoder sees (3 S + M) and that the decoder makes (2 R).

    Args:
        window_length: Samples of an analysed frame.
        num_mels: M.
        synthesis_length: Samples of a made frame.
    """
    return 3 * (window_length // 2 + 1) + num_mels, 2 * (synthesis_length // 2 + 1)
