"""Other voices, rooms, channels and noises, on mel energies: what a student of speech units learns not to hear.

All but the change of speed works on energies [R, M] of one clip, which costs little. Energies of sounds that do not
depend on each other add, on average; so noise is added to them. This module imports torch.

Shape letters: B clips, R rows of energies (100 a second), M mel bands, N samples.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

# How often each happens.
SPEED, WARP, ROOM, TELEPHONE, LOW_PASS, NOISE, HOLE = 0.65, 0.5, 0.15, 0.12, 0.13, 0.6, 0.25
# Speeds and warps: exp or 1 plus a normal number of this deviation, within limits.
SPEED_SPREAD, MOST_SPEED = 0.09, 0.2
WARP_SPREAD, MOST_WARP = 0.05, 0.12
# log10 of the energy's gain.
GAIN = (-2.2, 1.2)
ROOM_ROWS = 40
# dB per octave-like half of the bands, and of slow ripples, of a channel and of a noise.
CHANNEL_DB, NOISE_DB = (3.0, 2.0), (6.0, 4.0)
SNR_DB = (0.0, 50.0)
OWN_NOISE, OTHER_SOUND = 0.5, 0.25  # of noises; the rest is other voices at once
HOLE_BANDS, HOLE_GAIN = 10, 1e-3


def speed_of(rng: np.random.Generator) -> float:
    """How much faster a clip is to be played: 1 for some, about 0.8 to 1.2 for the others."""
    if rng.random() >= SPEED:
        return 1.0
    return float(np.exp(np.clip(rng.normal(0, SPEED_SPREAD), -MOST_SPEED, MOST_SPEED)))


def played(samples: NDArray[np.float32], speed: float, num_samples: int) -> NDArray[np.float32]:
    """Samples at another speed, pitch and formants with it, by cubic interpolation.

    Args:
        samples: [n].
        speed: Above 1 is faster and higher.
        num_samples: N; silence where the samples end before.

    Returns:
        [N], sample i of which is sample i * speed of those given.
    """
    padded = np.concatenate([samples[:1], samples, np.zeros(3, np.float32)])
    places = np.minimum(np.arange(num_samples) * speed, samples.size)
    first = places.astype(np.intp)
    t = (places - first).astype(np.float32)
    a, b, c, d = (padded[first + k] for k in range(4))
    return np.asarray(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))


def disturbed(energies: Tensor, others: Tensor, rng: np.random.Generator) -> Tensor:
    """Each clip with a gain, and some with another voice, room, channel or noise.

    Args:
        energies: [B, R, M].
        others: [B, R, M] energies of other sound, such as music.
        rng: Where chance comes from.

    Returns:
        [B, R, M].
    """
    gain = torch.from_numpy(10 ** rng.uniform(*GAIN, (len(energies), 1, 1))).float()
    energies = energies * gain
    return torch.stack([_disturbed(clip, energies, others, rng) for clip in range(len(energies))])


def _disturbed(clip: int, energies: Tensor, others: Tensor, rng: np.random.Generator) -> Tensor:
    found = energies[clip]
    bands = found.shape[1]
    if rng.random() < WARP:
        found = warped(found, 1 + float(np.clip(rng.normal(0, WARP_SPREAD), -MOST_WARP, MOST_WARP)))
    if rng.random() < ROOM:
        found = _in_a_room(found, rng)
    found = found * _gains(_curve(bands, CHANNEL_DB, rng) + _band_limits(bands, rng))
    if rng.random() < NOISE:
        found = found + _noise(clip, energies, others, rng) * (found.mean() * 10 ** (-rng.uniform(*SNR_DB) / 10))
    if rng.random() < HOLE:
        width = int(rng.integers(1, HOLE_BANDS))
        first = int(rng.integers(bands - width))
        found = torch.cat([found[:, :first], found[:, first : first + width] * HOLE_GAIN, found[:, first + width :]], 1)
    return found


def warped(energies: Tensor, factor: float) -> Tensor:
    """Formants moved: band m takes the energy of band m * factor.

    Args:
        energies: [R, M].
        factor: Above 1 moves formants down.

    Returns:
        [R, M].
    """
    bands = energies.shape[1]
    places = np.clip(np.arange(bands) * factor, 0, bands - 1.001)
    below = torch.from_numpy(places.astype(np.int64))
    share = torch.from_numpy(places % 1).float()
    return energies[:, below] * (1 - share) + energies[:, below + 1] * share


def _in_a_room(energies: Tensor, rng: np.random.Generator) -> Tensor:
    decay, first = rng.uniform(0.75, 0.93), rng.uniform(0.1, 0.5)
    tail = np.concatenate([[1.0], first * decay ** np.arange(ROOM_ROWS)]).astype(np.float32)
    kernel = torch.from_numpy(tail[::-1].copy())[None, None]
    return functional.conv1d(functional.pad(energies.T[:, None], (ROOM_ROWS, 0)), kernel)[:, 0].T


def _curve(bands: int, spread_db: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float64]:
    """A tilt and a ripple over the bands, in dB."""
    place = np.arange(bands) / (bands - 1)
    ripple = np.cos(np.pi * place * rng.integers(1, 5) + rng.uniform(0, 2 * np.pi))
    return np.asarray(rng.normal(0, spread_db[0]) * (2 * place - 1) + rng.normal(0, spread_db[1]) * ripple)


def _band_limits(bands: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Losses of a telephone or of a low sample rate, in dB; mostly none."""
    band, kind = np.arange(bands) * (80 / bands), rng.random()
    if kind >= TELEPHONE + LOW_PASS:
        return np.zeros(bands)
    top = rng.uniform(52, 62) if kind < TELEPHONE else rng.uniform(58, 76)
    loss = -60 / (1 + np.exp(-(band - top) / 0.6))
    if kind < TELEPHONE:
        loss -= 40 / (1 + np.exp((band - rng.uniform(2, 8)) / 0.8))
    return np.asarray(loss)


def _noise(clip: int, energies: Tensor, others: Tensor, rng: np.random.Generator) -> Tensor:
    """[R, M] of mean 1."""
    rows, bands = energies.shape[1:]
    kind = rng.random()
    if kind < OWN_NOISE:
        found = _gains(_curve(bands, NOISE_DB, rng)) * torch.from_numpy(rng.exponential(size=(rows, bands))).float()
    elif kind < OWN_NOISE + OTHER_SOUND:
        found = others[clip]
    else:
        voices = [(clip + k) % len(energies) for k in range(1, 4)]
        found = torch.stack([energies[each].roll(int(rng.integers(rows)), 0) for each in voices]).sum(0)
    return found / (found.mean() + 1e-9)


def _gains(curve_db: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(10 ** (np.clip(curve_db, -80, 12) / 10)).float()
