"""NVIDIA Cosmos' discrete tokenizers, for images (DI) and for video (DV), under NVIDIA's names.

    pixels -> Haar wavelets, 2 or 4 x down -> encoder -> quant_conv -> 6 numbers -> FSQ -> one code in [0, 64000)
    code -> 6 numbers -> post_quant_conv -> decoder -> inverse wavelets -> pixels

Video of T = 1 + (t - 1) k frames has t steps of codes, k the temporal compression: the first frame is alone in its
step, so a single frame is a video too. Codes start at 0; the first FSQ number varies fastest.

Norms and attention look at a whole picture or frame, so codes depend on its size.

B items, C channels.

Source:
    NVIDIA 2025, "Cosmos World Foundation Model Platform for Physical AI", section 4; Mentzer et al. 2023, "Finite
    Scalar Quantization: VQ-VAE Made Simple".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from multitok.nets.anchors import blocks
from multitok.nets.anchors.cosmos_parts import (
    FrameNorm,
    VideoBlock,
    VideoDown,
    VideoUp,
    factorized,
    haar,
    pointwise,
    unhaar,
    video_attention,
)
from multitok.nets.anchors.shapes import count
from multitok.quantize import FSQ

LEVELS = (8, 8, 8, 5, 5, 5)
# The channels count the pairs' sums and differences of these axes of [B, C, H, W] or [B, C, T, H, W], slowest first.
IMAGE_AXES, VIDEO_AXES = (3, 2), (2, 3, 4)


@dataclass(frozen=True)
class CosmosConfig:
    """The sizes of one checkpoint.

    Args:
        video: Whether it is for video.
        patch: Size of the wavelets' patch, 1, 2 or 4.
        channels: Of the first convolution.
        multipliers: Channels of each resolution, in units of `channels`.
        blocks: Residual blocks a resolution, one more on the way up.
        latent: Channels that the encoder makes.
        space: Pixels per code along height and width.
        time: Frames per code; 1 for images.
    """

    video: bool
    patch: int
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    latent: int
    space: int
    time: int = 1

    @classmethod
    def of_image(cls, shapes: Mapping[str, tuple[int, ...]]) -> CosmosConfig:
        """The sizes that an image checkpoint's shapes tell.

        Args:
            shapes: Of every tensor, by its name.

        Raises:
            KeyError: A tensor that tells a size is missing.
        """
        patch = math.isqrt(shapes["encoder.conv_in.weight"][1] // 3)
        downs = sum(re.fullmatch(r"encoder\.down\.\d+\.downsample\.conv\.weight", key) is not None for key in shapes)
        return cls(
            video=False,
            patch=patch,
            latent=shapes["encoder.conv_out.weight"][0],
            space=patch * 2**downs,
            **_widths(shapes, "conv_in.weight", "conv1.weight"),
        )

    @classmethod
    def of_video(cls, shapes: Mapping[str, tuple[int, ...]], *, time: int, space: int) -> CosmosConfig:
        """The sizes that a video checkpoint's shapes tell.

        Args:
            shapes: Of every tensor, by its name.
            time: Frames per code, which they do not tell: the tensors of DV4x8x8 and DV8x16x16 have the same shapes.
            space: Pixels per code along height and width, likewise.

        Raises:
            KeyError: A tensor that tells a size is missing.
        """
        return cls(
            video=True,
            patch=round((shapes["encoder.conv_in.0.conv3d.weight"][1] // 3) ** (1 / 3)),
            latent=shapes["encoder.conv_out.0.conv3d.weight"][0],
            time=time,
            space=space,
            **_widths(shapes, "conv_in.0.conv3d.weight", "conv1.0.conv3d.weight"),
        )

    @property
    def space_steps(self) -> int:
        """Halvings of height and width after the wavelets."""
        return int(math.log2(self.space // self.patch))

    @property
    def time_steps(self) -> int:
        """Halvings of time after the wavelets."""
        return int(math.log2(self.time // self.patch)) if self.video else 0

    def possible(self) -> bool:
        """Whether a network of these sizes can be built."""
        powers = all(n > 0 and n & (n - 1) == 0 for n in (self.patch, self.space, self.time))
        if not powers or self.space < self.patch or (self.video and self.time < self.patch):
            return False
        most = len(self.multipliers) - 1 if self.video else len(self.multipliers)
        # On the way up the first step of a video doubles space alone, so time has one step fewer at most.
        return self.space_steps <= most and self.time_steps <= min(most - 1, self.space_steps)


def _widths(shapes: Mapping[str, tuple[int, ...]], first: str, each: str) -> dict[str, Any]:
    channels = shapes[f"encoder.{first}"][0]
    levels = count(shapes, r"encoder\.down\.(\d+)\.")
    return {
        "channels": channels,
        "multipliers": tuple(shapes[f"encoder.down.{i}.block.0.{each}"][0] // channels for i in range(levels)),
        "blocks": count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
    }


def _block(config: CosmosConfig, before: int, after: int) -> nn.Module:
    return VideoBlock(before, after) if config.video else blocks.ResBlock(before, after)


def _norm(config: CosmosConfig, channels: int) -> nn.Module:
    return FrameNorm(channels) if config.video else blocks.GroupNorm(channels)


def _conv(config: CosmosConfig, before: int, after: int) -> nn.Module:
    return factorized(before, after) if config.video else nn.Conv2d(before, after, 3, padding=1)


class Level(nn.Module):
    """The blocks of one resolution, and the step to the next, None where there is none."""

    def __init__(
        self, config: CosmosConfig, widths: list[int], *, down: nn.Module | None = None, up: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(_block(config, *pair) for pair in pairwise(widths))
        self.downsample = down
        self.upsample = up

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the input of the next resolution."""
        for step in (*self.block, self.downsample, self.upsample):
            x = x if step is None else step(x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the coarsest resolution."""

    def __init__(self, config: CosmosConfig, channels: int) -> None:
        super().__init__()
        self.block_1 = _block(config, channels, channels)
        self.attn_1 = video_attention(channels) if config.video else blocks.Attention(channels)
        self.block_2 = _block(config, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> the same."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Pixels [B, 3, ...] to [B, latent, ...]."""

    def __init__(self, config: CosmosConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * m for m in (1, *config.multipliers)]
        axes = VIDEO_AXES if config.video else IMAGE_AXES
        self.conv_in = _conv(config, 3 * config.patch ** len(axes), config.channels)
        self.down = nn.ModuleList(
            Level(config, [widths[i]] + [widths[i + 1]] * config.blocks, down=_down(config, i, widths[i + 1]))
            for i in range(len(config.multipliers))
        )
        self.mid = Middle(config, widths[-1])
        self.norm_out = _norm(config, widths[-1])
        self.conv_out = _conv(config, widths[-1], config.latent)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels to latents."""
        x = pixels
        if self.config.video:
            # The first frame fills a patch of its own.
            x = torch.cat((x[:, :, :1].expand(-1, -1, self.config.patch - 1, -1, -1), x), 2)
        for _ in range(int(math.log2(self.config.patch))):
            x = haar(x, VIDEO_AXES if self.config.video else IMAGE_AXES)
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(x))))
        return out


def _down(config: CosmosConfig, i: int, channels: int) -> nn.Module | None:
    if not config.video:
        return blocks.Downsample(channels) if i < config.space_steps else None
    if i == len(config.multipliers) - 1:
        return None
    return VideoDown(channels, space=i < config.space_steps, time=i < config.time_steps)


class Decoder(nn.Module):
    """Latents [B, latent, ...] to pixels [B, 3, ...], about [-1, 1]."""

    def __init__(self, config: CosmosConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * m for m in config.multipliers]
        widths.append(widths[-1])
        axes = VIDEO_AXES if config.video else IMAGE_AXES
        self.conv_in = _conv(config, config.latent, widths[-1])
        self.mid = Middle(config, widths[-1])
        self.up = nn.ModuleList(
            Level(config, [widths[i + 1]] + [widths[i]] * (config.blocks + 1), up=_up(config, i, widths[i]))
            for i in range(len(config.multipliers))
        )
        self.norm_out = _norm(config, widths[0])
        self.conv_out = _conv(config, widths[0], 3 * config.patch ** len(axes))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents to pixels."""
        x: Tensor = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        x = self.conv_out(functional.silu(self.norm_out(x)))
        for _ in range(int(math.log2(self.config.patch))):
            x = unhaar(x, VIDEO_AXES if self.config.video else IMAGE_AXES)
        return x[:, :, self.config.patch - 1 :] if self.config.video else x


def _up(config: CosmosConfig, i: int, channels: int) -> nn.Module | None:
    last = len(config.multipliers) - 1
    if not config.video:
        return blocks.Upsample(channels) if i > last - config.space_steps else None
    if i == 0:
        return None
    # Counted from the coarsest. Time begins with the second, and where it doubles, space does too.
    step = last - i
    time = 0 < step <= config.time_steps
    return VideoUp(channels, time=time, space=time or config.time_steps < config.space_steps > step)


class Cosmos(nn.Module):
    """The whole tokenizer; sizes multiples of the compression, frames one more than a multiple.

    Args:
        config: The sizes.
    """

    def __init__(self, config: CosmosConfig) -> None:
        super().__init__()
        self.config = config
        dim = len(LEVELS)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        point = pointwise if config.video else lambda before, after: nn.Conv2d(before, after, 1)
        self.quant_conv = point(config.latent, dim)
        self.post_quant_conv = point(dim, config.latent)
        with torch.device("cpu"):
            # It is computed, so it neither waits for weights on the device "meta" nor belongs to the checkpoint.
            self.quantizer = FSQ(LEVELS)
        self.quantizer.register_buffer("thresholds", self.quantizer.thresholds, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The reconstruction of [B, 3, ...] in [-1, 1], differentiable: gradients pass straight through rounding."""
        return self._decode(self.quantizer(self.latents(pixels)).quantized)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, (T,) H, W] in [-1, 1] -> codes [B, 1, (t,) h, w]."""
        return self.quantizer.encode(self.latents(pixels)).movedim(-1, 1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, 1, (t,) h, w] -> [B, 3, (T,) H, W], about [-1, 1]."""
        return self._decode(self.quantizer.decode(codes.movedim(1, -1)))

    def latents(self, pixels: Tensor) -> Tensor:
        """What is quantised: pixels [B, 3, (T,) H, W] to [B, (t,) h, w, 6]."""
        out: Tensor = self.quant_conv(self.encoder(pixels))
        return out.movedim(1, -1)

    def _decode(self, quantized: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.post_quant_conv(quantized.movedim(-1, 1)))
        return out
