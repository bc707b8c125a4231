"""Fit the levels of a dMel tokenizer to sound: Lloyd's quantiser on each band's log energies.

Every band gets levels of its own, since low bands are some 30 dB louder than high ones. Clips are taken at random
gains, so that quiet and loud recordings find levels too. Costs about 5 ms per second of sound, and 640 bytes per frame.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.protocol import Waveform
from multitok.tokenizers.audio_dmel import AudioDMel

MAX_LLOYD_ITERATIONS = 200


def train_dmel(
    waves: Iterable[Waveform],
    *,
    num_mels: int = 80,
    num_levels: int = 16,
    floor_log10: float = -7.5,
    gains_db: tuple[float, float] = (-30.0, 12.0),
    seed: int = 0,
    name: str = "audio",
) -> AudioDMel:
    """A dMel tokenizer whose levels fit `waves`.

    Args:
        waves: Clips; each is used once, at one gain.
        num_mels: Bands, K.
        num_levels: Levels per band, V.
        floor_log10: Energies below 10 to this power count as this much: how deep into silence levels reach.
        gains_db: Range that each clip's gain is drawn from, uniformly.
        seed: Seed of the gains.
        name: The tokenizer's name inside a vocabulary.

    Returns:
        A tokenizer at 16 kHz with 80 frames a second.

    Raises:
        InputError: No clip, a clip that cannot be encoded, or too little variety for the levels asked for.
    """
    rng = np.random.default_rng(seed)
    mel = MelSpectrogram(16_000, 200, 600, 1024, num_mels)
    logs = []
    for wave in waves:
        gain = np.float32(10 ** (rng.uniform(*gains_db) / 20))
        energies = mel.energies(to_mono(wave, mel.sample_rate_hz) * gain)
        logs.append(np.log10(np.maximum(energies, 10.0**floor_log10)))
    if not logs:
        raise InputError("no waveform to fit levels to: give some minutes of the sound you want to encode")
    fitted = [lloyd_levels(band, num_levels) for band in np.concatenate(logs).T]
    levels = np.array(fitted)
    edges = (levels[:, 1:] + levels[:, :-1]) / 2
    return AudioDMel(edges=10**edges, levels=10**levels, name=name)


def lloyd_levels(values: NDArray[np.float64], num_levels: int) -> NDArray[np.float64]:
    """The levels, rising, that lie nearest to `values` in the mean square (a local optimum).

    Args:
        values: [n], finite.
        num_levels: V.

    Returns:
        [V], the means of the values nearest to each.

    Raises:
        InputError: Fewer than V different values.

    Source:
        Lloyd 1982, "Least squares quantization in PCM".
    """
    ordered = np.sort(values)
    distinct = np.unique(ordered)
    if distinct.size < num_levels:
        raise InputError(f"{distinct.size} different values for {num_levels} levels: give more, or more varied, data")
    # Start evenly over the values' range, as a uniform quantiser would, on values that occur.
    even = np.linspace(distinct[0], distinct[-1], num_levels)
    levels = distinct[np.unique(np.searchsorted(distinct, even))]
    if levels.size < num_levels:  # values crowd: start evenly over their ranks
        levels = distinct[np.linspace(0, distinct.size - 1, num_levels).round().astype(np.intp)]
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(MAX_LLOYD_ITERATIONS):
        bounds = np.concatenate(
            [[0], np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2), [ordered.size]],
        )
        counts = np.diff(bounds)
        means = np.where(counts > 0, np.diff(sums[bounds]) / np.maximum(counts, 1), levels)
        if np.array_equal(means, levels):
            break
        levels = means
    return levels
