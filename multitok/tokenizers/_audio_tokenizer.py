"""What sound tokenizers that work piece by piece have in common: clips, long files and live sound take one way.

    codes = tokenizer.encode(waveform)                      waveform = tokenizer.decode(codes)

    for codes in tokenizer.encode_chunks(waveforms):        for samples in tokenizer.decode_chunks(parts):
        send(codes)                                             play(samples)

    with tokenizer.stream(sample_rate_hz=48_000) as stream:
        for samples in microphone:
            send(stream.push(samples))
        send(stream.flush())

All give the same bits. A tokenizer tells how samples become codes and codes samples (`Analysis`, `Synthesis` of
`_audio_stream.py`), and this class does the rest: rates and channels, checks, pieces of bounded size.

Shape letters: N samples, K codebooks, F frames, n and f those of a piece.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend.resample import PIECE_SAMPLES, check_not_empty, num_resampled
from multitok.protocol import Codes, TokenizerBase, Waveform
from multitok.tokenizers._audio_stream import (
    PIECE_FRAMES,
    Analysis,
    AudioDecoderStream,
    AudioEncoderStream,
    Synthesis,
    check_extent,
)


class AudioStreamTokenizer(TokenizerBase[Waveform]):
    """Waveforms of any rate and channel count <-> codes [K, F], whole or piece by piece, with the same bits.

    A tokenizer gives `spec` (one grid axis, its stride the hop, with a sample rate), `_analysis` and `_synthesis`.
    """

    @abstractmethod
    def _analysis(self) -> Analysis:
        """What encodes; shared by streams, so without state of its own."""

    @abstractmethod
    def _synthesis(self) -> Synthesis:
        """What decodes; shared by streams, so without state of its own."""

    def encode(self, raw: Waveform, /) -> Codes:
        """Codes [K, F] of a clip, F = ceil(N / hop) for N samples at the tokenizer's rate.

        Args:
            raw: Channels are averaged, other rates resampled.

        Returns:
            Codes with extent (N,).

        Raises:
            InputError: No sample, a sample that is not finite, or samples far beyond full scale.
        """
        check_not_empty(raw.samples)
        assert self.spec.sample_rate_hz is not None
        channels, length = raw.samples.shape
        num_samples = num_resampled(length, raw.sample_rate_hz, self.spec.sample_rate_hz)
        values = np.empty((self.spec.num_codebooks, -(-num_samples // self.spec.stride[0])), np.int32)
        stream = self.stream(sample_rate_hz=raw.sample_rate_hz, channels=channels)
        filled = 0
        for start in range(0, length, PIECE_SAMPLES):
            piece = stream.push(raw.samples[:, start : start + PIECE_SAMPLES])
            values[:, filled : filled + piece.shape[1]] = piece
            filled += piece.shape[1]
        values[:, filled:] = stream.flush()
        return Codes(values, (num_samples,))

    def decode(self, codes: Codes, /) -> Waveform:
        """The sound that codes stand for.

        Args:
            codes: [K, F] with extent (N,), F = ceil(N / hop).

        Returns:
            One channel of exactly N samples at the tokenizer's rate; finite.

        Raises:
            ShapeError: The grid does not fit the extent, or the codes are not of this kind.
            CodeRangeError: A code lies outside its codebook.
        """
        assert self.spec.sample_rate_hz is not None
        self.spec.check(codes)
        check_extent(codes.grid[0], codes.extent[0], self.spec.stride[0])
        stream, num_frames = self.decode_stream(), codes.grid[0]
        samples = np.empty(codes.extent[0], np.float32)
        filled = 0
        for start in range(0, num_frames, PIECE_FRAMES):
            piece = stream.push(codes.values[:, start : start + PIECE_FRAMES])
            samples[filled : filled + piece.size] = piece
            filled += piece.size
        samples[filled:] = stream.flush(samples.size)
        return Waveform(samples, self.spec.sample_rate_hz)

    def stream(self, *, sample_rate_hz: int | None = None, channels: int = 1) -> AudioEncoderStream:
        """Encode sound as it comes; the pieces' codes, joined, are those of the whole clip.

        Args:
            sample_rate_hz: Rate of the samples that will be pushed; None for the tokenizer's own.
            channels: How many channels they will have; averaged.

        Returns:
            A stream for one clip.

        Raises:
            InputError: The rate or the number of channels is below 1.
        """
        rate_hz = self.spec.sample_rate_hz if sample_rate_hz is None else sample_rate_hz
        assert rate_hz is not None
        return AudioEncoderStream(self.spec, self._analysis(), sample_rate_hz=rate_hz, channels=channels)

    def decode_stream(self) -> AudioDecoderStream:
        """Decode codes as they come; the pieces' samples, joined, are those of the whole clip."""
        return AudioDecoderStream(self.spec, self._synthesis())

    def encode_chunks(self, chunks: Iterable[Waveform]) -> Iterator[Codes]:
        """Encode a clip that comes in chunks, in memory that does not grow with its length.

        Args:
            chunks: Any lengths, of one rate and channel count; read as codes are asked for.

        Yields:
            Codes of the frames that are complete; only the last ones' extent may be one that no hop divides.

        Raises:
            ShapeError: A chunk of another number of channels than the first.
            InputError: A chunk of another rate, without any sample in all of them, or as for `encode`.
        """
        stream: AudioEncoderStream | None = None
        rate_hz = num_frames = 0
        hop = self.spec.stride[0]
        for chunk in chunks:
            if stream is None:
                rate_hz = chunk.sample_rate_hz
                stream = self.stream(sample_rate_hz=rate_hz, channels=len(chunk.samples))
            if chunk.sample_rate_hz != rate_hz:
                raise InputError(
                    f"a chunk at {chunk.sample_rate_hz} Hz after some at {rate_hz} Hz: a clip has one rate"
                )
            values = stream.push(chunk.samples)
            num_frames += values.shape[1]
            if values.size:
                yield Codes(values, (values.shape[1] * hop,))
        if stream is None or not stream.num_samples:
            raise InputError("chunks without any sample: there is nothing to encode; leave the clip out")
        values = stream.flush()
        if values.size:
            yield Codes(values, (stream.num_samples - num_frames * hop,))

    def decode_chunks(self, parts: Iterable[Codes]) -> Iterator[NDArray[np.float32]]:
        """Decode a clip whose codes come in parts, in memory that does not grow with its length.

        Args:
            parts: As `encode_chunks` yields them.

        Yields:
            Samples [n] at the tokenizer's rate.

        Raises:
            ShapeError: A grid does not fit its extent, or the codes are not of this kind.
            CodeRangeError: A code lies outside its codebook.
        """
        stream, num_samples = self.decode_stream(), 0
        for part in parts:
            self.spec.check(part)
            for start in range(0, part.grid[0], PIECE_FRAMES):
                samples = stream.push(part.values[:, start : start + PIECE_FRAMES])
                if samples.size:
                    yield samples
            num_samples += part.extent[0]
        samples = stream.flush(num_samples)
        if samples.size:
            yield samples
