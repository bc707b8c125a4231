"""The codec in torch: what is trained, and what a training loop can put gradients through.

    samples [B, N] -> features -> latents [B, F, D] -> residual VQ -> latents -> spectra -> samples [B, N]

F = ceil(N / hop); what lies outside of a clip is silence. `freeze_codec` makes the exact form that tokenizers run
(`multitok.nets.codec_exact`). This module imports torch.

Shape letters: B clips, N samples, F frames, D latents, K codebooks, M mel bands, S frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
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
    GRID,
    LEAST_DIVISOR,
    LEAST_POWER,
    LN_10,
    MADE_LOGS,
    SILENCE,
    ExactCodec,
    prior_filters,
    synthesis_window,
)
from multitok.nets.exact_linear import linear_tensors
from multitok.nets.vocoder import FLOOR, LOG_SHIFT, LOG_SPAN, PRIOR_GAIN
from multitok.nets.vocoder_module import Vocoder
from multitok.quantize import ResidualVQ, VectorQuantizer

LARGEST_FLOAT16 = 65504.0


class Codec(nn.Module):
    """A differentiable codec.

    Args:
        config: Its shape.
        decay: Of the codebooks' moving averages, per step.
        dead_below: As for `VectorQuantizer`.
        seed: Of the vectors that start codebooks and revive dead codes.
    """

    mel_window: Tensor
    mel_filters: Tensor
    mel_mean: Tensor
    prior: Tensor
    made_window: Tensor

    def __init__(self, config: CodecConfig, *, decay: float = 0.99, dead_below: float = 0.03, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = CausalNet(config.encoder), CausalNet(config.decoder)
        self.skip = nn.Linear(config.num_mels, config.latent_dim, bias=False)
        self.envelope = nn.Linear(config.latent_dim, config.num_mels)
        self.levels = [
            VectorQuantizer(config.latent_dim, size, decay=decay, dead_below=dead_below, seed=seed + k)
            for k, size in enumerate(config.codebook_sizes)
        ]
        self.quantizer = ResidualVQ(self.levels)
        self.register_buffer("mel_mean", torch.zeros(config.num_mels))
        for name, values in (
            ("mel_window", config.mel.window),
            ("mel_filters", mel_filters(config.sample_rate_hz, config.fft_length, config.num_mels).T),
            ("prior", prior_filters(config)),
            ("made_window", synthesis_window(config)),
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

    def latents(self, samples: Tensor, *, autocast: bool = False, cut: bool = False) -> Tensor:
        """Latents of clips.

        Args:
            samples: [B, N].
            autocast: Run the net in bfloat16.
            cut: The clips go on behind their end: leave out the last `encoder.lookahead` frames, whose latents depend
                on it. Else there is silence.

        Returns:
            [B, F, D].
        """
        config, ahead = self.config, self.config.encoder.lookahead
        if not cut:
            missing = -samples.shape[1] % config.hop_length
            samples = functional.pad(samples, (0, missing + ahead * config.hop_length))
        seen, logs = self.features(samples)
        with torch.autocast(samples.device.type, torch.bfloat16, enabled=autocast):
            found: Tensor = self.encoder(seen)
        skipped: Tensor = self.skip(logs - self.mel_mean)
        return found[:, ahead:].float() + skipped[:, : skipped.shape[1] - ahead]

    def features(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder sees of samples [B, N], [B, F, 3 S + M], and the log mel energies, [B, F, M]."""
        mel = self.config.mel
        count = -(-samples.shape[1] // mel.hop_length)
        padded = functional.pad(samples, (mel.lead, count * mel.hop_length - samples.shape[1] + mel.lead))
        framed = padded.unfold(1, mel.window_length, mel.hop_length) * self.mel_window
        power = torch.fft.rfft(framed, mel.fft_length).abs().square()
        logs = (torch.log10((power @ self.mel_filters).clamp(min=FLOOR)) + LOG_SHIFT) / LOG_SPAN
        spectrum = torch.fft.rfft(framed)
        power = spectrum.real.square() + spectrum.imag.square()
        # The root's slope is infinite at 0, where there is nothing to learn.
        root = power.clamp(min=LEAST_DIVISOR**4).sqrt().sqrt().sqrt()
        divisor = (root * root * root).clamp(min=LEAST_DIVISOR)
        return torch.cat([spectrum.real / divisor, spectrum.imag / divisor, root, logs], dim=-1), logs

    def reconstruct(self, latents: Tensor, *, autocast: bool = False, cut: bool = False) -> Tensor:
        """Sound of latents.

        Args:
            latents: [B, F, D].
            autocast: Run the net in bfloat16.
            cut: Latents go on behind their end: leave out the last `decoder.lookahead` frames. Else there is silence.

        Returns:
            [B, F * hop].
        """
        config, ahead = self.config, self.config.decoder.lookahead
        if not cut:
            silence = self.skip(torch.full_like(self.mel_mean, SILENCE) - self.mel_mean)
            latents = torch.cat([latents, silence.expand(len(latents), ahead, -1)], dim=1)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=autocast):
            factors: Tensor = self.decoder(latents)
        real, imag = factors[:, ahead:].float().chunk(2, dim=-1)
        logs = self.envelope(latents[:, : latents.shape[1] - ahead]).clamp(*MADE_LOGS)
        energies = torch.exp((logs * LOG_SPAN - LOG_SHIFT) * LN_10)
        magnitudes = (energies @ self.prior * PRIOR_GAIN + LEAST_POWER).sqrt()
        length, hop, count = config.synthesis_length, config.hop_length, real.shape[1]
        frames = torch.fft.irfft(torch.complex(real * magnitudes, imag * magnitudes), length) * self.made_window
        size = (1, (count - 1) * hop + length)
        made = functional.fold(frames.transpose(1, 2), size, (1, length), stride=(1, hop))[:, 0, 0]
        lead = (length - hop) // 2
        return made[:, lead : lead + count * hop]

    @torch.no_grad()
    def start_nets(self, samples: Tensor, vocoder: Vocoder | None = None) -> None:
        """Start from principal components: log mel energies pass through the latents, and a vocoder's net decodes them.

        The encoder's net starts silent, so what it learns is what log mel energies do not say.

        Args:
            samples: [B, N] typical clips.
            vocoder: Trained, its net of the decoder's shape but for its inputs; None leaves the decoder at random.

        Raises:
            SpecError: The vocoder is of another shape.
        """
        logs = self.features(samples)[1].reshape(-1, self.config.num_mels)
        self.mel_mean.copy_(logs.mean(0))
        count = min(self.config.num_mels, self.config.latent_dim) * 4 // 5
        axes = torch.linalg.eigh(torch.cov((logs - self.mel_mean).T))[1].flip(1)[:, :count]
        # Signs that do not depend on the library.
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        for parameter in (self.skip.weight, self.envelope.weight, self.encoder.leave.weight, self.encoder.leave.bias):
            parameter.zero_()
        self.skip.weight[:count] = axes.T
        self.envelope.weight[:, :count] = axes
        self.envelope.bias.copy_(self.mel_mean)
        if vocoder is None:
            return
        wanted, given = self.config.decoder, vocoder.config
        if replace(wanted, in_dim=given.net.in_dim) != given.net or given.net.in_dim != self.config.num_mels:
            raise SpecError(f"a vocoder with {given.net} cannot start a decoder of {wanted}: they may differ in in_dim")
        entered = vocoder.net.enter
        state = {key: value.clone() for key, value in vocoder.net.state_dict().items() if not key.startswith("enter.")}
        weight = 0.02 * torch.randn_like(self.decoder.enter.weight)
        weight[:, :count] = entered.weight @ axes
        state |= {"enter.weight": weight, "enter.bias": entered.bias + entered.weight @ self.mel_mean}
        self.decoder.load_state_dict(state)

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
        maps = {
            "skip": linear_tensors(codec.skip.weight.numpy(), GRID, centre=codec.mel_mean.numpy()),
            "envelope": linear_tensors(codec.envelope.weight.numpy(), GRID, bias=codec.envelope.bias.numpy()),
        }
        tensors |= {f"{name}.{key}": value for name, each in maps.items() for key, value in each.items()}
        batches = [torch.from_numpy(np.asarray(clip, np.float32))[None] for clip in clips]
        seen = [codec.features(batch)[0] for batch in batches]
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
    (skip, mean, _), (envelope, _, bias) = exact.skip.floats(), exact.envelope.floats()
    with torch.no_grad():
        for held, values in (
            (codec.skip.weight, skip),
            (codec.mel_mean, mean),
            (codec.envelope.weight, envelope),
            (codec.envelope.bias, bias),
        ):
            held.copy_(torch.from_numpy(values))
    for level, codebook in zip(codec.levels, exact.codebooks, strict=True):
        level.set_codebook(torch.from_numpy(codebook.copy()))
    return codec
