"""X-Codec2: `multitok.load(folder, kind="xcodec2")`, folders of transformers' `Xcodec2Model` (HKUSTAudio/xcodec2-hf).

16 kHz, 50 frames a second, one codebook of 65,536 (FSQ, eight digits of four levels). The encoder has two halves, one
for the waveform and a w2v-BERT for its mel spectrum, which attends to the whole clip; so codes depend on the whole
clip, and time and memory of long ones grow with the square of their length. X-Codec2 adds a zero to every clip and then
zeros up to a whole frame: F = N // 320 + 1, one frame more than the sound fills where 320 divides N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from multitok.frontend.kaldi_fbank import kaldi_fbank
from multitok.tokenizers._audio_network import AudioFormat
from multitok.tokenizers._transformers_codec import TransformersCodec

if TYPE_CHECKING:
    import torch

# Mel frames, one in 10 ms, that enter w2v-BERT as one.
STACK = 2


class Xcodec2(TransformersCodec):
    """Mono waveforms <-> codes [1, F], F = N // 320 + 1; the arguments are those of `AudioNetwork`."""

    kind = "xcodec2"
    model_name = "Xcodec2Model"
    model_type = "xcodec2"

    @classmethod
    def format_of(cls, config: Mapping[str, Any], module: Any) -> AudioFormat:
        """One channel, one codebook."""
        settings = module.config
        return AudioFormat(settings.sampling_rate, 1, settings.hop_length, (math.prod(settings.quantization_levels),))

    def num_frames(self, num_samples: int) -> int:
        """F: a zero comes after every clip."""
        return super().num_frames(num_samples + 1)

    def run_encoder(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [1, 1, N] to codes [1, F]."""
        import torch

        hop, device = self._format.hop_length, samples.device
        whole = torch.nn.functional.pad(samples, (0, 1 + -(samples.shape[2] + 1) % hop))
        around = np.pad(whole[0, 0].numpy(force=True), hop // 2)
        mels = kaldi_fbank(around, self._format.sample_rate_hz)
        deviation = np.sqrt(mels.var(axis=0, ddof=1) + 1e-7)
        features = ((mels - mels.mean(axis=0)) / deviation).astype(np.float32)
        stacked = torch.from_numpy(features.reshape(-1, STACK * features.shape[1])).to(device)
        codes: torch.Tensor = self._module.encode(whole, input_features=stacked[None]).audio_codes[0]
        return codes

    def run_decoder(self, codes: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Codes [1, F] to samples [1, M]."""
        samples: torch.Tensor = self._module.decode(audio_codes=codes[None]).audio_values
        return samples.reshape(1, -1)
