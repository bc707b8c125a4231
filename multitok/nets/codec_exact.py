"""The codec that tokenizers run: the same codes and the same samples for every way to split a stream, in NumPy alone.

    samples -> frames -> spectra (float64, row by row) -> exact encoder -> latents -> codes, codebook by codebook
    codes -> sums of code vectors -> exact decoder -> spectra -> inverse FFT and overlap-add (float64, row by row)

`CodecAnalysis` and `CodecSynthesis` hold no state: it is given to each step, and no step changes it.

Shape letters: n samples and f frames of a piece, S frequencies, D latents, K codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend.framing import Framing, FramingState
from multitok.nets.causal.exact import CausalState, ExactCausalNet
from multitok.nets.codec_config import CodecConfig
from multitok.nets.istft import InverseStft, IstftState
from multitok.quantize.residual import ResidualQuantizer

# Below this magnitude to the power of 3/4 a frequency counts as so loud: it keeps divisions finite.
LEAST_DIVISOR = 1e-6
# Magnitudes of 1 leave the decoder as ones of 10, so that its outputs are of the order of 1.
SPECTRUM_SCALE = 10.0


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
        overlap, samples = self._istft.step(state.overlap, spectra(parts))
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


def spectra(parts: NDArray[np.float32]) -> NDArray[np.complex128]:
    """The spectra that the decoder's outputs stand for: c |c|^2, so that small outputs are quiet.

    Args:
        parts: [f, 2 S], real parts, then imaginary ones.

    Returns:
        [f, S].
    """
    real, imag = np.split(parts.astype(np.float64), 2, axis=1)
    power = (real * real + imag * imag) * SPECTRUM_SCALE
    found = np.empty(real.shape, np.complex128)
    found.real, found.imag = real * power, imag * power
    return found


def _part(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
