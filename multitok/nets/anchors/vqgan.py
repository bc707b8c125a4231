"""The autoencoder of VQGAN (taming-transformers), which LlamaGen, Chameleon and Janus share in all but names.

    pixels [B, 3, H, W] -> encoder -> quant_conv -> lookup -> codes [B, 1, h, w],  h = H / 2^(levels - 1)
    codes -> post_quant_conv -> decoder -> pixels

H and W must be multiples of the stride. GroupNorm and attention reach over the whole picture: a tile's codes are not
the whole picture's, and pictures of other sizes have other codes at the same place.

Source:
    Esser, Rombach and Ommer 2021, "Taming Transformers for High-Resolution Image Synthesis".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from multitok.nets.anchors.blocks import Attention, Downsample, GroupNorm, ResBlock, Upsample

if TYPE_CHECKING:
    from multitok.nets.anchors.lookup import Lookup


@dataclass(frozen=True)
class ConvShape:
    """Sizes of encoder and decoder.

    Args:
        channels: C after the first convolution.
        level_channels: C of each level, the highest resolution first.
        num_res_blocks: Blocks of an encoder level; a decoder level has one more.
        attention_levels: Levels with attention after every block.
        latent_channels: C between the encoder and the lookup's convolutions.
    """

    channels: int
    level_channels: tuple[int, ...]
    num_res_blocks: int
    attention_levels: tuple[int, ...]
    latent_channels: int


class Level(nn.Module):
    """Blocks of one resolution, each followed by attention where the level has it.

    Args:
        channels_in: C of the input.
        channels_out: C of the output.
        num_blocks: How many blocks.
        attention: Whether the level has attention.
    """

    def __init__(self, channels_in: int, channels_out: int, num_blocks: int, attention: bool) -> None:
        super().__init__()
        widths = [channels_in, *[channels_out] * num_blocks]
        self.block = nn.ModuleList(ResBlock(*pair) for pair in pairwise(widths))
        self.attn = nn.ModuleList(Attention(channels_out) for _ in range(num_blocks if attention else 0))
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the next level's input."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        for resample in (self.downsample, self.upsample):
            x = x if resample is None else resample(x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same."""
        mixed: torch.Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return mixed


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] in [-1, 1] to latents [B, latent_channels, h, w].

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        widths = [shape.channels, *shape.level_channels]
        self.conv_in = nn.Conv2d(3, shape.channels, 3, padding=1)
        levels = [
            Level(*pair, shape.num_res_blocks, level in shape.attention_levels)
            for level, pair in enumerate(pairwise(widths))
        ]
        for level, channels in zip(levels[:-1], shape.level_channels, strict=False):
            level.downsample = Downsample(channels)
        self.down = nn.ModuleList(levels)
        self.mid = Middle(widths[-1])
        self.norm_out = GroupNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], shape.latent_channels, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents of pixels."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        latents: torch.Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return latents


class Decoder(nn.Module):
    """Latents [B, latent_channels, h, w] to pixels [B, 3, H, W], about [-1, 1].

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        widths: Sequence[int] = [*shape.level_channels, shape.level_channels[-1]]
        self.conv_in = nn.Conv2d(shape.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        # up.0 is the highest resolution, though it runs last.
        levels = [
            Level(below, own, shape.num_res_blocks + 1, level in shape.attention_levels)
            for level, (own, below) in enumerate(pairwise(widths))
        ]
        for level, channels in zip(levels[1:], shape.level_channels[1:], strict=True):
            level.upsample = Upsample(channels)
        self.up = nn.ModuleList(levels)
        self.norm_out = GroupNorm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels of latents."""
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        pixels: torch.Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return pixels


class VqganModule(nn.Module):
    """The whole network; parameters are named as in taming-transformers.

    Args:
        shape: Sizes of encoder and decoder.
        quantize: Latents to codes and back.
        embedded_channels: C that `quant_conv` makes of the latents.
        codebook_dim: D of the code vectors.
        has_decoder: False for an encoder alone, which has `post_quant_conv` all the same.
    """

    def __init__(
        self, shape: ConvShape, quantize: Lookup, embedded_channels: int, codebook_dim: int, has_decoder: bool
    ) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape) if has_decoder else None
        self.quantize = quantize
        self.quant_conv = nn.Conv2d(shape.latent_channels, embedded_channels, 1)
        self.post_quant_conv = nn.Conv2d(codebook_dim, shape.latent_channels, 1)

    def latents(self, pixels: torch.Tensor) -> torch.Tensor:
        """What is quantised: pixels [B, 3, H, W] to [B, C, h, w]."""
        embedded: torch.Tensor = self.quant_conv(self.encoder(pixels))
        return embedded

    def pixels(self, quantized: torch.Tensor) -> torch.Tensor:
        """Code vectors [B, D, h, w] to pixels [B, 3, H, W]."""
        assert self.decoder is not None, "an encoder alone"
        decoded: torch.Tensor = self.decoder(self.post_quant_conv(quantized))
        return decoded

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Codes [B, 1, h, w] of pixels [B, 3, H, W] in [-1, 1]."""
        return self.quantize.encode(self.latents(pixels))[:, None]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, H, W], not clipped, of codes [B, 1, h, w]."""
        return self.pixels(self.quantize.decode(codes[:, 0]))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels through the codes and back, differentiable."""
        return self.pixels(self.quantize(self.latents(pixels)))
