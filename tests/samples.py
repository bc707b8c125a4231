"""Small synthetic raw items of every modality, of at least two sizes each, deterministic."""

from __future__ import annotations

from typing import Any

import numpy as np

from multitok.protocol import Modality, Tokenizer, Waveform


def raws(tokenizer: Tokenizer[Any]) -> list[Any]:
    """Raw items that `tokenizer` must take: odd sizes, the smallest size, typical content."""
    rng = np.random.default_rng(0)
    modality = tokenizer.spec.modality
    if modality is Modality.TEXT:
        return ["Hello, world!", "naïve café, 東京 🗼 \u200d\n\t  x" * 3, "a", "🏳️‍🌈\x00\r\n"]
    if modality is Modality.IMAGE:
        return [_image(rng, 17, 33), _image(rng, 8, 8), _image(rng, 1, 1), _image(rng, 40, 16)]
    if modality is Modality.VIDEO:
        return [
            np.stack([_image(rng, 17, 24) for _ in range(5)]),
            np.stack([_image(rng, 8, 9)]),
            _image(rng, 1, 1)[None],
        ]
    if modality is Modality.VOLUME:
        return [rng.random((5, 9, 7), dtype=np.float32), rng.random((1, 1, 1), dtype=np.float32)]
    if modality is Modality.AUDIO:
        rate = tokenizer.spec.sample_rate_hz or 16_000
        return [_tone(rate, rate // 2 + 7), _tone(rate, rate // 5), _tone(rate, 1)]
    if modality is Modality.SERIES:
        walk = rng.standard_normal((101, 2)).cumsum(axis=0).astype(np.float32)
        walk[40:43, 1] = np.nan
        return [walk, walk[:1], np.zeros((16, 2), np.float32), (walk * 1e-6 + 300).astype(np.float32)]
    if "protein" in tokenizer.spec.name:
        return ["MKTAYIAKQRQISFVKSHFSRQ", "MXB*", "mktAYIAkqr"]
    return ["ACGTTGCATGCCGANNNNNNNNNNACGT", "A", "acgtACGTnnRYacgtagct"]


def _image(rng: np.random.Generator, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    ramp = np.linspace(0, 180, height)[:, None, None] + np.linspace(0, 40, width)[None, :, None]
    return (ramp + rng.integers(0, 36, (height, width, 3))).astype(np.uint8)


def _tone(rate: int, num_samples: int) -> Waveform:
    t = np.arange(num_samples) / rate
    return Waveform((0.4 * np.sin(2 * np.pi * 330 * t) + 0.1 * np.sin(2 * np.pi * 1900 * t)).astype(np.float32), rate)
