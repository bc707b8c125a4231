"""Mel energies -> sound without a net: a spectrum that has them, and phases found by Griffin-Lim.

Long sound is made in tiles of TILE_FRAMES, each with so much context that its samples are those of the whole; so memory
stays bounded, there is no seam, and a stream, whose tiles are the same, gets the same bits. A tile is ready when its
context is there, so the first samples of a stream come after (TILE_FRAMES + context) frames or at its end. In float32.

Shape letters: F frames, M mel bands, S frequencies of the FFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError
from multitok.frontend.spectrogram import MelSpectrogram, mel_filters

TILE_FRAMES = 1024  # about 13 s at 80 frames a second, 60 MB
NNLS_ITERATIONS = 100
MOMENTUM = 0.99
SMALLEST = np.float32(1e-30)  # keeps divisions finite


@dataclass(frozen=True)
class GriffinLimState:
    """Where a stream stands.

    Args:
        tile: The frame at which the next tile begins.
        first: The frame that `energies` begin with: context of that tile.
        energies: [F, M], the frames that are still needed.
    """

    tile: int
    first: int
    energies: NDArray[np.float32]


@dataclass(frozen=True)
class GriffinLim:
    """Samples whose mel energies come close to given ones, by fast Griffin-Lim from one fixed set of phases.

    Args:
        mel: How the energies came about.
        iterations: Griffin-Lim iterations.

    Raises:
        SpecError: The window is not a multiple of the hop.

    Source:
        Perraudin, Balazs, Sondergaard 2013, "A fast Griffin-Lim algorithm".
    """

    mel: MelSpectrogram
    iterations: int

    def __post_init__(self) -> None:
        if self.mel.window_length % self.mel.hop_length:
            raise SpecError(
                f"window_length={self.mel.window_length}, hop_length={self.mel.hop_length}: "
                "Griffin-Lim needs a window that is a multiple of the hop"
            )

    def initial_state(self) -> GriffinLimState:
        """Of a stream that has not begun."""
        return GriffinLimState(0, 0, np.zeros((0, self.mel.num_mels), np.float32))

    def step(
        self, state: GriffinLimState, energies: NDArray[np.floating[Any]]
    ) -> tuple[GriffinLimState, NDArray[np.float32]]:
        """The samples of the tiles that these frames complete.

        Args:
            state: Where the stream stands.
            energies: [F, M], >= 0, any number of frames.

        Returns:
            Where it stands then, and [TILE_FRAMES * hop] samples for each of the tiles; finite.

        Raises:
            ShapeError: Another number of bands.
        """
        if energies.ndim != 2 or energies.shape[1] != self.mel.num_mels:
            raise ShapeError(f"energies of shape {list(energies.shape)}: give [frames, {self.mel.num_mels}]")
        tile, first = state.tile, state.first
        known = np.concatenate([state.energies, energies.astype(np.float32, copy=False)])
        samples = [np.zeros(0, np.float32)]
        while first + len(known) >= tile + TILE_FRAMES + self._context:
            samples.append(self._tile(known, tile, first))
            tile += TILE_FRAMES
            known = known[max(tile - self._context, 0) - first :]
            first = max(tile - self._context, 0)
        return GriffinLimState(tile, first, known.copy()), np.concatenate(samples)

    def finish(self, state: GriffinLimState) -> NDArray[np.float32]:
        """The samples of what is left: with those before, F * hop of them."""
        end, samples = state.first + len(state.energies), [np.zeros(0, np.float32)]
        for tile in range(state.tile, end, TILE_FRAMES):
            known_from = max(tile - self._context, 0)
            samples.append(self._tile(state.energies[known_from - state.first :], tile, known_from))
        return np.concatenate(samples)

    def run(self, energies: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Samples [F * hop] of energies [F, M] that are all there."""
        state, samples = self.step(self.initial_state(), energies)
        return np.concatenate([samples, self.finish(state)])

    @property
    def _context(self) -> int:
        # One iteration carries a frame's influence to those that share samples with it, and no further.
        return (self.iterations + 1) * (self.mel.window_length // self.mel.hop_length - 1)

    def _tile(self, known: NDArray[np.float32], tile: int, first: int) -> NDArray[np.float32]:
        # Samples of the frames from `tile` on, at most TILE_FRAMES; `known` begins with frame `first`.
        hop = self.mel.hop_length
        energies = known[: tile + TILE_FRAMES + self._context - first]
        samples = self._griffin_lim(self._magnitudes(energies), first)
        return samples[(tile - first) * hop : (tile + TILE_FRAMES - first) * hop]

    def _magnitudes(self, energies: NDArray[np.float32]) -> NDArray[np.float32]:
        # [F, S]: the non-negative spectrum whose bands have these energies, by Lee and Seung's multiplicative
        # updates; it starts from the spectrum that is flat within each band.
        filters = self._filters
        wanted = energies @ filters
        spectrum = (energies / filters.sum(axis=1)) @ (filters / np.maximum(filters.sum(axis=0), SMALLEST))
        for _ in range(NNLS_ITERATIONS):
            spectrum *= wanted / np.maximum((spectrum @ filters.T) @ filters, SMALLEST)
        return np.asarray(np.sqrt(spectrum))

    def _griffin_lim(self, magnitudes: NDArray[np.float32], first: int) -> NDArray[np.float32]:
        # Samples [F * hop] with these magnitudes [F, S]; frame `first + i` starts from the same phases in any tile.
        generator = np.random.PCG64(0)
        generator.advance(first * magnitudes.shape[1])
        turns = np.random.Generator(generator).random(magnitudes.shape)
        spectrum = magnitudes * np.exp(2j * np.pi * turns).astype(np.complex64)
        consistent = np.zeros_like(spectrum)
        for iteration in range(self.iterations):
            padded = np.pad(self._overlap_add(spectrum), self.mel.lead)
            before, consistent = consistent, np.fft.rfft(self._frames(padded), self.mel.fft_length)
            ahead = consistent + MOMENTUM * (consistent - before) if iteration else consistent
            spectrum = magnitudes * (ahead / np.maximum(np.abs(ahead), SMALLEST))
        return self._overlap_add(spectrum)

    def _frames(self, padded: NDArray[np.float32]) -> NDArray[np.float32]:
        # [F, window] windowed frames of samples with `lead` more on either side.
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.mel.window_length)[:: self.mel.hop_length]
        windowed: NDArray[np.float32] = frames * self._window
        return windowed

    def _overlap_add(self, spectrum: NDArray[Any]) -> NDArray[np.float32]:
        # Samples [F * hop]: the inverse of `_frames` by least squares.
        hop, length, lead = self.mel.hop_length, self.mel.window_length, self.mel.lead
        frames = np.fft.irfft(spectrum, self.mel.fft_length)[:, :length].astype(np.float32) * self._window
        frames, squares = frames.reshape(len(frames), -1, hop), (self._window**2).reshape(-1, hop)
        total = np.zeros((len(frames) + len(squares) - 1, hop), np.float32)
        weight = np.zeros_like(total)
        for j, square in enumerate(squares):
            total[j : j + len(frames)] += frames[:, j]
            weight[j : j + len(frames)] += square
        samples: NDArray[np.float32] = (total / np.maximum(weight, SMALLEST)).reshape(-1)
        return samples[lead : lead + len(frames) * hop]

    @cached_property
    def _window(self) -> NDArray[np.float32]:
        return self.mel.window.astype(np.float32)

    @cached_property
    def _filters(self) -> NDArray[np.float32]:
        # [M, S]
        return mel_filters(self.mel.sample_rate_hz, self.mel.fft_length, self.mel.num_mels).astype(np.float32)
