"""The codec in torch: what is trained, and what a training loop can put gradients through.

    samples [B, N] -> features -> encoder -> latents [B, F, D] -> residual VQ -> decoder -> spectra -> samples [B, N]

F = ceil(N / hop); what lies outside of a clip is silence. `freeze_codec` makes the exact form that tokenizers run
(`multitok.nets.codec_exact`). This module imports torch.

Shape letters: B clips, N samples, F codes of a codebook, D latents, K codebooks, S frequencies, W samples of a window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from multitok.errors import ShapeError, SpecError
from multitok.frontend.spectrogram import mel_filters
from multitok.nets.causal.freeze import freeze, thaw
from multitok.nets.causal.module import CausalNet
from multitok.nets.codec_config import CodecConfig
from multitok.nets.codec_exact import (
    BAND_LIMITS,
    BAND_SHIFT,
    BAND_SPAN,
    LEAST_DIVISOR,
    LEAST_ENERGY,
    ExactCodec,
    band_filters,
    sine_window,
    synthesis_window,
)
from multitok.quantize import ResidualVQ, VectorQuantizer

LARGEST_FLOAT16 = 65504.0
# Energies of bands far below this do not count.
QUIETEST_BAND = 3e-6


class Codec(nn.Module):
    """A differentiable codec.

    Args:
        config: Its shape.
        decay: Of the codebooks' moving averages, per step.
        dead_below: As for `VectorQuantizer`.
        seed: Of the vectors that start codebooks and revive dead codes.
    """

    sine: Tensor
    hann: Tensor
    bands: Tensor
    spread: Tensor

    def __init__(self, config: CodecConfig, *, decay: float = 0.99, dead_below: float = 0.03, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = CausalNet(config.encoder), CausalNet(config.decoder)
        self.levels = [
            VectorQuantizer(config.latent_dim, size, decay=decay, dead_below=dead_below, seed=seed + k)
            for k, size in enumerate(config.codebook_sizes)
        ]
        self.quantizer = ResidualVQ(self.levels)
        mel = mel_filters(config.sample_rate_hz, config.window_length, config.num_bands)
        for name, values in (
            ("sine", sine_window(config.window_length)),
            ("hann", synthesis_window(config)),
            ("bands", (mel / mel.sum(axis=1, keepdims=True)).T),
            ("spread", band_filters(config)),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, samples: Tensor, num_codebooks: int | Tensor | None = None) -> Tensor:
        """What decoding the codes of `samples` gives, with gradients that pass straight through the codes.

        Args:
            samples: [B, N], one channel at the codec's rate.
            num_codebooks: How many of the first codebooks; None for all, or integers [B].

        Returns:
            [B, N] float32.
        """
        quantized = self.quantizer(self.latents(samples), num_codebooks).quantized
        return self.reconstruct(quantized)[:, : samples.shape[1]]

    @torch.no_grad()
    def encode(self, samples: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Codes of clips.

        Args:
            samples: [B, N].
            num_codebooks: How many of the first codebooks; None for all.

        Returns:
            [B, K, F] int64.
        """
        return self.quantizer.encode(self.latents(samples), num_codebooks).transpose(1, 2)

    @torch.no_grad()
    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        """The sound that codes stand for.

        Args:
            codes: [B, k, F] of the first k codebooks.
            num_samples: N, to crop to; None keeps whole hops.

        Returns:
            [B, N] float32.
        """
        return self.reconstruct(self.quantizer.decode(codes.transpose(1, 2)))[:, :num_samples]

    def latents(self, samples: Tensor, autocast: bool = False) -> Tensor:
        """[B, F, D] of samples [B, N]; `autocast` runs the net in bfloat16."""
        config = self.config
        seen = self.features(samples)
        missing = -seen.shape[1] % config.encoder.stack + config.encoder.lookahead * config.encoder.stack
        with torch.autocast(samples.device.type, torch.bfloat16, enabled=autocast):
            latents: Tensor = self.encoder(functional.pad(seen, (0, 0, 0, missing)))
        return latents[:, config.encoder.lookahead :].float()

    def features(self, samples: Tensor) -> Tensor:
        """What the encoder sees of samples [B, N]: [B, frames, 3 S]."""
        hop, window = self.config.analysis_hop_length, self.config.window_length
        lead, count = (window - hop) // 2, -(-samples.shape[1] // hop)
        padded = functional.pad(samples, (lead, count * hop - samples.shape[1] + lead))
        spectrum = torch.fft.rfft(padded.unfold(1, window, hop) * self.sine)
        power = spectrum.real.square() + spectrum.imag.square()
        # The root's slope is infinite at 0, where there is nothing to learn.
        root = power.clamp(min=LEAST_DIVISOR**4).sqrt().sqrt().sqrt()
        divisor = (root * root * root).clamp(min=LEAST_DIVISOR)
        return torch.cat([spectrum.real / divisor, spectrum.imag / divisor, root], dim=-1)

    def reconstruct(self, latents: Tensor, autocast: bool = False) -> Tensor:
        """[B, F * hop] samples of latents [B, F, D]; `autocast` runs the net in bfloat16."""
        return self.overlap(self.parts(latents, autocast))

    def parts(self, latents: Tensor, autocast: bool = False) -> Tensor:
        """What the decoder makes of latents [B, F, D]: [B, frames, 2 S + M]."""
        config = self.config.decoder
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=autocast):
            parts: Tensor = self.decoder(functional.pad(latents, (0, 0, 0, config.lookahead)))
        return parts[:, config.lookahead * config.unstack :].float()

    def overlap(self, parts: Tensor) -> Tensor:
        """[B, F * hop] samples of what the decoder made."""
        hop, window, count = self.config.synthesis_hop_length, self.config.window_length, parts.shape[1]
        frequencies = window // 2 + 1
        real, imag = parts[..., :frequencies], parts[..., frequencies : 2 * frequencies]
        magnitude = (self._logs(parts).exp() @ self.spread + LEAST_ENERGY).sqrt()
        frames = torch.fft.irfft(torch.complex(real * magnitude, imag * magnitude), window) * self.hann
        length = (count - 1) * hop + window
        made = functional.fold(frames.transpose(1, 2), (1, length), (1, window), stride=(1, hop))[:, 0, 0]
        lead = (window - hop) // 2
        return made[:, lead : lead + count * hop]

    def envelope_loss(self, parts: Tensor, samples: Tensor) -> Tensor:
        """Mean absolute difference of the logarithms of the bands' energies, from those of the sound itself.

        Args:
            parts: What the decoder made.
            samples: [B, N], N whole hops.

        Returns:
            A scalar.
        """
        hop, window = self.config.synthesis_hop_length, self.config.window_length
        lead = (window - hop) // 2
        framed = functional.pad(samples, (lead, lead)).unfold(1, window, hop) * torch.hann_window(
            window, device=samples.device
        )
        spectrum = torch.fft.rfft(framed)
        wanted = (spectrum.real.square() + spectrum.imag.square()) @ self.bands
        made = self._logs(parts).exp()
        error: Tensor = (made + QUIETEST_BAND).log() - (wanted + QUIETEST_BAND).log()
        return error.abs().mean()

    def _logs(self, parts: Tensor) -> Tensor:
        logs = parts[..., -self.config.num_bands :] * BAND_SPAN + BAND_SHIFT
        return logs.clamp(*BAND_LIMITS)

    def start_codebooks(self, latents: Tensor) -> None:
        """Start each codebook in turn by k-means on what those before it leave.

        Args:
            latents: [..., D].
        """
        self.quantizer.start_from(latents)

    @property
    def is_started(self) -> bool:
        """Whether the codebooks have been started."""
        return all(bool(level.started) for level in self.levels)


class CodecModule(nn.Module):
    """A tokenizer's codec inside a training loop: its own codes and sound, and a forward pass with gradients.

    `encode` and `decode` are exact, on the CPU. `forward` computes in floats what they do, to within the rounding of
    activations to 8 bits, so that single codes may differ. Weights get no gradients. It saves nothing of itself.

    Args:
        exact: What the tokenizer runs.
        num_codebooks: How many codebooks to use, the first ones.
    """

    def __init__(self, exact: ExactCodec, num_codebooks: int) -> None:
        super().__init__()
        self.config, self.num_codebooks = exact.config, num_codebooks
        self._analysis, self._synthesis = exact.analysis(num_codebooks), exact.synthesis()
        self._codec = [thaw_codec(exact).eval().requires_grad_(False)]  # in a list, so that it is no submodule

    def encode(self, samples: Tensor) -> Tensor:
        """The tokenizer's codes of clips.

        Args:
            samples: [B, N], one channel at the tokenizer's rate.

        Returns:
            [B, K, F] int64, on the samples' device.

        Raises:
            ShapeError: Not [B, N].
        """
        if samples.ndim != 2 or not samples.is_floating_point():
            raise ShapeError(f"samples are {samples.dtype} {list(samples.shape)}: give floats [B, N]")
        found = []
        for clip in samples.detach().float().cpu().numpy():
            state, codes = self._analysis.step(self._analysis.initial_state(), clip)
            found.append(np.concatenate([codes, self._analysis.finish(state)], axis=1))
        length = -(-samples.shape[1] // self.config.hop_length)
        values = np.stack(found) if found else np.zeros((0, self.num_codebooks, length))
        return torch.from_numpy(values.astype(np.int64)).to(samples.device)

    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        """The tokenizer's sound of codes.

        Args:
            codes: [B, k, F] integers, of the first k codebooks.
            num_samples: N, to crop to; None keeps whole hops.

        Returns:
            [B, N] float32, on the codes' device.

        Raises:
            ShapeError: Another rank, or more codebooks than there are.
            CodeRangeError: A code lies outside its codebook.
        """
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= self.num_codebooks:
            raise ShapeError(f"codes of shape {list(codes.shape)}: give [B, k, F], k from 1 to {self.num_codebooks}")
        found = []
        for values in codes.detach().cpu().numpy():
            state, samples = self._synthesis.step(self._synthesis.initial_state(), values)
            found.append(np.concatenate([samples, self._synthesis.finish(state)])[:num_samples])
        length = codes.shape[2] * self.config.hop_length
        made = np.stack(found) if found else np.zeros((0, length), np.float32)[:, :num_samples]
        return torch.from_numpy(made).to(codes.device)

    def forward(self, samples: Tensor, num_codebooks: int | None = None) -> Tensor:
        """What decoding the codes of `samples` gives, with gradients that pass straight through the codes.

        Args:
            samples: [B, N] floats.
            num_codebooks: How many of the first codebooks; None for all of the tokenizer's.

        Returns:
            [B, N] float32.
        """
        codec = self._codec[0].to(samples.device)
        made: Tensor = codec(samples, num_codebooks or self.num_codebooks)
        return made


def freeze_codec(codec: Codec, clips: Iterable[NDArray[np.float32]]) -> ExactCodec:
    """The exact form of a trained codec.

    Args:
        codec: In floats, started; moved to the CPU and into evaluation mode.
        clips: [N] samples each, such as those it was trained on: they show how far the nets' inputs reach.

    Returns:
        A codec whose latents and sound differ from the float one's by rounding only.

    Raises:
        SpecError: A value is not finite or leaves the range of float16: its training failed.
    """
    codec = codec.cpu().eval()
    tensors: dict[str, NDArray[Any]] = {}
    for k, level in enumerate(codec.levels):
        if not bool(level.codebook.abs().max() <= LARGEST_FLOAT16):
            raise SpecError(f"codebook {k} holds values that are not finite, or too large: its training failed")
        tensors[f"codebook_{k}"] = level.codebook.numpy().astype(np.float16)
    with torch.no_grad():
        batches = [torch.from_numpy(np.asarray(clip, np.float32))[None] for clip in clips]
        seen = [codec.features(batch) for batch in batches]
        quantized = [codec.quantizer.decode(codec.quantizer.encode(codec.latents(batch))) for batch in batches]
    for name, net, inputs in (("encoder", codec.encoder, seen), ("decoder", codec.decoder, quantized)):
        tensors |= {f"{name}.{key}": value for key, value in freeze(net, inputs).tensors().items()}
    return ExactCodec(codec.config, tensors)


def thaw_codec(exact: ExactCodec) -> Codec:
    """A trainable codec that starts where an exact one is: the inverse of `freeze_codec` up to rounding.

    Args:
        exact: From a checkpoint.

    Returns:
        A new codec.
    """
    codec = Codec(exact.config)
    codec.encoder, codec.decoder = thaw(exact.encoder), thaw(exact.decoder)
    for level, codebook in zip(codec.levels, exact.codebooks, strict=True):
        level.set_codebook(torch.from_numpy(codebook.copy()))
    return codec
