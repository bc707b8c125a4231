"""`layout.py` for NumPy arrays without a batch axis: patches as channels, frames beside their neighbours in time."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from multitok.nets.autoencoder_config import Sizes

Scalar = TypeVar("Scalar", bound=np.generic)


def fold(values: NDArray[Scalar], patch: Sizes) -> NDArray[Scalar]:
    """Patches as channels.

    Args:
        values: [T, H, W, C], each of T, H, W a multiple of the patch.
        patch: (pt, ph, pw).

    Returns:
        [T / pt, H / ph, W / pw, pt * ph * pw * C].
    """
    t, h, w, c = values.shape
    pt, ph, pw = patch
    cut = values.reshape(t // pt, pt, h // ph, ph, w // pw, pw, c).transpose(0, 2, 4, 1, 3, 5, 6)
    folded: NDArray[Scalar] = cut.reshape(t // pt, h // ph, w // pw, pt * ph * pw * c)
    return folded


def unfold(patches: NDArray[Scalar], patch: Sizes) -> NDArray[Scalar]:
    """Inverse of `fold`.

    Args:
        patches: [t, h, w, pt * ph * pw * C].
        patch: (pt, ph, pw).

    Returns:
        [t * pt, h * ph, w * pw, C].
    """
    t, h, w, length = patches.shape
    pt, ph, pw = patch
    cut = patches.reshape(t, h, w, pt, ph, pw, length // (pt * ph * pw)).transpose(0, 3, 1, 4, 2, 5, 6)
    unfolded: NDArray[Scalar] = cut.reshape(t * pt, h * ph, w * pw, -1)
    return unfolded


def with_neighbours(
    frames: NDArray[Scalar], taps: tuple[int, ...], before: NDArray[Scalar] | None = None
) -> NDArray[Scalar]:
    """Each frame beside its neighbours in time, as channels.

    Args:
        frames: [T, H, W, C].
        taps: Distances in frames: (0,), (-1, 0) or (-1, 0, 1).
        before: [n, H, W, C] the n = -min(taps) frames before the first; None takes zeros.

    Returns:
        [T, H, W, len(taps) * C]; beyond the ends the neighbours are zero.
    """
    if taps == (0,):
        return frames
    length, past, ahead = len(frames), -min(taps), max(taps)
    around = np.zeros((past + length + ahead, *frames.shape[1:]), frames.dtype)
    around[past : past + length] = frames
    if before is not None:
        around[:past] = before
    return np.concatenate([around[past + tap : past + tap + length] for tap in taps], -1)
