"""Sound as it comes in practice, for every tokenizer of sound: what is taken, and what is refused with which words.

docs/audio.md, "What sound is accepted", states the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.frontend.media import read
from multitok.protocol import Waveform
from tests.frontend.media.samples import encoded_sound
from tests.stream_contract import sound

RATE_HZ = 16_000


def _speech() -> NDArray[np.float32]:
    return sound(4_000, RATE_HZ).samples


def _file(subtype: str, samples: NDArray[np.float32] | None = None) -> Waveform:
    raw = read(encoded_sound(_speech() if samples is None else samples, "WAV", subtype), "a.wav")
    assert isinstance(raw, Waveform)
    return raw


def _denormal() -> Waveform:
    return Waveform(np.full(500, 1e-42, np.float32), RATE_HZ)


ACCEPTED: dict[str, Callable[[], Waveform]] = {
    "clipped": lambda: Waveform(np.clip(_speech() * 9, -1, 1), RATE_HZ),
    "above full scale": lambda: Waveform(_speech() * 20, RATE_HZ),
    "DC offset": lambda: Waveform(_speech() * 0.3 + 0.6, RATE_HZ),
    "nothing but DC": lambda: Waveform(np.full(1_000, 0.9, np.float32), RATE_HZ),
    "silent": lambda: Waveform(np.zeros(3_000, np.float32), RATE_HZ),
    "denormal": _denormal,
    "1 sample": lambda: Waveform(np.array([0.5]), RATE_HZ),
    "1 sample at 384 kHz": lambda: Waveform(np.array([0.5]), 384_000),
    "8 channels": lambda: sound(4_000, 48_000, channels=8),
    "channels that cancel": lambda: Waveform(np.concatenate([_speech(), -_speech()]), RATE_HZ),
    "8 kHz": lambda: sound(1_000, 8_000),
    "384 kHz": lambda: sound(40_000, 384_000),
    "an odd rate": lambda: sound(3_000, 44_099),
    "float64": lambda: Waveform(_speech().astype(np.float64), RATE_HZ),
    "float16": lambda: Waveform(_speech().astype(np.float16), RATE_HZ),
    "8-bit WAV": lambda: _file("PCM_U8"),
    "16-bit WAV": lambda: _file("PCM_16"),
    "24-bit WAV": lambda: _file("PCM_24"),
    "32-bit WAV": lambda: _file("PCM_32"),
    "float WAV above full scale": lambda: _file("FLOAT", _speech() * 5),
    "telephone WAV (mu-law)": lambda: _file("ULAW"),
}


def _with(value: float) -> NDArray[np.float32]:
    samples = sound(900, RATE_HZ, channels=2).samples.copy()
    samples[1, 400] = value
    return samples


# Samples, and the words of the refusal.
REFUSED: dict[str, tuple[Callable[[], NDArray[Any]], str]] = {
    "0 samples": (lambda: np.zeros((2, 0), np.float32), "no samples: there is nothing to encode"),
    "NaN": (lambda: _with(np.nan), r"sample 400 of channel 1 \(at 0.025 s\) is nan"),
    "infinity": (lambda: _with(-np.inf), r"sample 400 of channel 1 \(at 0.025 s\) is -inf"),
    "16-bit integers": (lambda: (_speech() * 32_767).astype(np.int16), "dtype int16: give floating point"),
    "8-bit integers": (lambda: (_speech() * 127 + 128).astype(np.uint8), "dtype uint8: give floating point"),
    "integers as floats": (lambda: np.round(_speech() * 32_767), "divide integer samples by their full scale"),
    "complex": (lambda: _speech() * 1j, "dtype complex64: give floating point"),
    "no channels": (lambda: np.zeros((0, 10), np.float32), r"give \[channels, samples\]"),
    "three axes": (lambda: np.zeros((1, 2, 10), np.float32), r"give \[channels, samples\]"),
}
