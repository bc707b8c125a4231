"""Sound from mel energies by a small causal net: streaming, the same bits for every split, in NumPy alone.

    energies [F, M] -- log --> causal net --> a turn and a gain for each frequency [F, S] complex
         |                                          | times
         +----- spread over frequencies --> magnitudes [F, S] --> inverse FFT, overlap-add --> samples [F * hop]

The magnitudes are those of a spectrum that is flat within each band; so the net learns phases and fine structure, and
what it has not learnt stays near the right loudness. The answer lags by the net's look-ahead and half a window.

Shape letters: f frames of one step, M mel bands, S frequencies, W samples of the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError
from multitok.frontend.log_mel import log10
from multitok.frontend.spectrogram import mel_filters
from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.exact import CausalState, ExactCausalNet
from multitok.nets.istft import InverseStft, IstftState

# Energies below count as this much.
FLOOR = 10.0**-7.5
# The net reads (log10(energy) + LOG_SHIFT) / LOG_SPAN: about -2 to 3.
LOG_SHIFT, LOG_SPAN = 4.0, 2.0
SILENCE = (-7.5 + LOG_SHIFT) / LOG_SPAN
# Brings magnitudes spread over frequencies near to those of a window's spectrum.
PRIOR_GAIN = 20.0


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """Shape of a vocoder.

    Args:
        net: Reads M log energies a frame, gives the real and then the imaginary parts of S = W // 2 + 1 factors.
        sample_rate_hz: Of the samples.
        hop_length: Samples a frame.
        window_length: W, samples that a frame is made of: a multiple of `hop_length` and an even number longer.
        fits: Passes of `multitok.nets.energy_fit` over its sound that a tokenizer makes.

    Raises:
        SpecError: The net's sizes do not fit, or there are fewer than 0 passes.
    """

    net: CausalConfig
    sample_rate_hz: int = 16_000
    hop_length: int = 200
    window_length: int = 800
    fits: int = 0

    def __post_init__(self) -> None:
        if self.net.out_dim != 2 * (self.window_length // 2 + 1) or self.net.stack != self.net.unstack:
            raise SpecError(
                f"a net of {self.net.out_dim} outputs, stack={self.net.stack}, unstack={self.net.unstack} for windows "
                f"of {self.window_length} samples: give {2 * (self.window_length // 2 + 1)} outputs and equal stacks"
            )
        if self.fits < 0:
            raise SpecError(f"fits={self.fits}: give 0 or more")

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes."""
        return {**asdict(self), "net": self.net.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> VocoderConfig:
        """The configuration that `to_json` gave these values for.

        Raises:
            SpecError: The net's sizes do not fit.
        """
        return cls(**{**values, "net": CausalConfig(**values["net"])})


@dataclass(frozen=True)
class VocoderState:
    """Where a stream stands; no step changes it.

    Args:
        net: Of the net.
        waiting: [w, M] energies that the net has not answered yet.
        istft: Of the overlap-add.
    """

    net: CausalState
    waiting: NDArray[np.float64]
    istft: IstftState


class ExactVocoder:
    """A frozen vocoder; immutable, so threads may share it.

    Args:
        config: Its shape.
        tensors: Those of its net, see `ExactCausalNet`.

    Raises:
        SpecError: The tensors are not of this shape, or the lengths do not fit each other.
    """

    def __init__(self, config: VocoderConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        self.net = ExactCausalNet(config.net, tensors)
        self._istft = InverseStft(synthesis_window(config), config.hop_length)
        prior = prior_filters(config)
        # Triangles over two bands at most: a sum of two terms has one order.
        order = np.argsort(prior == 0, axis=0, kind="stable")[:2]
        self._bands, self._weights = order, np.take_along_axis(prior, order, axis=0)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What rebuilds it: copies."""
        return self.net.tensors()

    def initial_state(self) -> VocoderState:
        """Of a stream that has not begun: silence lies before it."""
        waiting = np.zeros((0, self.config.net.in_dim))
        return VocoderState(self.net.initial_state(), waiting, self._istft.initial_state())

    def step(self, state: VocoderState, energies: NDArray[np.float64]) -> tuple[VocoderState, NDArray[np.float32]]:
        """The samples that these frames complete.

        Args:
            state: Where the stream stands.
            energies: [f, M], 0 or above, finite; any f.

        Returns:
            Where it stands then, and [n].

        Raises:
            ShapeError: Frames are not of M energies.
        """
        if energies.ndim != 2 or energies.shape[1] != self.config.net.in_dim:
            raise ShapeError(
                f"energies of shape {list(energies.shape)}: this vocoder reads [f, {self.config.net.in_dim}]"
            )
        raised = np.maximum(energies, FLOOR)
        net, factors = self.net.step(state.net, net_inputs(raised))
        waiting = np.concatenate([state.waiting, raised])
        istft, samples = self._istft.step(state.istft, self._spectra(factors, waiting))
        return VocoderState(net, waiting[len(factors) :].copy(), istft), samples

    def finish(self, state: VocoderState) -> NDArray[np.float32]:
        """The samples that are left: with those before, F * hop of them.

        Args:
            state: Where the stream stands.
        """
        factors = self.net.finish(state.net, SILENCE)[: len(state.waiting)]
        istft, samples = self._istft.step(state.istft, self._spectra(factors, state.waiting))
        return np.concatenate([samples, self._istft.finish(istft)])

    def run(self, energies: NDArray[np.float64]) -> NDArray[np.float32]:
        """Samples [F * hop] of a whole clip's energies [F, M].

        Raises:
            ShapeError: Frames are not of M energies.
        """
        state, samples = self.step(self.initial_state(), energies)
        return np.concatenate([samples, self.finish(state)])

    def _spectra(self, factors: NDArray[np.float32], energies: NDArray[np.float64]) -> NDArray[np.complex128]:
        held = energies[: len(factors)]
        power = held[:, self._bands[0]] * self._weights[0] + held[:, self._bands[1]] * self._weights[1]
        magnitudes = np.sqrt(power * PRIOR_GAIN)
        half = factors.shape[1] // 2
        spectra = np.empty(magnitudes.shape, np.complex128)
        np.multiply(factors[:, :half], magnitudes, out=spectra.real)
        np.multiply(factors[:, half:], magnitudes, out=spectra.imag)
        return spectra


def net_inputs(energies: NDArray[np.float64]) -> NDArray[np.float32]:
    """What the net reads of energies [F, M] of at least FLOOR."""
    return np.asarray((log10(energies) + LOG_SHIFT) / LOG_SPAN, np.float32)


def prior_filters(config: VocoderConfig) -> NDArray[np.float64]:
    """[M, S]: how a band's energy spreads over frequencies."""
    filters = mel_filters(config.sample_rate_hz, config.window_length, config.net.in_dim)
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))


def synthesis_window(config: VocoderConfig) -> NDArray[np.float64]:
    """[W] Hann's, its copies a hop apart adding up to 1."""
    length, hop = config.window_length, config.hop_length
    return np.asarray(np.sin(np.pi * np.arange(length) / length) ** 2 * (2 * hop / length))
