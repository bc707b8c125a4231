"""Parts of Emu3's vision tokenizer, as `transformers` names its tensors.

Norms of the decoder are scaled and shifted by the code vectors; `dim` says how long those are, None for the encoder,
which has plain norms.

B items or frames, T frames, C channels, D the length of a code vector.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from multitok.nets.anchors.blocks import Downsample, GroupNorm, Upsample


class CausalConv3d(nn.Module):
    """A convolution over [B, C, T, H, W] that looks two frames back, past the start into zeros."""

    def __init__(self, before: int, after: int, kernel: tuple[int, int, int], *, time_stride: int = 1) -> None:
        super().__init__()
        self.padding = (kernel[2] // 2,) * 2 + (kernel[1] // 2,) * 2 + (2, 0)
        self.conv = nn.Conv3d(before, after, kernel, stride=(time_stride, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same, T over `time_stride`."""
        out: Tensor = self.conv(functional.pad(x, self.padding))
        return out


class TemporalBlock(nn.Module):
    """A residual block in space and time, normalised by the running statistics that were saved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = CausalConv3d(channels, channels, (3, 3, 3))
        self.norm2 = nn.BatchNorm3d(channels)
        self.conv2 = CausalConv3d(channels, channels, (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same."""
        inner = self.conv1(functional.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(functional.silu(self.norm2(inner)))
        return out


class TimeConv(nn.Module):
    """Halves or doubles the number of frames."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = CausalConv3d(channels, channels, (3 if up else 4, 3, 3), time_stride=1 if up else 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same, T halved or doubled."""
        out: Tensor = self.conv(x.repeat_interleave(2, dim=2) if self.up else x)
        return functional.silu(out)


class SpatialNorm(nn.Module):
    """A group norm whose scale and shift are read off the code vectors, upsampled to its input."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.norm_layer = GroupNorm(channels)
        self.conv_y = nn.Conv2d(dim, channels, 1)
        self.conv_b = nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor, quantized: Tensor | None) -> Tensor:
        """[B, C, H, W] and code vectors [B, D, h, w] -> [B, C, H, W]."""
        assert quantized is not None
        quantized = functional.interpolate(quantized, size=x.shape[-2:], mode="nearest")
        out: Tensor = self.norm_layer(x) * self.conv_y(quantized) + self.conv_b(quantized)
        return out


class PlainNorm(GroupNorm):
    """A group norm that ignores the code vectors: the encoder has none."""

    def forward(self, x: Tensor, quantized: Tensor | None = None) -> Tensor:
        """[B, C, H, W] -> the same."""
        return super().forward(x)


def _norm(channels: int, dim: int | None) -> PlainNorm | SpatialNorm:
    return PlainNorm(channels) if dim is None else SpatialNorm(channels, dim)


class ResidualBlock(nn.Module):
    """Two convolutions around a skip; `dim` makes its norms follow the code vectors."""

    def __init__(self, before: int, after: int, dim: int | None = None) -> None:
        super().__init__()
        self.norm1 = _norm(before, dim)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = _norm(after, dim)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.nin_shortcut = None if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, quantized: Tensor | None = None) -> Tensor:
        """[B, C, H, W] -> [B, C', H, W]."""
        inner = self.conv1(functional.silu(self.norm1(x, quantized)))
        inner = self.conv2(functional.silu(self.norm2(inner, quantized)))
        out: Tensor = inner + (x if self.nin_shortcut is None else self.nin_shortcut(x))
        return out


class Attention(nn.Module):
    """Every position of a frame looks at every other; adds to its input."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        """[B, C, H, W] and the same after its norm -> [B, C, H, W]."""
        flat = normed.flatten(2).transpose(1, 2)
        parts = (project(flat) for project in (self.q_proj, self.k_proj, self.v_proj))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        out: Tensor = x + self.out_proj(seen).transpose(1, 2).reshape(x.shape)
        return out


class Middle(nn.Module):
    """Block, attention, block at the coarsest resolution."""

    def __init__(self, channels: int, heads: int, dim: int | None = None) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, dim)
        self.attn_1 = Attention(channels, heads)
        self.attn_norm = _norm(channels, dim)
        self.block_2 = ResidualBlock(channels, channels, dim)

    def forward(self, x: Tensor, quantized: Tensor | None = None) -> Tensor:
        """[B, C, H, W] -> the same."""
        x = self.block_1(x, quantized)
        x = self.attn_1(x, self.attn_norm(x, quantized))
        out: Tensor = self.block_2(x, quantized)
        return out


class Level(nn.Module):
    """The blocks of one resolution, and the step to the next; None where there is none."""

    def __init__(
        self, widths: list[int], *, attention: bool, heads: int, dim: int | None, down: bool = False, up: bool = False
    ) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.block = nn.ModuleList(ResidualBlock(before, after, dim) for before, after in steps)
        self.attn = nn.ModuleList(Attention(after, heads) for _, after in steps if attention)
        self.attn_norms = nn.ModuleList(_norm(after, dim) for _, after in steps if attention)
        self.downsample = Downsample(widths[-1]) if down else None
        self.upsample = Upsample(widths[-1]) if up else None

    def forward(self, x: Tensor, quantized: Tensor | None = None) -> Tensor:
        """[B, C, H, W] -> the input of the next resolution."""
        for i, block in enumerate(self.block):
            x = block(x, quantized)
            if len(self.attn):
                x = self.attn[i](x, self.attn_norms[i](x, quantized))
        for step in (self.downsample, self.upsample):
            x = x if step is None else step(x)
        return x


class Stack(nn.Module):
    """A list of levels under the name that the checkpoint gives it: `down` or `up`."""

    def __init__(self, name: str, levels: list[Level]) -> None:
        super().__init__()
        self.add_module(name, nn.ModuleList(levels))
