"""Cut arrays with a time axis into patches that become channels, and back: one code path for images, video, volumes.

    frames [B, T, H, W, C]  --fold(patch)-->  [B, T / pt, H / ph, W / pw, pt * ph * pw * C]

Inside a patch values are row-major over (pt, ph, pw), then the channels, as `multitok.frontend.patches` has them.
Channels come last everywhere in this module; convolutions see the same memory as "channels last". An image has T = 1,
a volume its depth on T. This module imports torch.
"""

from __future__ import annotations

import torch

from multitok.nets.autoencoder_config import Sizes


def fold(values: torch.Tensor, patch: Sizes) -> torch.Tensor:
    """Patches as channels.

    Args:
        values: [B, T, H, W, C], each of T, H, W a multiple of the patch.
        patch: (pt, ph, pw).

    Returns:
        [B, T / pt, H / ph, W / pw, pt * ph * pw * C].
    """
    batch, t, h, w, c = values.shape
    pt, ph, pw = patch
    cut = values.reshape(batch, t // pt, pt, h // ph, ph, w // pw, pw, c)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, t // pt, h // ph, w // pw, pt * ph * pw * c)


def unfold(patches: torch.Tensor, patch: Sizes) -> torch.Tensor:
    """Inverse of `fold`.

    Args:
        patches: [B, t, h, w, pt * ph * pw * C].
        patch: (pt, ph, pw).

    Returns:
        [B, t * pt, h * ph, w * pw, C].
    """
    batch, t, h, w, length = patches.shape
    pt, ph, pw = patch
    cut = patches.reshape(batch, t, h, w, pt, ph, pw, length // (pt * ph * pw))
    return cut.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, t * pt, h * ph, w * pw, -1)


def with_neighbours(frames: torch.Tensor, taps: tuple[int, ...], before: torch.Tensor | None = None) -> torch.Tensor:
    """Each frame beside its neighbours in time, as channels: a convolution over time becomes one over channels.

    Args:
        frames: [B, T, H, W, C].
        taps: Distances in frames, (0,) for images, (-1, 0) for causal video, (-1, 0, 1) for volumes.
        before: [B, n, H, W, C] the n = -min(taps) frames before the first; None takes zeros.

    Returns:
        [B, T, H, W, len(taps) * C]; beyond the ends the neighbours are zero.
    """
    if taps == (0,):
        return frames
    length, past, ahead = frames.shape[1], -min(taps), max(taps)
    parts = [frames]
    if past:
        parts.insert(0, torch.zeros_like(frames[:, :1]).expand(-1, past, -1, -1, -1) if before is None else before)
    if ahead:
        parts.append(torch.zeros_like(frames[:, :1]).expand(-1, ahead, -1, -1, -1))
    padded = torch.cat(parts, 1)
    return torch.cat([padded[:, past + tap : past + tap + length] for tap in taps], -1)
