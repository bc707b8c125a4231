"""The autoencoder of Open-MAGVIT2: convolutions and GroupNorm, signs as codes, a decoder that sees them at each level.

    pixels [B, 3, H, W] -> encoder -> signs -> codes [B, 1, h, w],  h = H / 2^(levels - 1)
    codes -> decoder -> pixels

No attention, but GroupNorm and the decoder's statistics of the code vectors reach over the whole picture.

Source:
    Luo et al. 2024, "Open-MAGVIT2: An Open-Source Project Toward Democratizing Auto-Regressive Visual Generation".
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from multitok.nets.anchors.blocks import NORM_EPSILON, GroupNorm, ResBlock
from multitok.nets.anchors.lookup import SignLookup
from multitok.nets.anchors.vqgan import ConvShape


class SpaceUpsample(nn.Module):
    """Twice each side: a convolution to 4 C channels, of which each quarter becomes one pixel of every 2 x 2.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C, 2 H, 2 W]."""
        # Channel (2 row + column) C + c, other than in pixel_shuffle, which counts 4 c + 2 row + column.
        quarters = self.conv1(x).unflatten(1, (2, 2, -1))
        b, rows, columns, c, h, w = quarters.shape
        return quarters.permute(0, 3, 4, 1, 5, 2).reshape(b, c, h * rows, w * columns)  # type: ignore[no-any-return]


class AdaptiveNorm(nn.Module):
    """GroupNorm whose scale and shift are made of the deviation and mean of the code vectors over the picture.

    Args:
        latent_channels: D of the code vectors.
        channels: C of the input.
    """

    def __init__(self, latent_channels: int, channels: int) -> None:
        super().__init__()
        self.gn = GroupNorm(channels, affine=False)
        self.gamma = nn.Linear(latent_channels, channels)
        self.beta = nn.Linear(latent_channels, channels)

    def forward(self, x: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same."""
        values = quantized.flatten(2)
        # The variance of a single position is not defined; the published code makes NaN of it, this takes 0.
        variance = values.var(-1) if values.shape[-1] > 1 else torch.zeros_like(values[..., 0])
        scale = self.gamma((variance + NORM_EPSILON).sqrt())
        shift = self.beta(values.mean(-1))
        scaled: torch.Tensor = scale[..., None, None] * self.gn(x) + shift[..., None, None]
        return scaled


class Level(nn.Module):
    """Blocks of one resolution, without biases.

    Args:
        channels_in: C of the input.
        channels_out: C of the output.
        num_blocks: How many blocks.
    """

    def __init__(self, channels_in: int, channels_out: int, num_blocks: int) -> None:
        super().__init__()
        widths = [channels_in, *[channels_out] * num_blocks]
        self.block = nn.ModuleList(ResBlock(*pair, bias=False) for pair in pairwise(widths))
        self.downsample: nn.Conv2d | None = None
        self.upsample: SpaceUpsample | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the next level's input."""
        for block in self.block:
            x = block(x)
        for resample in (self.downsample, self.upsample):
            x = x if resample is None else resample(x)
        return x


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] in [-1, 1] to latents [B, latent_channels, h, w].

    Args:
        shape: Sizes; no level has attention.
    """

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        widths = [shape.channels, *shape.level_channels]
        self.conv_in = nn.Conv2d(3, shape.channels, 3, padding=1, bias=False)
        levels = [Level(*pair, shape.num_res_blocks) for pair in pairwise(widths)]
        for level, channels in zip(levels[:-1], shape.level_channels, strict=False):
            level.downsample = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.down = nn.ModuleList(levels)
        self.mid_block = _middle(widths[-1], shape.num_res_blocks)
        self.norm_out = GroupNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], shape.latent_channels, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents of pixels."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        latents: torch.Tensor = self.conv_out(F.silu(self.norm_out(self.mid_block(x))))
        return latents


class Decoder(nn.Module):
    """Code vectors [B, latent_channels, h, w] to pixels [B, 3, H, W], about [-1, 1].

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        widths = [*shape.level_channels, shape.level_channels[-1]]
        self.conv_in = nn.Conv2d(shape.latent_channels, widths[-1], 3, padding=1)
        self.mid_block = _middle(widths[-1], shape.num_res_blocks)
        # up.0 and adaptive.0 are the highest resolution, though they run last.
        levels = [Level(below, own, shape.num_res_blocks) for own, below in pairwise(widths)]
        for level, channels in zip(levels[1:], shape.level_channels[1:], strict=True):
            level.upsample = SpaceUpsample(channels)
        self.up = nn.ModuleList(levels)
        self.adaptive = nn.ModuleList(AdaptiveNorm(shape.latent_channels, below) for below in widths[1:])
        self.norm_out = GroupNorm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        """Pixels of code vectors."""
        x = self.mid_block(self.conv_in(quantized))
        for adaptive, level in zip(reversed(self.adaptive), reversed(self.up), strict=True):
            x = level(adaptive(x, quantized))
        pixels: torch.Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return pixels


class OpenMagvit2Module(nn.Module):
    """The whole network; parameters are named as in the published checkpoints.

    Args:
        shape: Sizes of encoder and decoder; `latent_channels` is the number of bits of a code.
    """

    def __init__(self, shape: ConvShape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.quantize = SignLookup(shape.latent_channels)

    def latents(self, pixels: torch.Tensor) -> torch.Tensor:
        """What is quantised: pixels [B, 3, H, W] to [B, D, h, w]."""
        encoded: torch.Tensor = self.encoder(pixels)
        return encoded

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Codes [B, 1, h, w] of pixels [B, 3, H, W] in [-1, 1]."""
        return self.quantize.encode(self.latents(pixels))[:, None]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, H, W], not clipped, of codes [B, 1, h, w]."""
        decoded: torch.Tensor = self.decoder(self.quantize.decode(codes[:, 0]))
        return decoded

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels through the codes and back, differentiable."""
        decoded: torch.Tensor = self.decoder(self.quantize(self.latents(pixels)))
        return decoded


def _middle(channels: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(channels, channels, bias=False) for _ in range(num_blocks)))
