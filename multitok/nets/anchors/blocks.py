"""Blocks of the published image tokenizers; B images, C channels, H x W positions.

Attributes are named as in taming-transformers, whose names most checkpoints use.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

NORM_GROUPS = 32
NORM_EPSILON = 1e-6


class GroupNorm(nn.GroupNorm):
    """GroupNorm as all of them have it: over the whole picture, which is why codes depend on the picture's size.

    Args:
        channels: C.
        affine: Whether there are weights and biases.
    """

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__(NORM_GROUPS, channels, eps=NORM_EPSILON, affine=affine)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same."""
        # Not `functional.group_norm`: that refuses a single value in a group, which narrow nets have at 1 x 1.
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class ResBlock(nn.Module):
    """Norm, SiLU and convolution twice, added to the input.

    Args:
        channels_in: C of the input.
        channels_out: C of the output; where it differs, the input goes through a 1 x 1 convolution.
        bias: Whether the convolutions have one.
    """

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = GroupNorm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)
        self.norm2 = GroupNorm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=bias)
        self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=bias) if channels_in != channels_out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same with `channels_out`."""
        change = self.conv1(F.silu(self.norm1(x)))
        change = self.conv2(F.silu(self.norm2(change)))
        kept: torch.Tensor = x if self.nin_shortcut is None else self.nin_shortcut(x)
        added: torch.Tensor = kept + change
        return added


class Attention(nn.Module):
    """Every position attends to every other, one head; added to the input.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same."""
        normed = self.norm(x)
        # [B, 1 head, H W, C]; torch's kernel keeps no table [H W, H W].
        q, k, v = (part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        added: torch.Tensor = self.proj_out(mixed[:, 0].transpose(1, 2).reshape(x.shape))
        return x + added


class Downsample(nn.Module):
    """Half of each side: a 3 x 3 convolution with stride 2, padded on the right and at the bottom alone.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C, H / 2, W / 2]."""
        halved: torch.Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Twice each side: every value four times, then a 3 x 3 convolution.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [B, C, 2 H, 2 W]."""
        doubled: torch.Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled
