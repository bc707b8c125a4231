"""The codec that tokenizers run: the same codes and the same samples for every way to split a stream, in NumPy alone.

    samples -> frames -> spectra, log mel energies (float64, row by row) -> exact encoder and linear map -> latents
    latents -> codes, codebook by codebook
    codes -> sums of code vectors -> exact decoder and linear map -> spectra -> overlap-add (float64, row by row)

`CodecAnalysis` and `CodecSynthesis` hold no state: it is given to each step, and no step changes it.

Shape letters: n samples and f frames of a piece, S frequencies of an analysed frame, R of a made one, M mel bands,
D latents, K codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import Framing, FramingState
from multitok.frontend.log_mel import log10
from multitok.frontend.spectrogram import mel_filters
from multitok.nets.causal.exact import CausalState, ExactCausalNet
from multitok.nets.codec_config import CodecConfig
from multitok.nets.exact_linear import ExactLinear, exp
from multitok.nets.istft import InverseStft, IstftState
from multitok.nets.vocoder import FLOOR, LOG_SHIFT, LOG_SPAN, PRIOR_GAIN
from multitok.quantize.residual import ResidualQuantizer

# Below this magnitude to the power of 3/4 a frequency counts as so loud: it keeps divisions finite.
LEAST_DIVISOR = 1e-6
# The log mel energies that the decoder can make, and the power that it makes at least at every frequency.
MADE_LOGS = (-1.75, 5.0)
LEAST_POWER = 1e-12
# The grid of log mel energies and of latents as the linear maps read them.
GRID = 1024
LN_10 = 2.302585092994045684


@dataclass(frozen=True)
class AnalysisState:
    """Where the encoding of a stream stands.

    Args:
        framing: Of the samples.
        encoder: Of the net.
        waiting: [w, D] what the linear map made of frames that the net has not answered yet.
    """

    framing: FramingState
    encoder: CausalState
    waiting: NDArray[np.float32]


@dataclass(frozen=True)
class SynthesisState:
    """Where the decoding of a stream stands.

    Args:
        decoder: Of the net.
        waiting: [w, D] latents that the net has not answered yet.
        overlap: Of the overlap-add.
    """

    decoder: CausalState
    waiting: NDArray[np.float32]
    overlap: IstftState


class ExactCodec:
    """A frozen codec; immutable.

    Args:
        config: Its shape.
        tensors: "encoder.*" and "decoder.*", those of the `ExactCausalNet`s; "skip.*" and "envelope.*", those of the
            `ExactLinear`s; "codebook_k" [V, D] float16, whose values are taken as they are.

    Raises:
        SpecError: A tensor is missing, left over, or of another shape or dtype, or a value cannot be.
    """

    def __init__(self, config: CodecConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        latents, mels = config.latent_dim, config.num_mels
        self.encoder = ExactCausalNet(config.encoder, _part(tensors, "encoder."))
        self.decoder = ExactCausalNet(config.decoder, _part(tensors, "decoder."))
        self.skip = ExactLinear(mels, latents, GRID, _part(tensors, "skip."))
        self.envelope = ExactLinear(latents, mels, GRID, _part(tensors, "envelope."))
        self._codebooks = []
        for k, size in enumerate(config.codebook_sizes):
            codebook = tensors.get(f"codebook_{k}")
            if codebook is None or codebook.dtype != np.float16 or codebook.shape != (size, latents):
                found = "missing" if codebook is None else f"{codebook.dtype} {list(codebook.shape)}"
                raise SpecError(f"codebook_{k} is {found}: this codec needs float16 {[size, latents]}")
            self._codebooks.append(np.array(codebook))
        known = tuple(f"{part}." for part in ("encoder", "decoder", "skip", "envelope"))
        names = {f"codebook_{k}" for k in range(config.num_codebooks)}
        if surplus := {key for key in tensors if not key.startswith(known)} - names:
            raise SpecError(f"unknown tensors {', '.join(sorted(surplus))}: they belong to another configuration")
        self._quantizer = ResidualQuantizer([codebook.astype(np.float32) for codebook in self._codebooks])

    @property
    def codebooks(self) -> tuple[NDArray[np.float32], ...]:
        """The K codebooks [V, D], read-only."""
        return self._quantizer.codebooks

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What rebuilds it: copies."""
        nets = {"encoder": self.encoder.tensors(), "decoder": self.decoder.tensors()}
        maps = {"skip": self.skip.tensors(), "envelope": self.envelope.tensors()}
        parts = {f"{name}.{key}": value for name, held in (nets | maps).items() for key, value in held.items()}
        return parts | {f"codebook_{k}": codebook.copy() for k, codebook in enumerate(self._codebooks)}

    def analysis(self, num_codebooks: int) -> CodecAnalysis:
        """What encodes to the first codebooks.

        Args:
            num_codebooks: From 1 to K.
        """
        return CodecAnalysis(self, ResidualQuantizer(self.codebooks[:num_codebooks]))

    def synthesis(self) -> CodecSynthesis:
        """What decodes codes of any number of first codebooks."""
        return CodecSynthesis(self, self._quantizer)


class CodecAnalysis:
    """Samples to codes.

    Args:
        codec: Whose nets run.
        quantizer: Of the codebooks that are used.
    """

    def __init__(self, codec: ExactCodec, quantizer: ResidualQuantizer) -> None:
        self._mel = codec.config.mel
        self._framing = Framing(self._mel.hop_length, self._mel.window_length, self._mel.lead)
        self._encoder, self._skip, self._quantizer = codec.encoder, codec.skip, quantizer

    def initial_state(self) -> AnalysisState:
        """Before the first sample."""
        waiting = np.zeros((0, self._encoder.config.out_dim), np.float32)
        return AnalysisState(self._framing.initial_state(), self._encoder.initial_state(), waiting)

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
        return self._seen(state, framing, frames)

    def last_latents(self, state: AnalysisState) -> NDArray[np.float32]:
        """The latents [f, D] whose codes `finish` gives."""
        if not state.framing.num_samples:
            return np.zeros((0, self._encoder.config.out_dim), np.float32)
        # Silence follows: as many hops of it as the net looks ahead.
        silence = np.zeros(self._encoder.config.lookahead * self._mel.hop_length, np.float32)
        framing, frames = self._framing.step(state.framing, silence)
        last = np.concatenate([frames, self._framing.finish(framing)])
        return self._seen(state, framing, last)[1]

    def _seen(
        self, state: AnalysisState, framing: FramingState, frames: NDArray[np.float32]
    ) -> tuple[AnalysisState, NDArray[np.float32]]:
        logs = log_mel(self._mel.energies_of(frames))
        encoder, latents = self._encoder.step(state.encoder, features(frames, self._mel.window, logs))
        waiting = np.concatenate([state.waiting, self._skip(logs)])
        latents = latents + waiting[: len(latents)]
        return AnalysisState(framing, encoder, waiting[len(latents) :].copy()), latents

    def _codes(self, latents: NDArray[np.float32]) -> NDArray[np.int32]:
        return np.ascontiguousarray(self._quantizer.encode(latents).T)


class CodecSynthesis:
    """Codes to samples.

    Args:
        codec: Whose nets run.
        quantizer: Of all codebooks.
    """

    def __init__(self, codec: ExactCodec, quantizer: ResidualQuantizer) -> None:
        config = codec.config
        self._istft = InverseStft(synthesis_window(config), config.hop_length)
        self._decoder, self._envelope, self._quantizer = codec.decoder, codec.envelope, quantizer
        # Triangles over two bands at most: a sum of two terms has one order.
        prior = prior_filters(config)
        self._bands = np.argsort(prior == 0, axis=0, kind="stable")[:2]
        self._weights = np.take_along_axis(prior, self._bands, axis=0)
        self._silence = codec.skip(np.full((1, config.num_mels), SILENCE, np.float32))

    def initial_state(self) -> SynthesisState:
        """Before the first code."""
        waiting = np.zeros((0, self._decoder.config.in_dim), np.float32)
        return SynthesisState(self._decoder.initial_state(), waiting, self._istft.initial_state())

    def step(self, state: SynthesisState, values: NDArray[np.int32], /) -> tuple[SynthesisState, NDArray[np.float32]]:
        """The state after codes [k, f] of the first k codebooks, any f, and the samples [n] that are known now."""
        return self._made(state, self._quantizer.decode(values.T))

    def finish(self, state: SynthesisState, /) -> NDArray[np.float32]:
        """The samples [n] that are left: with those before, whole hops."""
        if not state.decoder.num_frames:
            return np.zeros(0, np.float32)
        # The net looks ahead at latents of silence; they are not decoded themselves.
        lookahead = self._decoder.config.lookahead
        state, samples = self._made(state, np.repeat(self._silence, lookahead, axis=0))
        return np.concatenate([samples, self._istft.finish(state.overlap)])

    def _made(self, state: SynthesisState, latents: NDArray[np.float32]) -> tuple[SynthesisState, NDArray[np.float32]]:
        decoder, factors = self._decoder.step(state.decoder, latents)
        waiting = np.concatenate([state.waiting, latents])
        overlap, samples = self._istft.step(state.overlap, self._spectra(factors, waiting[: len(factors)]))
        return SynthesisState(decoder, waiting[len(factors) :].copy(), overlap), samples

    def _spectra(self, factors: NDArray[np.float32], latents: NDArray[np.float32]) -> NDArray[np.complex128]:
        """[f, R]: the fine structure times the envelope."""
        logs = np.clip(self._envelope(latents).astype(np.float64), *MADE_LOGS)
        energies = exp((logs * LOG_SPAN - LOG_SHIFT) * LN_10)
        power = energies[:, self._bands[0]] * self._weights[0] + energies[:, self._bands[1]] * self._weights[1]
        magnitudes = np.sqrt(power * PRIOR_GAIN + LEAST_POWER)
        half = factors.shape[1] // 2
        spectra = np.empty(magnitudes.shape, np.complex128)
        np.multiply(factors[:, :half], magnitudes, out=spectra.real)
        np.multiply(factors[:, half:], magnitudes, out=spectra.imag)
        return spectra


def log_mel(energies: NDArray[np.float64]) -> NDArray[np.float32]:
    """Logarithms of mel energies on the grid: about -2 to 3."""
    values = (log10(np.maximum(energies, FLOOR)) + LOG_SHIFT) / LOG_SPAN
    return (np.rint(values * GRID) / GRID).astype(np.float32)


SILENCE = float(log_mel(np.zeros(1))[0])


def features(
    frames: NDArray[np.float32], window: NDArray[np.float64], logs: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What the encoder sees of frames: X / |X|^(3/4), real and imaginary, |X|^(1/4), X the spectrum, and log energies.

    Args:
        frames: [f, 2 S - 2].
        window: [2 S - 2].
        logs: [f, M] log mel energies.

    Returns:
        [f, 3 S + M].
    """
    spectrum = np.fft.rfft(frames * window)
    root = np.sqrt(np.sqrt(np.sqrt(spectrum.real * spectrum.real + spectrum.imag * spectrum.imag)))
    divisor = np.maximum(root * root * root, LEAST_DIVISOR)
    return np.concatenate([spectrum.real / divisor, spectrum.imag / divisor, root, logs], axis=1, dtype=np.float32)


def synthesis_window(config: CodecConfig) -> NDArray[np.float64]:
    """Hann's window, its copies a hop apart adding up to 1: what the decoder's frames are multiplied by."""
    length = config.synthesis_length
    return np.asarray(np.sin(np.pi * np.arange(length) / length) ** 2 * (2 * config.hop_length / length))


def prior_filters(config: CodecConfig) -> NDArray[np.float64]:
    """[M, R]: how a band's energy spreads over frequencies."""
    filters = mel_filters(config.sample_rate_hz, config.synthesis_length, config.num_mels)
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))


def _part(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
