"""Descript's audio codec: `multitok.load(folder, kind="dac")`, folders of transformers' `DacModel`.

    descript/dac_16khz    50 frames a second          12 codebooks of 1,024
    descript/dac_24khz    75                          32
    descript/dac_44khz    44,100 / 512 = 86.13        9

A clip gets zeros up to a whole frame, as in DAC's own preprocessing, and nothing more: the network has no mask, so in a
batch padded to one length some of a shorter clip's last codes differ. Where a step of the network is odd (5, in the
first two), it gives some samples less than it took, 8 at 16 and 24 kHz; the end of a clip that fills its last frame is
silent that long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multitok.tokenizers._audio_network import AudioFormat
from multitok.tokenizers._transformers_codec import TransformersCodec

if TYPE_CHECKING:
    import torch


class Dac(TransformersCodec):
    """Mono waveforms <-> codes [K, F], F = ceil(N / hop); the arguments are those of `AudioNetwork`."""

    kind = "dac"
    model_name = "DacModel"
    model_type = "dac"

    @classmethod
    def format_of(cls, config: Mapping[str, Any], module: Any) -> AudioFormat:
        """One channel."""
        settings = module.config
        return AudioFormat(
            settings.sampling_rate, 1, settings.hop_length, (settings.codebook_size,) * settings.n_codebooks
        )

    def run_encoder(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [1, 1, N] to codes [K, F]."""
        from torch.nn.functional import pad

        whole = pad(samples, (0, -samples.shape[2] % self._format.hop_length))
        codes: torch.Tensor = self._module.encode(whole, n_quantizers=self._spec.num_codebooks).audio_codes[0]
        return codes

    def run_decoder(self, codes: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Codes [K, F] to samples [1, M]."""
        samples: torch.Tensor = self._module.decode(audio_codes=codes[None]).audio_values
        return samples.reshape(1, -1)
