"""Sound to codes and back, piece by piece: the two machines that a tokenizer gives, and the streams around them.

An `Analysis` (samples -> codes) and a `Synthesis` (codes -> samples) have explicit state, and their results do not
depend on where their input is cut. The streams add what all tokenizers have in common: rates and channels, checks,
pieces of bounded size, and the ends of a clip. `_audio_tokenizer.py` makes a tokenizer of them.

    samples   |  hop 0  |  hop 1  |  hop 2  |               F = ceil(N / hop) frames, whatever a net looks ahead;
    codes     |    0    |    1    |    2    |               behind the end there is silence

Shape letters: C channels, N samples, K codebooks, F frames, n and f those of a piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError
from multitok.frontend.resample import PIECE_SAMPLES, MonoStream, check_samples
from multitok.protocol import Codes, TokenizerSpec

if TYPE_CHECKING:
    from typing_extensions import Self

PIECE_FRAMES = 1024  # decoded at once: what bounds the memory


class Analysis(Protocol):
    """Mono samples at the tokenizer's rate -> codes. States are immutable; the split into steps does not show."""

    def initial_state(self) -> Any:
        """The state before the first sample."""

    def step(self, state: Any, samples: NDArray[np.float32], /) -> tuple[Any, NDArray[np.int32]]:
        """The state after `samples` [n], any n, and the codes [K, f] that are known now and were not before."""

    def finish(self, state: Any, /) -> NDArray[np.int32]:
        """The codes [K, f] that are left: with those before, ceil(N / hop) frames."""


class Synthesis(Protocol):
    """Codes -> mono samples at the tokenizer's rate. States are immutable; the split into steps does not show."""

    def initial_state(self) -> Any:
        """The state before the first frame."""

    def step(self, state: Any, values: NDArray[np.int32], /) -> tuple[Any, NDArray[np.float32]]:
        """The state after the codes [K, f], any f, and the samples [n] that are known now and were not before."""

    def finish(self, state: Any, /) -> NDArray[np.float32]:
        """The samples [n] that are left: with those before, F * hop of them."""


class AudioEncoderStream:
    """Samples in, codes of complete frames out; `flush` gives the rest. For one clip and one thread.

    At the end of a `with` block the stream is closed: what was not flushed by then is dropped.

    Args:
        spec: Of the tokenizer.
        analysis: What encodes.
        sample_rate_hz: Rate of the samples that will be pushed.
        channels: How many channels they will have; averaged.

    Raises:
        InputError: The rate or the number of channels is below 1.
    """

    def __init__(self, spec: TokenizerSpec, analysis: Analysis, *, sample_rate_hz: int, channels: int = 1) -> None:
        if sample_rate_hz < 1 or channels < 1:
            raise InputError(f"sample_rate_hz={sample_rate_hz}, channels={channels}: give at least 1 of each")
        assert spec.sample_rate_hz is not None
        self._spec = spec
        self._analysis = analysis
        self._state = analysis.initial_state()
        self._rate_hz = sample_rate_hz
        self._channels = channels
        self._mono = MonoStream(sample_rate_hz, channels, spec.sample_rate_hz)
        self._num_pushed = 0  # at the rate of the samples
        self._num_frames = 0
        self._is_open = True

    @property
    def num_samples(self) -> int:
        """N: samples so far, counted at the tokenizer's rate; after `flush` the extent of the clip's codes."""
        return self._mono.num_samples

    def push(self, samples: NDArray[np.floating[Any]], /) -> NDArray[np.int32]:
        """Take the next samples. Refused ones leave the stream as it was.

        Args:
            samples: [n], or [C, n], floating point with full scale 1; any n, also 0. Not kept.

        Returns:
            [K, f] int32: the codes that are known now and were not before; f may be 0.

        Raises:
            ShapeError: Another number of channels than the stream's.
            InputError: Integers, a sample that is not finite or far beyond full scale, or the stream has ended.
        """
        self._check_open()
        piece = _as_channels(samples, self._channels)
        check_samples(piece, self._rate_hz, first=self._num_pushed)
        self._num_pushed += piece.shape[1]
        starts = range(0, piece.shape[1], PIECE_SAMPLES)
        return self._joined([self._step(self._mono.push(piece[:, i : i + PIECE_SAMPLES])) for i in starts])

    def flush(self) -> NDArray[np.int32]:
        """End the clip.

        Returns:
            [K, f] int32: the codes that are left; none for a stream without samples.

        Raises:
            InputError: The stream has ended before.
        """
        self._check_open()
        codes = self._joined([self._step(self._mono.flush()), self._analysis.finish(self._state)])
        self.close()
        assert self._num_frames == -(-self.num_samples // self._spec.stride[0])
        return codes

    def close(self) -> None:
        """End the stream and drop what was not flushed; closing twice does no harm."""
        self._is_open, self._state = False, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _step(self, mono: NDArray[np.float32]) -> NDArray[np.int32]:
        self._state, values = self._analysis.step(self._state, mono)
        return values

    def _joined(self, parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
        codes = np.concatenate([np.empty((self._spec.num_codebooks, 0), np.int32), *parts], axis=1)
        self._num_frames += codes.shape[1]
        return codes

    def _check_open(self) -> None:
        if not self._is_open:
            raise InputError("this stream has ended, and its clip with it: begin another one with stream()")


class AudioDecoderStream:
    """Codes in, samples out; `flush` gives the rest. For one clip and one thread.

    Args:
        spec: Of the tokenizer.
        synthesis: What decodes.
    """

    def __init__(self, spec: TokenizerSpec, synthesis: Synthesis) -> None:
        self._spec = spec
        self._synthesis = synthesis
        self._state = synthesis.initial_state()
        self._held = np.empty(0, np.float32)
        self._num_frames = 0
        self._num_out = 0
        self._is_open = True

    def push(self, values: NDArray[np.integer[Any]], /) -> NDArray[np.float32]:
        """Take the next codes. Refused ones leave the stream as it was.

        Args:
            values: [K, f] integers, any f, also 0. Not kept.

        Returns:
            [n] float32: samples that are known now and were not before, never those of the last frame, which `flush`
            may have to crop.

        Raises:
            ShapeError: Not [K, f], or the stream has ended.
            CodeRangeError: A code lies outside its codebook.
        """
        self._check_open()
        hop = self._spec.stride[0]
        codes = Codes(np.array(values), np.shape(values)[1:])
        self._spec.check(codes)
        for start in range(0, codes.grid[0], PIECE_FRAMES):
            self._state, samples = self._synthesis.step(self._state, codes.values[:, start : start + PIECE_FRAMES])
            self._held = np.concatenate([self._held, samples])
        self._num_frames += codes.grid[0]
        return self._released((self._num_frames - 1) * hop)

    def flush(self, num_samples: int | None = None) -> NDArray[np.float32]:
        """End the clip.

        Args:
            num_samples: N, the clip's length, F = ceil(N / hop); None for whole frames.

        Returns:
            [n] float32: the samples that are left.

        Raises:
            ShapeError: The codes so far are not those of N samples, or the stream has ended.
        """
        self._check_open()
        hop = self._spec.stride[0]
        total = self._num_frames * hop if num_samples is None else num_samples
        check_extent(self._num_frames, total, hop)
        self._held = np.concatenate([self._held, self._synthesis.finish(self._state)])
        assert self._num_out + self._held.size == self._num_frames * hop
        self.close()
        return self._released(total)

    def close(self) -> None:
        """End the stream; closing twice does no harm."""
        self._is_open, self._state = False, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _released(self, until: int) -> NDArray[np.float32]:
        num = max(min(until - self._num_out, self._held.size), 0)
        samples, self._held = self._held[:num], self._held[num:]
        self._num_out += num
        return samples

    def _check_open(self) -> None:
        if not self._is_open:
            raise ShapeError("this stream has ended, and its clip with it: begin another one with decode_stream()")


def check_extent(num_frames: int, num_samples: int, hop_length: int) -> None:
    """Raise unless `num_samples` have `num_frames` frames.

    Raises:
        ShapeError: They have another number.
    """
    wanted = -(-num_samples // hop_length)
    if num_frames != wanted:
        raise ShapeError(
            f"{num_frames} frames of codes for {num_samples} samples: at {hop_length} samples a frame, "
            f"{wanted} belong to them"
        )


def _as_channels(samples: NDArray[Any], channels: int) -> NDArray[np.float32]:
    """Floating-point samples [C, n]."""
    samples = np.asarray(samples)
    if samples.dtype.kind != "f":
        raise InputError(
            f"samples of dtype {samples.dtype}: give floating point with full scale 1; of 16 bits, samples / 32768"
        )
    piece = samples[None] if samples.ndim == 1 else samples
    if piece.ndim != 2 or len(piece) != channels:
        wanted = "[n] or [1, n]" if channels == 1 else f"[{channels}, n]"
        raise ShapeError(
            f"samples of shape {list(samples.shape)} for a stream of {channels} channels: give {wanted}; "
            "[n, channels], as sound devices have it, is to be transposed, and another count needs another stream"
        )
    return piece.astype(np.float32, copy=False)
