"""Small tokenizers of speech units, made at random, and sound for them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.nets.whisper import WhisperConfig
from multitok.protocol import Waveform
from multitok.tokenizers._semantic_codebooks import Codebooks
from multitok.tokenizers._semantic_front_ends import FrontEnd
from multitok.tokenizers._semantic_windows import WhisperFrontEnd
from multitok.tokenizers._unit_bpe import UnitBpe
from multitok.tokenizers.audio_semantic import AudioSemantic

MERGES = np.array([[1, 2], [20, 3], [4, 5]], np.int32)


def tokenizer(front_end: FrontEnd, sizes: tuple[int, ...] = (20, 40)) -> AudioSemantic:
    """Codebooks, a table of sound and merges at random around a front end."""
    rng = np.random.default_rng(5)
    values = rng.normal(0, 1, (sum(sizes), front_end.dim)).astype(np.float32)
    mean, std = np.zeros(front_end.dim, np.float32), np.ones(front_end.dim, np.float32)
    units = {sizes[0]: UnitBpe(sizes[0], MERGES, np.array([0], np.int32))} if sizes[0] == 20 else {}
    return AudioSemantic(
        front_end=front_end,
        codebooks=Codebooks(values, sizes, mean, std),
        codebook_size=sizes[0],
        sound=rng.normal(-1, 0.5, (5, sizes[-1], 80)).astype(np.float16),
        units=units,
        penalties=dict.fromkeys(units, 2.5),
    )


def whisper_tensors(config: WhisperConfig, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights of a Whisper encoder at random."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(0, 1, shape) * (0.02 if len(shape) == 1 else shape[1] ** -0.5)).astype(np.float32)
        + np.float32("norm.weight" in name)
        for name, shape in config.shapes().items()
    }


def small_whisper(window_s: float = 0.4, kept_s: float = 0.2) -> WhisperFrontEnd:
    """A Whisper of 16 channels with short windows."""
    config = WhisperConfig(16, 2, 2)
    return WhisperFrontEnd(**config.to_json(), tensors=whisper_tensors(config), window_s=window_s, kept_s=kept_s)


def speech_like(num_samples: int, seed: int = 0) -> Waveform:
    """Vowels of changing pitch and timbre with pauses, 16 kHz."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / 16_000
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.9 * t + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    timbre = np.sin(2 * np.pi * np.array([[1.3], [2.1], [3.7], [0.8]]) * t + rng.uniform(0, 6, (4, 1)))
    voice = sum((1 + timbre[h % 4]) / (1 + h) * np.sin((h + 1) * phase) for h in range(20))
    loud = (np.sin(2 * np.pi * 0.7 * t + seed) > -0.5) * 0.1
    return Waveform((voice * loud + rng.normal(0, 1e-3, num_samples)).astype(np.float32), 16_000)


def ctranslate2_file(arrays: dict[str, NDArray[Any]], aliases: dict[str, str] | None = None) -> bytes:
    """A model.bin of CTranslate2, binary version 6, with these variables."""
    numbers = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", 6), text("WhisperSpec"), struct.pack("<I", 3), struct.pack("<I", len(arrays))]
    for key, value in arrays.items():
        parts += [text(key), struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)]
        parts += [struct.pack("<BI", numbers[str(value.dtype)], value.nbytes), value.tobytes()]
    parts.append(struct.pack("<I", len(aliases or {})))
    parts += [text(alias) + text(key) for alias, key in (aliases or {}).items()]
    return b"".join(parts)
