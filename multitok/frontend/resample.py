"""Sound at any rate and channel count -> one channel at one rate, whole or piece by piece.

Channels are averaged, added up in their order; then soxr's band-limited filter changes the rate. Both give the same
bits for any split into pieces (`MonoStream`), and `to_mono` is one such stream, so a clip's samples depend on the clip
and nothing else. The filter looks ahead: a stream gives a sample some milliseconds after it came.

Shape letters: C channels, N samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.protocol import Waveform

if TYPE_CHECKING:
    import soxr

# 60 dB above full scale: what lies higher are integers that were never divided by their full scale.
MAX_PEAK = 1_000.0
PIECE_SAMPLES = 1 << 16  # of each channel, resampled at once: what bounds the memory


def num_resampled(num_samples: int, from_hz: int, to_hz: int) -> int:
    """Samples that `num_samples` at `from_hz` become at `to_hz`: the exact length rounded up."""
    return -(-num_samples * to_hz // from_hz)


def to_mono(wave: Waveform, sample_rate_hz: int) -> NDArray[np.float32]:
    """One channel at `sample_rate_hz`.

    A clip that has this form already is passed on without a copy.

    Args:
        wave: Any number of channels, any rate.
        sample_rate_hz: The wanted rate.

    Returns:
        [num_resampled(N)] float32.

    Raises:
        InputError: No sample, a sample that is not finite, or samples far beyond full scale.
    """
    samples = wave.samples
    check_not_empty(samples)
    check_samples(samples, wave.sample_rate_hz)
    if len(samples) == 1 and wave.sample_rate_hz == sample_rate_hz:
        mono: NDArray[np.float32] = samples[0]
        return mono
    stream = MonoStream(wave.sample_rate_hz, len(samples), sample_rate_hz)
    starts = range(0, samples.shape[1], PIECE_SAMPLES)
    return np.concatenate([*(stream.push(samples[:, i : i + PIECE_SAMPLES]) for i in starts), stream.flush()])


class MonoStream:
    """Sound in pieces -> one channel at one rate, in pieces: joined, they are what `to_mono` gives, bit for bit.

    Args:
        from_hz: Rate of the pieces.
        channels: C of the pieces.
        to_hz: The wanted rate.
    """

    def __init__(self, from_hz: int, channels: int, to_hz: int) -> None:
        self._rates_hz = (from_hz, to_hz)
        self._channels = channels
        self._num_in = self._num_out = 0
        self._resampler: soxr.ResampleStream | None = None
        if from_hz != to_hz:
            import soxr

            self._resampler = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")

    @property
    def num_samples(self) -> int:
        """Samples, at the wanted rate, of all that was pushed: what it gives until it is flushed, and then in all."""
        return num_resampled(self._num_in, *self._rates_hz)

    def push(self, samples: NDArray[np.float32], /) -> NDArray[np.float32]:
        """The next piece.

        Args:
            samples: [C, N], checked by `check_samples`; not kept.

        Returns:
            [M] float32, the samples that are known now; an array of their own.
        """
        # One channel after the other: NumPy's own mean adds in an order that depends on layout and length.
        mono = samples[0].copy()
        for channel in samples[1:]:
            mono += channel
        mono /= np.float32(self._channels)
        self._num_in += mono.size
        return self._resampled(mono, last=False)

    def flush(self) -> NDArray[np.float32]:
        """What is left, as if silence followed; ends the stream."""
        rest = self._resampled(np.zeros(0, np.float32), last=True)
        # soxr rounds the length its own way; the last sample of a clip is within a sample of silence.
        return np.concatenate([rest, np.zeros(self.num_samples - self._num_out, np.float32)])

    def _resampled(self, mono: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        if self._resampler is None:
            out = mono
        else:
            out = self._resampler.resample_chunk(mono, last=last)[: self.num_samples - self._num_out]
        self._num_out += out.size
        return out


def check_not_empty(samples: NDArray[Any]) -> None:
    """Raise for a clip [C, N] without samples.

    Raises:
        InputError: N is 0.
    """
    if samples.shape[1] == 0:
        raise InputError(
            f"a waveform of {samples.shape[0]} channels and no samples: there is nothing to encode; leave it out"
        )


def check_samples(samples: NDArray[np.float32], sample_rate_hz: int, *, first: int = 0) -> None:
    """Raise unless every sample is finite and on the scale of sound.

    Args:
        samples: [C, N].
        sample_rate_hz: Their rate.
        first: Place of the first one in its clip.

    Raises:
        InputError: A sample that is not finite, or samples far beyond full scale.
    """
    if samples.size == 0:
        return
    low, high = samples.min(), samples.max()  # both propagate NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        column = int((~np.isfinite(samples)).any(axis=0).argmax())
        channel = int((~np.isfinite(samples[:, column])).argmax())
        index = first + column
        raise InputError(
            f"sample {index} of channel {channel} (at {index / sample_rate_hz:.3f} s) is "
            f"{samples[channel, column]}: give finite samples; cut the clip there, or use np.nan_to_num"
        )
    peak = max(-float(low), float(high))
    if peak > MAX_PEAK:
        raise InputError(
            f"samples reach {peak:.0f}, full scale is 1: divide integer samples by their full scale "
            "(32768 for 16 bits) before making a Waveform"
        )
