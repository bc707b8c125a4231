"""Sound by a small neural codec in exact arithmetic: K codes for every hop, as few or as many as the bitrate allows.

    samples -> spectra -> causal net -> latents -> residual VQ -> codes [K, F]        `multitok.nets.codec_exact`
    codes of the first k codebooks -> latents -> causal net -> spectra -> samples

What is equal to what, bit for bit, both ways: pieces of a stream to the whole, a batch to single calls, any number of
threads. Codes of the first k codebooks are those of `first_codebooks(k)`, and decode by themselves: so one recording
of all codebooks serves every bitrate.

A code depends on the sound before it, as far as the net reaches, and on `encoder_lookahead_s` after its hop; decoded
sound waits for `decoder_lookahead_s` of codes more.

Shape letters: N samples, K codebooks, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.nets.codec_config import CodecConfig
from multitok.nets.codec_exact import CodecAnalysis, CodecSynthesis, ExactCodec
from multitok.protocol import Codes, Json, Modality, TokenizerSpec, Waveform
from multitok.tokenizers._audio_stream import AudioDecoderStream
from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

    from multitok.nets.codec import CodecModule


class AudioCodec(AudioStreamTokenizer):
    """Waveforms of any rate and channel count <-> codes [K, F] of a neural codec.

    Args:
        codec: What runs.
        num_codebooks: How many codebooks to use, the first ones; None for all.
        name: Name inside a vocabulary.

    Raises:
        SpecError: The codec has fewer codebooks.
    """

    def __init__(self, codec: ExactCodec, *, num_codebooks: int | None = None, name: str = "audio") -> None:
        config = codec.config
        count = config.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= count <= config.num_codebooks:
            raise SpecError(f"num_codebooks={count}: this codec has 1 to {config.num_codebooks}")
        self._codec = codec
        self._spec = TokenizerSpec(
            kind="audio-codec",
            name=name,
            modality=Modality.AUDIO,
            codebook_sizes=config.codebook_sizes[:count],
            grid_axes=("t",),
            stride=(config.hop_length,),
            sample_rate_hz=config.sample_rate_hz,
        )
        self._machine = codec.analysis(count)
        self._module: CodecModule | None = None

    @property
    def spec(self) -> TokenizerSpec:
        """K codebooks over ("t",), one frame per hop."""
        return self._spec

    @property
    def codec(self) -> ExactCodec:
        """The codec, with all its codebooks."""
        return self._codec

    @property
    def level_droppable(self) -> bool:
        """True: any number of first codebooks decodes."""
        return True

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second."""
        return self._codec.config.frame_rate_hz

    @property
    def bitrate_bps(self) -> float:
        """Bits a second of all codebooks of this tokenizer."""
        return self._codec.config.bitrate_bps(self._spec.num_codebooks)

    @property
    def encoder_lookahead_s(self) -> float:
        """Seconds after the end of its hop that a code depends on."""
        return self._codec.config.encoder_lookahead_samples / self._codec.config.sample_rate_hz

    @property
    def decoder_lookahead_s(self) -> float:
        """Seconds of codes by which decoded sound lags behind its own."""
        return self._codec.config.decoder_lookahead_samples / self._codec.config.sample_rate_hz

    @property
    def module(self) -> CodecModule:
        """The same tokenizer as an `nn.Module` for tensors, to be used inside a training loop.

        `encode(samples [B, N]) -> codes [B, K, F]`, `decode(codes)`, a differentiable `forward(samples)`.
        """
        if self._module is None:
            from multitok.nets.codec import CodecModule

            self._module = CodecModule(self._codec, self._spec.num_codebooks)
        return self._module

    def first_codebooks(self, count: int) -> Self:
        """The tokenizer of the first codebooks: its codes are the first rows of this one's.

        Args:
            count: From 1 to the number of codebooks of this tokenizer.

        Raises:
            SpecError: There are not that many.
        """
        if not 1 <= count <= self._spec.num_codebooks:
            raise SpecError(f"first_codebooks({count}): give 1 to {self._spec.num_codebooks}")
        return type(self)(self._codec, num_codebooks=count, name=self._spec.name)

    def at_bitrate(self, bps: float) -> Self:
        """The tokenizer of as many first codebooks as a bitrate allows.

        Args:
            bps: Bits a second; at least those of one codebook.

        Raises:
            SpecError: Not even one codebook fits.
        """
        counts = range(1, self._spec.num_codebooks + 1)
        fitting = [count for count in counts if self._codec.config.bitrate_bps(count) <= bps]
        if not fitting:
            raise SpecError(f"{bps:g} bit/s: one codebook takes {self._codec.config.bitrate_bps(1):g}; give as much")
        return self.first_codebooks(fitting[-1])

    def decode(self, codes: Codes, /, *, num_codebooks: int | None = None) -> Waveform:
        """The sound that codes stand for.

        Args:
            codes: All codebooks over F frames with extent (N,), F = ceil(N / hop), or the first `num_codebooks`.
            num_codebooks: How many codebooks to decode, the first ones; None takes all.

        Returns:
            One channel of exactly N samples at the tokenizer's rate; finite.

        Raises:
            ShapeError: The grid does not fit the extent, or `codes` does not have these codebooks.
            CodeRangeError: A code lies outside its codebook.
            SpecError: There are fewer codebooks.
        """
        if num_codebooks is None:
            return super().decode(codes)
        first = self.first_codebooks(num_codebooks)
        if codes.num_codebooks != num_codebooks:
            self._spec.check(codes)
            codes = Codes(codes.values[:num_codebooks], codes.extent)
        return first.decode(codes)

    def decode_stream(self, *, num_codebooks: int | None = None) -> AudioDecoderStream:
        """Decode codes as they come; the pieces' samples, joined, are those of the whole clip.

        Args:
            num_codebooks: How many codebooks the codes will have, the first ones; None for all.

        Returns:
            A stream for one clip.

        Raises:
            SpecError: There are fewer codebooks.
        """
        count = self._spec.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= count <= self._spec.num_codebooks:
            raise SpecError(f"num_codebooks={count}: this tokenizer has 1 to {self._spec.num_codebooks}")
        spec = replace(self._spec, codebook_sizes=self._spec.codebook_sizes[:count])
        return AudioDecoderStream(spec, self._synthesis())

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {
            "codec": self._codec.config.to_json(),
            "num_codebooks": self._spec.num_codebooks,
            "name": self._spec.name,
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The codec's weights and all its codebooks."""
        return self._codec.tensors()

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from what `get_config` and `get_tensors` returned.

        Raises:
            SpecError: A field or a tensor is missing, left over or of another form, or a value cannot be.
        """
        if missing := {"codec", "num_codebooks", "name"} - config.keys():
            raise SpecError(f"the configuration lacks {', '.join(sorted(missing))}: copy the whole of it")
        options = {key: value for key, value in config.items() if key != "codec"}
        return cls(ExactCodec(CodecConfig.from_json(config["codec"]), tensors), **options)

    def _analysis(self) -> CodecAnalysis:
        return self._machine

    def _synthesis(self) -> CodecSynthesis:
        return self._codec.synthesis()
