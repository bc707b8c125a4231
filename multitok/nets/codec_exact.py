"""The codec that tokenizers run: the same codes and the same samples for every way to split a stream, in NumPy alone.

    samples -> frames -> spectra (float64, row by row) -> exact encoder -> latents -> codes, codebook by codebook
    codes -> sums of code vectors -> exact decoder -> spectra -> inverse FFT and overlap-add (float64, row by row)

`CodecAnalysis` and `CodecSynthesis` hold no state: it is given to each step, and no step changes it.

Shape letters: n samples and f frames of a piece, S frequencies, M bands, D latents, K codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import Framing, FramingState
from multitok.frontend.spectrogram import mel_filters
from multitok.nets.causal.exact import CausalState, ExactCausalNet
from multitok.nets.codec_config import CodecConfig
from multitok.nets.istft import InverseStft, IstftState
from multitok.quantize.residual import ResidualQuantizer

# Below this magnitude to the power of 3/4 a frequency counts as so loud: it keeps divisions finite.
LEAST_DIVISOR = 1e-6
# The decoder's output for a band is (ln energy - BAND_SHIFT) / BAND_SPAN; energies stay within these logarithms.
BAND_SHIFT, BAND_SPAN = -3.0, 1.5
BAND_LIMITS = (-18.0, 10.0)
# Energy at frequencies that no band covers, and everywhere at least.
LEAST_ENERGY = 1e-9
# ln 2 in two parts, the first with so few bits that its small multiples are exact.
LN_2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
# 1 / n! from the 11th on down: within half of ln 2 the series is right to 1e-13.
EXP_SERIES = (
    2.5052108385441720e-08, 2.7557319223985893e-07, 2.7557319223985888e-06, 2.4801587301587302e-05,
    1.9841269841269841e-04, 1.3888888888888889e-03, 8.3333333333333332e-03, 4.1666666666666664e-02,
    1.6666666666666666e-01, 0.5, 1.0, 1.0,
)  # fmt: skip


@dataclass(frozen=True)
class AnalysisState:
    """Where the encoding of a stream stands.

    Args:
        framing: Of the samples.
        encoder: Of the net.
    """

    framing: FramingState
    encoder: CausalState


@dataclass(frozen=True)
class SynthesisState:
    """Where the decoding of a stream stands.

    Args:
        decoder: Of the net.
        overlap: Of the overlap-add.
    """

    decoder: CausalState
    overlap: IstftState


class ExactCodec:
    """A frozen codec; immutable.

    Args:
        config: Its shape.
        tensors: "encoder.*" and "decoder.*", those of the `ExactCausalNet`s, and "codebook_k" [V, D] float16, whose
            values are taken as they are.

    Raises:
        SpecError: A tensor is missing, left over, or of another shape or dtype, or a value cannot be.
    """

    def __init__(self, config: CodecConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        self.encoder = ExactCausalNet(config.encoder, _part(tensors, "encoder."))
        self.decoder = ExactCausalNet(config.decoder, _part(tensors, "decoder."))
        self._codebooks = []
        for k, size in enumerate(config.codebook_sizes):
            codebook = tensors.get(f"codebook_{k}")
            if codebook is None or codebook.dtype != np.float16 or codebook.shape != (size, config.latent_dim):
                found = "missing" if codebook is None else f"{codebook.dtype} {list(codebook.shape)}"
                raise SpecError(f"codebook_{k} is {found}: this codec needs float16 {[size, config.latent_dim]}")
            self._codebooks.append(np.array(codebook))
        names = {f"codebook_{k}" for k in range(config.num_codebooks)}
        if surplus := {key for key in tensors if not key.startswith(("encoder.", "decoder."))} - names:
            raise SpecError(f"unknown tensors {', '.join(sorted(surplus))}: they belong to another configuration")
        self._quantizer = ResidualQuantizer([codebook.astype(np.float32) for codebook in self._codebooks])

    @property
    def codebooks(self) -> tuple[NDArray[np.float32], ...]:
        """The K codebooks [V, D], read-only."""
        return self._quantizer.codebooks

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What rebuilds it: copies."""
        return {
            **{f"encoder.{key}": value for key, value in self.encoder.tensors().items()},
            **{f"decoder.{key}": value for key, value in self.decoder.tensors().items()},
            **{f"codebook_{k}": codebook.copy() for k, codebook in enumerate(self._codebooks)},
        }

    def analysis(self, num_codebooks: int) -> CodecAnalysis:
        """What encodes to the first codebooks.

        Args:
            num_codebooks: From 1 to K.
        """
        return CodecAnalysis(self.config, self.encoder, ResidualQuantizer(self.codebooks[:num_codebooks]))

    def synthesis(self) -> CodecSynthesis:
        """What decodes codes of any number of first codebooks."""
        return CodecSynthesis(self.config, self.decoder, self._quantizer)


class CodecAnalysis:
    """Samples to codes.

    Args:
        config: Of the codec.
        encoder: The net.
        quantizer: Of the codebooks that are used.
    """

    def __init__(self, config: CodecConfig, encoder: ExactCausalNet, quantizer: ResidualQuantizer) -> None:
        hop, window = config.analysis_hop_length, config.window_length
        self._framing = Framing(hop, window, (window - hop) // 2)
        self._window = sine_window(window)
        self._encoder, self._quantizer = encoder, quantizer

    def initial_state(self) -> AnalysisState:
        """Before the first sample."""
        return AnalysisState(self._framing.initial_state(), self._encoder.initial_state())

    def step(self, state: AnalysisState, samples: NDArray[np.float32], /) -> tuple[AnalysisState, NDArray[np.int32]]:
        """The state after samples [n], any n, and the codes [K, f] that are known now."""
        state, latents = self.latents(state, samples)
        return state, self._codes(latents)

    def finish(self, state: AnalysisState, /) -> NDArray[np.int32]:
        """The codes [K, f] that are left: with those before, one for each hop begun."""
        return self._codes(self.last_latents(state))

    def latents(self, state: AnalysisState, samples: NDArray[np.float32]) -> tuple[AnalysisState, NDArray[np.float32]]:
        """The state after samples [n], and the latents [f, D] whose codes `step` gives."""
        framing, frames = self._framing.step(state.framing, samples)
        encoder, latents = self._encoder.step(state.encoder, features(frames, self._window))
        return AnalysisState(framing, encoder), latents

    def last_latents(self, state: AnalysisState) -> NDArray[np.float32]:
        """The latents [f, D] whose codes `finish` gives."""
        last = features(self._framing.finish(state.framing), self._window)
        encoder, latents = self._encoder.step(state.encoder, last)
        return np.concatenate([latents, self._encoder.finish(encoder)])

    def _codes(self, latents: NDArray[np.float32]) -> NDArray[np.int32]:
        return np.ascontiguousarray(self._quantizer.encode(latents).T)


class CodecSynthesis:
    """Codes to samples.

    Args:
        config: Of the codec.
        decoder: The net.
        quantizer: Of all codebooks.
    """

    def __init__(self, config: CodecConfig, decoder: ExactCausalNet, quantizer: ResidualQuantizer) -> None:
        self._istft = InverseStft(synthesis_window(config), config.synthesis_hop_length)
        self._spectra = Spectra(config)
        self._decoder, self._quantizer = decoder, quantizer

    def initial_state(self) -> SynthesisState:
        """Before the first code."""
        return SynthesisState(self._decoder.initial_state(), self._istft.initial_state())

    def step(self, state: SynthesisState, values: NDArray[np.int32], /) -> tuple[SynthesisState, NDArray[np.float32]]:
        """The state after codes [k, f] of the first k codebooks, any f, and the samples [n] that are known now."""
        return self._made(state, *self._decoder.step(state.decoder, self._quantizer.decode(values.T)))

    def finish(self, state: SynthesisState, /) -> NDArray[np.float32]:
        """The samples [n] that are left: with those before, whole hops."""
        state, samples = self._made(state, state.decoder, self._decoder.finish(state.decoder))
        return np.concatenate([samples, self._istft.finish(state.overlap)])

    def _made(
        self, state: SynthesisState, decoder: CausalState, parts: NDArray[np.float32]
    ) -> tuple[SynthesisState, NDArray[np.float32]]:
        overlap, samples = self._istft.step(state.overlap, self._spectra(parts))
        return SynthesisState(decoder, overlap), samples


def sine_window(length: int) -> NDArray[np.float64]:
    """[W] what frames of the encoder are multiplied by."""
    return np.asarray(np.sin(np.pi * (np.arange(length) + 0.5) / length))


def synthesis_window(config: CodecConfig) -> NDArray[np.float64]:
    """[W] Hann's window over the sum of those that overlap: what the decoder's frames are multiplied by."""
    length = config.window_length
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return np.asarray(hann * (2 * config.synthesis_hop_length / length))


def features(frames: NDArray[np.float32], window: NDArray[np.float64]) -> NDArray[np.float32]:
    """What the encoder sees of frames: X / |X|^(3/4), real and imaginary, and |X|^(1/4), X the spectrum.

    Args:
        frames: [f, W].
        window: [W].

    Returns:
        [f, 3 S].
    """
    spectrum = np.fft.rfft(frames * window)
    root = np.sqrt(np.sqrt(np.sqrt(spectrum.real * spectrum.real + spectrum.imag * spectrum.imag)))
    divisor = np.maximum(root * root * root, LEAST_DIVISOR)
    return np.concatenate([spectrum.real / divisor, spectrum.imag / divisor, root], axis=1, dtype=np.float32)


def band_filters(config: CodecConfig) -> NDArray[np.float64]:
    """[M, S] each band's energy per frequency, for a spectrum that is flat within bands.

    Args:
        config: Of the codec.
    """
    filters = mel_filters(config.sample_rate_hz, config.window_length, config.num_bands)
    covered = filters.sum(axis=0)
    return np.asarray(filters / np.maximum(covered, covered[covered > 0].min()))


class Spectra:
    """What the decoder's outputs stand for: fine structure times the envelope that the bands' energies make.

    Args:
        config: Of the codec.
    """

    def __init__(self, config: CodecConfig) -> None:
        filters = band_filters(config)
        # Triangles: at most two bands cover a frequency, and a sum of two terms has one order.
        self._bands = np.argsort(filters == 0, axis=0, kind="stable")[:2]
        self._weights = np.take_along_axis(filters, self._bands, axis=0)
        self._num_frequencies = filters.shape[1]

    def __call__(self, parts: NDArray[np.float32]) -> NDArray[np.complex128]:
        """Spectra [f, S] of outputs [f, 2 S + M]: real parts, imaginary parts, logarithms."""
        count = self._num_frequencies
        logs = parts[:, 2 * count :] * BAND_SPAN + BAND_SHIFT
        energies = exp(np.clip(logs.astype(np.float64), *BAND_LIMITS))
        spread = energies[:, self._bands[0]] * self._weights[0]
        if len(self._bands) > 1:
            spread += energies[:, self._bands[1]] * self._weights[1]
        magnitude = np.sqrt(spread + LEAST_ENERGY)
        found = np.empty(magnitude.shape, np.complex128)
        found.real, found.imag = parts[:, :count] * magnitude, parts[:, count : 2 * count] * magnitude
        return found


def exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """e to the power of moderate values, to within 1e-12 of it, the same bits everywhere.

    Args:
        values: Of any shape, between -700 and 700.
    """
    twos = np.rint(values * (1 / (LN_2[0] + LN_2[1])))
    rest = (values - twos * LN_2[0]) - twos * LN_2[1]
    total = np.full_like(rest, EXP_SERIES[0])
    for coefficient in EXP_SERIES[1:]:
        total = total * rest + coefficient
    return np.asarray(np.ldexp(total, twos.astype(np.int32)))


def _part(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
