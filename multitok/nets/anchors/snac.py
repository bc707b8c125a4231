"""SNAC: convolutions between sound and latents, and residual codebooks that run at different rates.

    samples [B, 1, N] -> encoder -> latents [B, D, T]
    level i: mean over s_i steps -> 8 numbers -> nearest row by angle -> back to D, each s_i times; the rest goes on
    sum of the levels -> decoder -> samples [B, 1, N]

Names are those of the published checkpoints. B clips, N samples, T steps, D latent dimensions, s_i strides of levels.

Source:
    Siuzdak et al. 2024, "SNAC: Multi-Scale Neural Audio Codec".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from multitok.codebook import nearest_code

HEAD_WIDTH = 64
DILATIONS = (1, 3, 9)


@dataclass(frozen=True)
class SnacConfig:
    """What a published config.json says, by its names.

    Args:
        sampling_rate: Samples per second.
        encoder_dim: Channels of the first convolution; doubled by each step.
        encoder_rates: Steps of the encoder.
        decoder_dim: Channels after the decoder's first convolution; halved by each step.
        decoder_rates: Steps of the decoder.
        attn_window_size: Steps of T that attend to each other; None for no attention.
        codebook_size: Rows of each codebook.
        codebook_dim: Numbers in which rows are compared.
        vq_strides: Steps of T per code of each level, the coarsest first.
        latent_dim: D; None for what the encoder's steps make.
        noise: Whether the decoder adds noise.
        depthwise: Whether wide convolutions look at each channel by itself.
    """

    sampling_rate: int
    encoder_dim: int
    encoder_rates: tuple[int, ...]
    decoder_dim: int
    decoder_rates: tuple[int, ...]
    attn_window_size: int | None
    codebook_size: int
    codebook_dim: int
    vq_strides: tuple[int, ...]
    latent_dim: int | None = None
    noise: bool = True
    depthwise: bool = True

    @property
    def width(self) -> int:
        """D."""
        return self.encoder_dim * 2 ** len(self.encoder_rates) if self.latent_dim is None else self.latent_dim

    @property
    def step(self) -> int:
        """Samples per step of T."""
        return math.prod(self.encoder_rates)

    @property
    def steps(self) -> int:
        """Steps of T that a clip's length has to be a multiple of."""
        return math.lcm(self.vq_strides[0], self.attn_window_size or 1)


class Snac(nn.Module):
    """The network; its weights are made for a checkpoint to fill."""

    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Block(*_encoder(config))
        self.quantizer = _Levels(config)
        self.decoder = _Decoder(config)

    def encode(self, samples: Tensor, num_levels: int | None = None) -> list[Tensor]:
        """Codes [B, T / s_i] of each of the first levels; N a multiple of `config.step * config.steps`."""
        return self.quantizer.encode(self.encoder(samples), num_levels)

    def decode(self, levels: list[Tensor]) -> Tensor:
        """Samples [B, 1, N] of the codes of the first levels, as many as there are."""
        samples: Tensor = self.decoder(self.quantizer.decode(levels))
        return samples


class _Levels(nn.Module):
    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        self.levels = [_Level(config, stride) for stride in config.vq_strides]
        self.quantizers = nn.ModuleList(self.levels)

    def encode(self, latents: Tensor, num_levels: int | None) -> list[Tensor]:
        """Codes of each of the first levels."""
        found = []
        for level in self.levels[:num_levels]:
            codes = level.encode(latents)
            latents = latents - level.decode(codes)
            found.append(codes)
        return found

    def decode(self, levels: list[Tensor]) -> Tensor:
        """Latents [B, D, T]."""
        parts = [level.decode(codes) for level, codes in zip(self.levels, levels, strict=False)]
        return reduce(torch.add, parts)


class _Level(nn.Module):
    def __init__(self, config: SnacConfig, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.in_proj = _conv(config.width, config.codebook_dim, 1)
        self.out_proj = _conv(config.codebook_dim, config.width, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)

    def encode(self, latents: Tensor) -> Tensor:
        """[B, D, T] to codes [B, T / stride]; search in float64, the lowest code on ties."""
        means = F.avg_pool1d(latents, self.stride, self.stride) if self.stride > 1 else latents
        vectors = self.in_proj(means).transpose(1, 2)
        table = self.codebook.weight.detach().float()
        codes: Tensor = nearest_code(vectors.detach().float(), table, metric="cosine")
        return codes.long()

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, T / stride] to [B, D, T]."""
        vectors: Tensor = self.out_proj(self.codebook(codes).transpose(1, 2))
        return vectors.repeat_interleave(self.stride, 2)


class _Snake(nn.Module):
    """x + sin(a x)^2 / a, with an `a` for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)


class _Residual(nn.Module):
    def __init__(self, channels: int, dilation: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            _Snake(channels),
            _conv(channels, channels, 7, dilation=dilation, groups=groups),
            _Snake(channels),
            _conv(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y: Tensor = x + self.block(x)
        return y


class _Block(nn.Module):
    """Layers under the name `block`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """One after the other."""
        y: Tensor = self.block(x)
        return y


class _Noise(nn.Module):
    """Normal noise, one number a step, times a linear map of x.

    The published network draws other noise at every call. Here it is the same at every call, by a seed for each place,
    so that a clip's codes always decode to the same sound.
    """

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.linear = weight_norm(nn.Conv1d(channels, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        drawn = torch.randn(x.shape[2], generator=torch.Generator().manual_seed(self.seed))
        y: Tensor = x + drawn.to(x) * self.linear(x)
        return y


class _Attention(nn.Module):
    """Attention inside windows of `window` steps, with rotary positions."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = width // HEAD_WIDTH, window
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.rel_pos = _Positions()
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, T], T a multiple of the window."""
        batch, width, steps = x.shape
        parts = self.to_qkv(self.norm(x.transpose(1, 2))).chunk(3, 2)
        # [B, heads, windows, window, head width]
        q, k, v = (
            part.reshape(batch, steps // self.window, self.window, self.heads, HEAD_WIDTH).movedim(3, 1)
            for part in parts
        )
        out = F.scaled_dot_product_attention(self.rel_pos(q), self.rel_pos(k), v)
        y: Tensor = self.to_out(out.movedim(1, 3).reshape(batch, steps, width)).transpose(1, 2) + x
        return y


class _Positions(nn.Module):
    """Rotary positions inside a window."""

    def __init__(self) -> None:
        super().__init__()
        self.inv_freq = nn.Buffer(1.0 / 10000 ** (torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """[..., window, head width], turned by the angles of its positions."""
        angles = torch.arange(x.shape[-2], device=x.device).to(x)[:, None] * self.inv_freq
        angles = torch.cat([angles, angles], 1)
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


class _Decoder(nn.Module):
    def __init__(self, config: SnacConfig) -> None:
        super().__init__()
        self.model = nn.Sequential(*_decoder(config))

    def forward(self, latents: Tensor) -> Tensor:
        """[B, D, T] to samples [B, 1, N]."""
        samples: Tensor = self.model(latents)
        return samples


def _encoder(config: SnacConfig) -> list[nn.Module]:
    width = config.encoder_dim
    layers: list[nn.Module] = [_conv(1, width, 7)]
    for rate in config.encoder_rates:
        groups = width if config.depthwise else 1
        units = [_Residual(width, dilation, groups) for dilation in DILATIONS]
        step = nn.Conv1d(width, 2 * width, 2 * rate, stride=rate, padding=math.ceil(rate / 2))
        layers.append(_Block(*units, _Snake(width), weight_norm(step)))
        width *= 2
    if config.attn_window_size is not None:
        layers.append(_Attention(width, config.attn_window_size))
    return [*layers, _conv(width, width, 7, groups=width if config.depthwise else 1)]


def _decoder(config: SnacConfig) -> list[nn.Module]:
    width = config.decoder_dim
    layers: list[nn.Module] = [_conv(config.width, width, 7)]
    if config.depthwise:
        layers = [_conv(config.width, config.width, 7, groups=config.width), _conv(config.width, width, 1)]
    if config.attn_window_size is not None:
        layers.append(_Attention(width, config.attn_window_size))
    for i, rate in enumerate(config.decoder_rates):
        before, width = width, width // 2
        step = nn.ConvTranspose1d(
            before, width, 2 * rate, stride=rate, padding=math.ceil(rate / 2), output_padding=rate % 2
        )
        noise = [_Noise(width, i)] if config.noise else []
        units = [_Residual(width, dilation, width if config.depthwise else 1) for dilation in DILATIONS]
        layers.append(_Block(_Snake(before), weight_norm(step), *noise, *units))
    return [*layers, _Snake(width), _conv(width, 1, 7), nn.Tanh()]


def _conv(before: int, after: int, kernel: int, *, dilation: int = 1, groups: int = 1) -> nn.Module:
    """As many steps out as in."""
    padding = (kernel - 1) * dilation // 2
    conv = nn.Conv1d(before, after, kernel, dilation=dilation, padding=padding, groups=groups)
    normed: nn.Module = weight_norm(conv)
    return normed
