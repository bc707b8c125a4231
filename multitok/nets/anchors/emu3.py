"""Emu3's vision tokenizer under the names of `transformers`: frames through a 2-D VQGAN, then convolutions in time.

    [B, 3, T, H, W] in [-1, 1] -> frame by frame, 8 x down -> in time, 4 x down -> nearest code -> [B, 1, t, h, w]

Decoding goes the way back in time first. Its normalisations are scaled and shifted by the code vectors themselves
(upsampled to where they are used), so the decoder takes the code vectors twice: through `post_quant_conv` and raw.
A still image is one picture four times over; of the four that come back, the first counts.

Group norms and attention look at a whole frame, so codes depend on its size; convolutions in time look back alone.

B items, T frames, C channels, D the length of a code vector.

Source:
    Wang et al. 2024, "Emu3: Next-Token Prediction is All You Need".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from multitok.codebook import quantize_straight_through
from multitok.nets.anchors.blocks import GroupNorm
from multitok.nets.anchors.emu3_parts import CausalConv3d, Level, Middle, SpatialNorm, Stack, TemporalBlock, TimeConv
from multitok.nets.anchors.shapes import count, table


@dataclass(frozen=True)
class Emu3Config:
    """The sizes of one checkpoint.

    Args:
        channels: Of the first convolution.
        multipliers: Channels of each resolution, in units of `channels`.
        blocks: Residual blocks a resolution, one more on the way up; also those in time.
        attention: Which resolutions have attention, 0 the finest.
        latent: Channels between the 2-D part and the code vectors.
        dim: D.
        codebook_size: Number of codes.
        temporal_downs: Halvings in time.
        heads: Of every attention; the weights do not tell.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    latent: int
    dim: int
    codebook_size: int
    temporal_downs: int
    heads: int = 1

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], *, heads: int = 1) -> Emu3Config:
        """The sizes that a checkpoint's shapes tell.

        Args:
            shapes: Of every tensor, by its name.
            heads: Of every attention.

        Raises:
            KeyError: A tensor that tells a size is missing.
        """
        channels = shapes["encoder.conv_in.weight"][0]
        level = r"encoder\.down_block\.down\.(\d+)\."
        levels = count(shapes, level)
        return cls(
            channels=channels,
            multipliers=tuple(
                shapes[f"encoder.down_block.down.{i}.block.0.conv1.weight"][0] // channels for i in range(levels)
            ),
            blocks=count(shapes, r"encoder\.down_block\.down\.0\.block\.(\d+)\."),
            attention=tuple(i for i in range(levels) if f"encoder.down_block.down.{i}.attn.0.q_proj.weight" in shapes),
            latent=shapes["encoder.conv_out.weight"][0],
            dim=shapes["quantize.embedding.weight"][1],
            codebook_size=shapes["quantize.embedding.weight"][0],
            temporal_downs=count(shapes, r"encoder\.time_conv\.(\d+)\."),
            heads=heads,
        )

    @property
    def stride(self) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels per code."""
        space: int = 2 ** (len(self.multipliers) - 1)
        return int(2**self.temporal_downs), space, space


class Encoder(nn.Module):
    """[B, 3, T, H, W] -> [B, latent, t, h, w]."""

    def __init__(self, config: Emu3Config) -> None:
        super().__init__()
        widths = [config.channels * m for m in (1, *config.multipliers)]
        last = len(config.multipliers) - 1
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.levels = [
            Level(
                [widths[i]] + [widths[i + 1]] * config.blocks,
                attention=i in config.attention,
                heads=config.heads,
                dim=None,
                down=i != last,
            )
            for i in range(last + 1)
        ]
        self.down_block = Stack("down", self.levels)
        self.middle_block = Middle(widths[-1], config.heads)
        self.norm_out = GroupNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent, 3, padding=1)
        self.time_conv = nn.ModuleList(TimeConv(config.latent, up=False) for _ in range(config.temporal_downs))
        self.time_res_stack = nn.ModuleList(TemporalBlock(config.latent) for _ in range(config.blocks))

    def forward(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> [B, latent, t, h, w]."""
        frames = video.transpose(1, 2).flatten(0, 1)
        x = torch.cat([self._space(part) for part in _parts(frames)])
        x = x.reshape(len(video), -1, *x.shape[1:]).transpose(1, 2)
        for layer in (*self.time_conv, *self.time_res_stack):
            x = layer(x)
        return x

    def _space(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.middle_block(x))))
        return out


class Decoder(nn.Module):
    """Latents [B, latent, t, h, w] and code vectors [B, D, t, h, w] -> [B, 3, T, H, W]; latent equals D."""

    def __init__(self, config: Emu3Config) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        last = len(widths) - 1
        self.time_res_stack = nn.ModuleList(TemporalBlock(config.latent) for _ in range(config.blocks))
        self.time_conv = nn.ModuleList(TimeConv(config.latent, up=True) for _ in range(config.temporal_downs))
        self.conv_in = nn.Conv2d(config.latent, widths[-1], 3, padding=1)
        self.middle_block = Middle(widths[-1], config.heads, config.dim)
        self.levels = [
            Level(
                [widths[min(i + 1, last)]] + [widths[i]] * (config.blocks + 1),
                attention=i in config.attention,
                heads=config.heads,
                dim=config.dim,
                up=i != 0,
            )
            for i in range(last + 1)
        ]
        self.up_block = Stack("up", self.levels)
        self.norm_out = SpatialNorm(widths[0], config.dim)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor, quantized: Tensor) -> Tensor:
        """[B, latent, t, h, w] and [B, D, t, h, w] -> [B, 3, T, H, W]."""
        # The code vectors take the same way through time as the latents, so one batch holds both.
        both = torch.cat((latents, quantized))
        for layer in (*self.time_res_stack, *self.time_conv):
            both = layer(both)
        frames, quantized = (half.transpose(1, 2).flatten(0, 1) for half in both.chunk(2))
        x = torch.cat([self._space(*parts) for parts in zip(_parts(frames), _parts(quantized), strict=True)])
        return x.reshape(len(latents), -1, *x.shape[1:]).transpose(1, 2)

    def _space(self, x: Tensor, quantized: Tensor) -> Tensor:
        x = self.middle_block(self.conv_in(x), quantized)
        for level in reversed(self.levels):
            x = level(x, quantized)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x, quantized)))
        return out


def _parts(frames: Tensor) -> list[Tensor]:
    """Frames to run at once: all where gradients are wanted, else one, since no frame depends on another in space."""
    return [frames] if torch.is_grad_enabled() else [frames[i : i + 1] for i in range(len(frames))]


class Codes(nn.Module):
    """The codebook, under the name that the checkpoint gives it."""

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.embedding = table(codebook_size, dim)


class Emu3(nn.Module):
    """The whole tokenizer; T a multiple of the temporal stride, H and W of the spatial one.

    Args:
        config: The sizes.
    """

    def __init__(self, config: Emu3Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codes(config.codebook_size, config.dim)
        self.quant_conv = CausalConv3d(config.latent, config.dim, (3, 1, 1))
        self.post_quant_conv = CausalConv3d(config.dim, config.latent, (3, 1, 1))

    def forward(self, video: Tensor) -> Tensor:
        """The reconstruction of [B, 3, T, H, W] in [-1, 1], differentiable: gradients pass straight through codes."""
        return self._decode(self._quantized(video)[0])

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] in [-1, 1] -> codes [B, 1, t, h, w]."""
        return self._quantized(video)[1][:, None]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, 1, t, h, w] -> [B, 3, T, H, W], about [-1, 1]."""
        return self._decode(self.quantize.embedding(codes[:, 0]).movedim(-1, 1))

    def _quantized(self, video: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.quant_conv(self.encoder(video)).movedim(1, -1).float()
        # What the decoder's loss says shall move the encoder, not the codebook.
        quantized, codes = quantize_straight_through(latents, self.quantize.embedding.weight.detach())
        return quantized.movedim(-1, 1), codes

    def _decode(self, quantized: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.post_quant_conv(quantized), quantized)
        return out


# The names of the first release, BAAI/Emu3-VisionTokenizer, as `transformers` renamed them.
_RENAMES = (
    (r"^encoder\.down\.", "encoder.down_block.down."),
    (r"^decoder\.up\.", "decoder.up_block.up."),
    (r"^(encoder|decoder)\.mid\.attn_1\.norm\.", r"\1.middle_block.attn_norm."),
    (r"^(encoder|decoder)\.mid\.", r"\1.middle_block."),
    (r"\.attn\.(\d+)\.norm\.", r".attn_norms.\1."),
    (r"\.(attn\.\d+|attn_1)\.([qkv])\.", r".\1.\2_proj."),
    (r"\.(attn\.\d+|attn_1)\.proj_out\.", r".\1.out_proj."),
)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of the first release under the names used here; any other comes back as it is."""
    if "encoder.mid.attn_1.q.weight" not in state:
        return dict(state)
    out = {}
    for key, value in state.items():
        for pattern, replacement in _RENAMES:
            key = re.sub(pattern, replacement, key)
        # Its projections were convolutions of one pixel.
        out[key] = value[:, :, 0, 0] if "_proj.weight" in key and value.ndim == 4 else value
    return out
