"""Parts of Cosmos' tokenizers, as NVIDIA names its tensors: the wavelets, and the blocks of its video networks.

The video blocks are causal: a convolution in time sees its own frame and those before, the first frame repeated past
the start; each is one convolution in space and one in time; norms look at one frame at a time, attention at one frame
or back in time at one position. So the first frame is coded by itself, and later frames change no earlier code.

B items, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6


def haar(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Halve each axis: half the sum and half the difference of each pair, as blocks of channels.

    Args:
        x: [B, C, ...], the axes' sizes even.
        axes: Of `x`; the first one's sum or difference varies slowest in the channels.

    Returns:
        [B, C * 2^len(axes), ...].
    """
    parts = [x]
    for axis in axes:
        left_half, right_half = ((*[slice(None)] * axis, slice(start, None, 2)) for start in (0, 1))
        pairs = [(part[left_half], part[right_half]) for part in parts]
        parts = [part for left, right in pairs for part in ((left + right) / 2, (left - right) / 2)]
    return torch.cat(parts, 1)


def unhaar(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Invert `haar`.

    Args:
        x: [B, C * 2^len(axes), ...].
        axes: Those given to `haar`.

    Returns:
        [B, C, ...], each axis doubled.
    """
    parts = list(x.chunk(2 ** len(axes), 1))
    for axis in reversed(axes):
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [torch.stack((low + high, low - high), axis + 1).flatten(axis, axis + 1) for low, high in pairs]
    return parts[0]


def _attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False) -> Tensor:
    """[N, C, L] each -> [N, C, L]; N sequences of L positions, one head."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2)


class CausalConv3d(nn.Module):
    """A convolution whose frames before the first are copies of it; past the edges of a frame are zeros."""

    def __init__(
        self, before: int, after: int, kernel: tuple[int, int, int], *, stride: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.copies = kernel[0] - stride[0]
        # A strided convolution gets its zeros from its caller, on the right and lower edge alone.
        self.edge = kernel[1] // 2 if stride[1] == 1 else 0
        self.conv3d = nn.Conv3d(before, after, kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same, each axis over its stride."""
        out: Tensor = self.conv3d(functional.pad(_repeat_first(x, self.copies), (self.edge,) * 4))
        return out


def _repeat_first(x: Tensor, copies: int) -> Tensor:
    """Put copies of the first frame before it."""
    return torch.cat((x[:, :, :1].expand(-1, -1, copies, -1, -1), x), 2) if copies > 0 else x


def factorized(before: int, after: int) -> nn.Sequential:
    """3 x 3 in space, then 3 in time."""
    return nn.Sequential(CausalConv3d(before, after, (1, 3, 3)), CausalConv3d(after, after, (3, 1, 1)))


def pointwise(before: int, after: int) -> CausalConv3d:
    """A convolution of one pixel of one frame."""
    return CausalConv3d(before, after, (1, 1, 1))


class FrameNorm(nn.Module):
    """A norm over all channels and pixels of one frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same."""
        frames = x.transpose(1, 2)
        normed: Tensor = self.norm(frames.flatten(0, 1)).reshape(frames.shape)
        return normed.transpose(1, 2)


class VideoBlock(nn.Module):
    """Two factorized convolutions around a skip."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(before)
        self.conv1 = factorized(before, after)
        self.norm2 = FrameNorm(after)
        self.conv2 = factorized(after, after)
        self.nin_shortcut = nn.Identity() if before == after else pointwise(before, after)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T, H, W]."""
        inner = self.conv1(functional.silu(self.norm1(x)))
        out: Tensor = self.nin_shortcut(x) + self.conv2(functional.silu(self.norm2(inner)))
        return out


class VideoAttention(nn.Module):
    """Positions of one frame look at each other, or each position at itself in this and earlier frames."""

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time
        self.norm = FrameNorm(channels)
        self.q, self.k, self.v, self.proj_out = (pointwise(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same."""
        normed = self.norm(x)
        # Sequences come first, then channels: (B, H, W, C, T) or (B, T, C, H W).
        order = (0, 3, 4, 1, 2) if self.in_time else (0, 2, 1, 3, 4)
        ahead = 3 if self.in_time else 2
        parts = [project(normed).permute(order) for project in (self.q, self.k, self.v)]
        seen = _attend(*(part.flatten(0, ahead - 1).flatten(2) for part in parts), causal=self.in_time)
        back = [order.index(axis) for axis in range(5)]
        out: Tensor = x + self.proj_out(seen.reshape(parts[0].shape).permute(back))
        return out


def video_attention(channels: int) -> nn.Sequential:
    """In space, then in time."""
    return nn.Sequential(VideoAttention(channels, in_time=False), VideoAttention(channels, in_time=True))


class VideoDown(nn.Module):
    """Halves space, time, both or neither, with the convolutions that it takes."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(channels, channels, (1, 3, 3), stride=(1, 2, 2)) if space else None
        self.conv2 = CausalConv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if time else None
        self.conv3 = pointwise(channels, channels) if space or time else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same with H / 2, W / 2, 1 + (T - 1) / 2."""
        if self.conv1 is not None:
            x = self.conv1(functional.pad(x, (0, 1, 0, 1))) + functional.avg_pool3d(x, (1, 2, 2))
        if self.conv2 is not None:
            x = _repeat_first(x, 1)
            x = self.conv2(x) + functional.avg_pool3d(x, (2, 1, 1))
        out: Tensor = self.conv3(x)
        return out


class VideoUp(nn.Module):
    """Doubles space, time, both or neither, with the convolutions that it takes."""

    def __init__(self, channels: int, *, space: bool, time: bool) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(channels, channels, (3, 1, 1)) if time else None
        self.conv2 = CausalConv3d(channels, channels, (1, 3, 3)) if space else None
        self.conv3 = pointwise(channels, channels) if space or time else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> the same with 2 H, 2 W, 2 T - 1."""
        if self.conv1 is not None:
            # The first frame stands for itself alone, the others for two.
            x = x.repeat_interleave(2, 2)[:, :, 1:]
            x = self.conv1(x) + x
        if self.conv2 is not None:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
            x = self.conv2(x) + x
        out: Tensor = self.conv3(x)
        return out
