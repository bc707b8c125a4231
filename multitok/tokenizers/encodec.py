"""Meta's EnCodec: `multitok.load(folder, kind="encodec")`, folders of transformers' `EncodecModel`.

    facebook/encodec_24khz    mono    75 frames a second          32 codebooks of 1,024
    facebook/encodec_48khz    stereo  150 frames, in chunks of 1 s  16 codebooks of 1,024, and one for the loudness
    facebook/encodec_32khz    mono    50 frames a second          4 codebooks of 2,048 (MusicGen's)

Bandwidths are numbers of codebooks: `tokenizer.at_bitrate(6_000)` has the 8 of 6 kbit/s at 24 kHz.

Chunks. At 48 kHz a chunk of 48,000 samples begins every 47,520, each is encoded by itself, 150 frames, the last as
long as what is left; decode fades from one to the next. So there are 151.5 frames a second, and `Codes` has the
chunks' frames one after the other.

    samples   0 ............ 47520 . 48000 ............. 95040 .
    frames    [0 ..................150)
                             [150 ..................300)

Loudness. That network sees each chunk divided by its root mean square, and decode multiplies by it. This scale is a
number, not a code, and without it a clip cannot be decoded; so it is codebook 0 here: 1,024 steps of 1/8 dB, from
-108 dB (silence) to 20 dB, the same code in all frames of a chunk, of which decode reads the first. Rounding it
changes the loudness by at most 0.8 %. The other codebooks are EnCodec's, unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from multitok.tokenizers._audio_network import AudioFormat
from multitok.tokenizers._transformers_codec import TransformersCodec

if TYPE_CHECKING:
    import torch

SCALE_CODES = 1024
SCALE_STEP_DB, LOWEST_SCALE_DB = 0.125, -108.0
# Keeps silence from being divided by 0; EnCodec's number.
SCALE_FLOOR = 1e-8


class Encodec(TransformersCodec):
    """Waveforms <-> codes [K, F], F = ceil(N / hop) of every chunk; the arguments are those of `AudioNetwork`."""

    kind = "encodec"
    model_name = "EncodecModel"
    model_type = "encodec"

    @classmethod
    def format_of(cls, config: Mapping[str, Any], module: Any) -> AudioFormat:
        """The codebooks of the largest bandwidth, after that of the loudness where the network has one."""
        settings = module.config
        sizes = (settings.codebook_size,) * len(module.quantizer.layers)
        return AudioFormat(
            settings.sampling_rate,
            settings.audio_channels,
            settings.hop_length,
            (SCALE_CODES, *sizes) if settings.normalize else sizes,
        )

    @property
    def max_samples(self) -> int | None:
        """2^24 where a clip is one chunk: transformers counts a chunk's samples in float32."""
        return None if self._module.config.chunk_length else 2**24

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, exactly; those that chunks have twice count twice."""
        length, stride = self._module.config.chunk_length, self._module.config.chunk_stride
        if not length:
            return super().frame_rate
        return Fraction(self._format.sample_rate_hz * super().num_frames(length), stride)

    def num_frames(self, num_samples: int) -> int:
        """F: of all chunks."""
        return sum(super(Encodec, self).num_frames(length) for _, length in self._chunks(num_samples))

    def bits_of(self, count: int) -> float:
        """Bits a frame of the first codebooks, that of the loudness not counted, as in EnCodec's bandwidths."""
        loudness = self._module.config.normalize
        return super().bits_of(count) - super().bits_of(1) if loudness else super().bits_of(count)

    def run_encoder(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [1, C, N] to codes [K, F], chunk by chunk."""
        import torch

        chunks = self._chunks(samples.shape[2])
        return torch.cat([self._encode_chunk(samples[:, :, at : at + length]) for at, length in chunks], 1)

    def run_decoder(self, codes: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Codes [K, F] to samples [C, M]; fewer than asked for only where the number is nominal."""
        import torch

        hop, config = self._format.hop_length, self._module.config
        if not config.chunk_length:
            return self._decode_chunk(codes)
        if codes.shape[1] == self.num_frames(num_samples):
            frames = [super(Encodec, self).num_frames(length) for _, length in self._chunks(num_samples)]
        else:
            whole = -(-config.chunk_length // hop)
            frames = [min(whole, codes.shape[1] - at) for at in range(0, codes.shape[1], whole)]
        return _crossfaded([self._decode_chunk(part) for part in torch.split(codes, frames, 1)], config.chunk_stride)

    def _chunks(self, num_samples: int) -> list[tuple[int, int]]:
        """First sample and length of each chunk."""
        length, stride = self._module.config.chunk_length, self._module.config.chunk_stride
        if not length:
            return [(0, num_samples)]
        return [(at, min(length, num_samples - at)) for at in range(0, num_samples, stride)]

    def _encode_chunk(self, samples: torch.Tensor) -> torch.Tensor:
        import torch

        rows, scaled = [], self._module.config.normalize
        if scaled:
            mono = samples.sum(1, keepdim=True) / samples.shape[1]
            scale = mono.pow(2).mean(2, keepdim=True).sqrt() + SCALE_FLOOR
            samples = samples / scale
            step = ((20.0 * scale.double().log10() - LOWEST_SCALE_DB) / SCALE_STEP_DB).round()
            rows.append(step.clamp(0, SCALE_CODES - 1).long().flatten())
        residual = self._module.encoder(samples)
        if scaled:
            rows[0] = rows[0].expand(residual.shape[2])
        for layer in self._module.quantizer.layers[: self._spec.num_codebooks - scaled]:
            found = layer.encode(residual)
            residual = residual - layer.decode(found)
            rows.append(found[0])
        return torch.stack(rows)

    def _decode_chunk(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [K, F] to samples [C, M]."""
        import torch

        scaled = self._module.config.normalize
        vectors = torch.zeros((1, self._module.config.codebook_dim, codes.shape[1]), device=codes.device)
        for layer, row in zip(self._module.quantizer.layers, codes[int(scaled) :], strict=False):
            vectors = vectors + layer.decode(row[None])
        samples: torch.Tensor = self._module.decoder(vectors)[0]
        if scaled:
            samples = samples * (10.0 ** ((codes[0, 0].double() * SCALE_STEP_DB + LOWEST_SCALE_DB) / 20.0)).float()
        return samples


def _crossfaded(chunks: list[torch.Tensor], stride: int) -> torch.Tensor:
    """Chunks [C, M], one every `stride` samples, each weighted by a triangle as long as the first."""
    import torch

    longest = chunks[0].shape[1]
    ramp = torch.linspace(0, 1, longest + 2, device=chunks[0].device)[1:-1]
    triangle = 0.5 - (ramp - 0.5).abs()
    end = max(i * stride + chunk.shape[1] for i, chunk in enumerate(chunks))
    total = torch.zeros((chunks[0].shape[0], end), device=ramp.device)
    weights = torch.zeros(total.shape[1], device=ramp.device)
    for i, chunk in enumerate(chunks):
        where = slice(i * stride, i * stride + chunk.shape[1])
        total[:, where] += triangle[: chunk.shape[1]] * chunk
        weights[where] += triangle[: chunk.shape[1]]
    return total / weights
