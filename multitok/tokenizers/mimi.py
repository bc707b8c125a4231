"""Kyutai's Mimi: `multitok.load(folder, kind="mimi")`, folders of transformers' `MimiModel` (kyutai/mimi).

24 kHz, 25 / 2 frames a second, 32 codebooks of 2,048; Moshi uses the first 8, `tokenizer.first_codebooks(8)`.
Codebook 0 was taught by a speech model and is called semantic, the others refine the sound; its stream in Moshi runs
ahead of theirs, which is the flatten pattern `delay:0,1,1,1,1,1,1,1`.

Both sides are causal, and attention looks at 250 steps of 25 a second, 10 s back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multitok.tokenizers._audio_network import AudioFormat
from multitok.tokenizers._transformers_codec import TransformersCodec

if TYPE_CHECKING:
    import torch

# Newer versions of transformers keep the network in two halves; published files have it flat.
HALVES = (
    (re.compile(r"^(en|de)coder\.\1coder_seanet\."), r"\1coder."),
    (re.compile(r"^(en|de)coder\.(\1coder_transformer|downsample|upsample)\."), r"\2."),
)


class Mimi(TransformersCodec):
    """Mono waveforms <-> codes [K, F], F = ceil(N / 1920); the arguments are those of `AudioNetwork`."""

    kind = "mimi"
    model_name = "MimiModel"
    model_type = "mimi"

    @classmethod
    def published_key(cls, key: str) -> str:
        """The flat name."""
        for halved, flat in HALVES:
            key = halved.sub(flat, key)
        return super().published_key(key)

    @classmethod
    def format_of(cls, config: Mapping[str, Any], module: Any) -> AudioFormat:
        """The hop from the rate of frames, which the configuration gives."""
        settings = module.config
        return AudioFormat(
            settings.sampling_rate,
            settings.audio_channels,
            round(settings.sampling_rate / settings.frame_rate),
            (settings.codebook_size,) * settings.num_quantizers,
        )

    @property
    def max_samples(self) -> int:
        """2^24: transformers counts samples in float32."""
        return 2**24

    def counts(self) -> list[int]:
        """From the semantic codebooks on."""
        return list(range(self._module.config.num_semantic_quantizers, self._spec.num_codebooks + 1))

    def run_encoder(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [1, C, N] to codes [K, F]."""
        found = self._module.encode(samples, num_quantizers=self._spec.num_codebooks, use_streaming=False)
        codes: torch.Tensor = found.audio_codes[0]
        return codes

    def run_decoder(self, codes: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Codes [K, F] to samples [C, M]."""
        samples: torch.Tensor = self._module.decode(codes[None]).audio_values[0]
        return samples
