"""Do codes stay the same when sound changes in ways that nobody hears, or that no listener minds?

| change            | what happens to the clip                                                          |
|-------------------|-----------------------------------------------------------------------------------|
| gain +6 dB, -6 dB | every sample times 2 or 1/2, not clipped                                          |
| shift by 1        | one more sample of silence before it                                              |
| noise 40, 20 dB   | white noise so far below the clip's power, from one seed                          |
| resampled         | to another rate (44,100 Hz, or 48,000 if it is that) and back, by soxr            |
| Opus 32k, MP3 64k | through the codec at so many bits a second, its delay undone                      |

Counted is the share of codes, codebook by codebook and then over all, that equal those of the clip as it is, at the
same frame. A code that is one beside the right one counts as wrong, so fine codebooks (the last of a residual VQ)
are less stable by nature: compare like with like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, SpecError
from multitok.metrics.audio_peers import AvCodec
from multitok.protocol import Codes, Tokenizer, Waveform

OPUS_BPS = 32_000
MP3_BPS = 64_000
_Change = Callable[[Waveform], Waveform]


def stability(
    tokenizer: Tokenizer[Waveform], wave: Waveform, *, codes: Codes | None = None, changes: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """Share of equal codes after each change, for each codebook.

    Args:
        tokenizer: Of sound.
        wave: The clip.
        codes: Its codes, where they are known.
        changes: Names from `CHANGES`; None takes all.

    Returns:
        Change -> [K] shares from 0 to 1.

    Raises:
        SpecError: A change is unknown.
        InputError: The clip is too short to have codes.
        MissingExtraError: PyAV is not installed, which Opus and MP3 need.
    """
    names = tuple(CHANGES) if changes is None else tuple(changes)
    unknown = [name for name in names if name not in CHANGES]
    if unknown:
        raise SpecError(f"changes {', '.join(unknown)}: known are {', '.join(CHANGES)}")
    before = tokenizer.encode(wave) if codes is None else codes
    if before.values.size == 0:
        raise InputError(f"a clip of {wave.duration_s:.3f} s has no codes that could stay equal")
    return {name: equal_share(before, tokenizer.encode(CHANGES[name](wave))) for name in names}


def equal_share(before: Codes, after: Codes) -> list[float]:
    """Share of equal codes for each codebook, over the frames that both have."""
    frames = min(before.grid[-1], after.grid[-1])
    equal = before.values[..., :frames] == after.values[..., :frames]
    return [float(row.mean()) for row in equal]


def _scaled(factor: float) -> _Change:
    return lambda wave: Waveform(wave.samples * np.float32(factor), wave.sample_rate_hz)


def _shifted(wave: Waveform) -> Waveform:
    return Waveform(np.pad(wave.samples, ((0, 0), (1, 0))), wave.sample_rate_hz)


def _noisy(snr_db: float) -> _Change:
    def change(wave: Waveform) -> Waveform:
        noise = np.random.default_rng(0).standard_normal(wave.samples.shape)
        level = np.sqrt(np.mean(wave.samples.astype(np.float64) ** 2) * 10 ** (-snr_db / 10))
        return Waveform(wave.samples + (noise * level).astype(np.float32), wave.sample_rate_hz)

    return change


def _resampled(wave: Waveform) -> Waveform:
    import soxr

    rate = wave.sample_rate_hz
    other = 48_000 if rate == 44_100 else 44_100
    there = soxr.resample(wave.samples.T, rate, other, quality="HQ")
    back: NDArray[Any] = soxr.resample(there, other, rate, quality="HQ").T
    count = wave.samples.shape[1]
    samples = np.zeros_like(wave.samples)
    samples[:, : back.shape[1]] = back[:, :count]
    return Waveform(samples, rate)


CHANGES: Mapping[str, _Change] = {
    "gain +6 dB": _scaled(2.0),
    "gain -6 dB": _scaled(0.5),
    "shift by 1": _shifted,
    "noise 40 dB": _noisy(40),
    "noise 20 dB": _noisy(20),
    "resampled": _resampled,
    "Opus 32k": lambda wave: AvCodec("Opus").round_trip(wave, OPUS_BPS),
    "MP3 64k": lambda wave: AvCodec("MP3").round_trip(wave, MP3_BPS),
}
