"""Whisper encoders that others have published: read from a file or a folder, cut after a layer.

    model.bin                     CTranslate2's format, of faster-whisper and others, float16 or float32
    folder/model.safetensors      transformers' `WhisperModel` or `WhisperForConditionalGeneration`

Nothing is downloaded and no code in the files is run.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.nets.whisper import WhisperConfig

HEAD_WIDTH = 64
_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}

Arrays = dict[str, NDArray[Any]]


def read_whisper(path: Path, layers: int) -> tuple[WhisperConfig, Arrays]:
    """The encoder of a published Whisper.

    Args:
        path: A CTranslate2 `model.bin`, its folder, or a folder of transformers.
        layers: How many of its layers to keep.

    Returns:
        The shape of what is kept, and float32 tensors by the names of `WhisperConfig.shapes`.

    Raises:
        CheckpointError: No such file, a damaged one, one of another model, or one with fewer layers.
    """
    file = path / "model.bin" if path.is_dir() and (path / "model.bin").is_file() else path
    if file.is_file():
        return from_ctranslate2(read_ctranslate2(file.read_bytes(), str(file)), layers)
    return _from_transformers(path, layers)


def read_ctranslate2(data: bytes, where: str) -> Arrays:
    """The variables of a CTranslate2 model by their names.

    Args:
        data: The bytes of a `model.bin`; of several files joined, where one was published in parts.
        where: What messages call it.

    Raises:
        CheckpointError: The bytes are no such model, or are cut short.

    Source:
        CTranslate2, `python/ctranslate2/specs/model_spec.py`, binary version 6.
    """
    reader = _Reader(data)
    try:
        version, name, _ = reader.number("I"), reader.text(), reader.number("I")
        if version < 4 or not name.isidentifier():
            raise ValueError(f"version {version}, model {name!r}")
        arrays: Arrays = {}
        for _ in range(reader.number("I")):
            key = reader.text()
            shape = [reader.number("I") for _ in range(reader.number("B"))]
            dtype = _DTYPES.get(reader.number("B"))
            raw = reader.take(reader.number("I"))
            # Other types (bfloat16, float8) are kept out, and missed below where they are needed.
            if dtype is not None:
                arrays[key] = np.frombuffer(raw, dtype).reshape(shape)
        for _ in range(reader.number("I")):
            alias, key = reader.text(), reader.text()
            if key in arrays:
                arrays[alias] = arrays[key]
    except (struct.error, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{where} is no whole CTranslate2 model ({error}): copy it again; parts of a model are to be joined"
        ) from error
    return arrays


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from("<" + form, self._data, self._at)
        self._at += struct.calcsize("<" + form)
        return int(value)

    def text(self) -> str:
        return self.take(self.number("H"))[:-1].decode()

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ValueError(f"{self._at + count - len(self._data)} bytes are missing")
        self._at += count
        return self._data[self._at - count : self._at]


def from_ctranslate2(arrays: Mapping[str, NDArray[Any]], layers: int) -> tuple[WhisperConfig, Arrays]:
    """An encoder's tensors from the variables of a CTranslate2 model.

    Raises:
        CheckpointError: It is no Whisper, or has fewer layers.
    """
    names = {
        "attention.norm": "self_attention/layer_norm", "attention.in": "self_attention/linear_0",
        "attention.out": "self_attention/linear_1", "feed_forward.norm": "ffn/layer_norm",
        "feed_forward.in": "ffn/linear_0", "feed_forward.out": "ffn/linear_1",
    }  # fmt: skip
    norms = {"weight": "gamma", "bias": "beta"}

    def find(layer: int | None, name: str, part: str) -> list[NDArray[Any]]:
        if layer is None:
            return [_floats(arrays, f"encoder/{name.replace('_', '')}/{part}")]
        last = norms[part] if name.endswith("norm") else part
        return [_floats(arrays, f"encoder/layer_{layer}/{names[name]}/{last}")]

    return _encoder(find, layers)


def _from_transformers(folder: Path, layers: int) -> tuple[WhisperConfig, Arrays]:
    from multitok.tokenizers._published import read_weights

    try:
        heads = int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["encoder_attention_heads"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: neither a CTranslate2 model.bin nor a Whisper of transformers ({error!r}): "
            "give a file or folder with one"
        ) from error
    prefixes = ("model.encoder.", "encoder.")
    arrays = {key: value.float().numpy() for key, value in read_weights(folder, prefixes=prefixes).items()}
    names = {
        "attention.norm": ["self_attn_layer_norm"], "attention.out": ["self_attn.out_proj"],
        "attention.in": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "feed_forward.norm": ["final_layer_norm"], "feed_forward.in": ["fc1"], "feed_forward.out": ["fc2"],
    }  # fmt: skip

    def find(layer: int | None, name: str, part: str) -> list[NDArray[Any]]:
        if layer is None:
            return [_floats(arrays, f"{name.replace('_', '')}.{part}")]
        found = []
        for one in names[name]:
            key = f"layers.{layer}.{one}.{part}"
            # Keys have no bias in Whisper.
            absent = one == "self_attn.k_proj" and part == "bias" and key not in arrays
            like = f"layers.{layer}.self_attn.q_proj.bias"
            found.append(np.zeros_like(_floats(arrays, like)) if absent else _floats(arrays, key))
        return found

    return _encoder(find, layers, heads)


def _floats(arrays: Mapping[str, NDArray[Any]], key: str) -> NDArray[np.float32]:
    value = arrays.get(key)
    if value is None or not np.issubdtype(value.dtype, np.floating):
        raise CheckpointError(
            f"{key} is {'missing' if value is None else value.dtype}: give a Whisper with enough layers, "
            "in float16 or float32"
        )
    return value.astype(np.float32)


def _encoder(
    find: Callable[[int | None, str, str], list[NDArray[Any]]], layers: int, heads: int | None = None
) -> tuple[WhisperConfig, Arrays]:
    first = find(None, "conv_1", "weight")[0]
    if first.ndim != 3 or first.shape[2] != 3:
        raise CheckpointError(f"the first convolution has shape {list(first.shape)}: this is no Whisper")
    width, num_mels, _ = first.shape
    config = WhisperConfig(width, max(width // HEAD_WIDTH, 1) if heads is None else heads, layers, num_mels)
    tensors: Arrays = {}
    for key, shape in config.shapes().items():
        name, _, part = key.rpartition(".")
        layer, name = (int(name[6:].split(".")[0]), name.split(".", 1)[1]) if name[:6] == "layer_" else (None, name)
        value = np.concatenate(find(layer, name, part))
        # Convolutions: [O, I, taps] -> [O, taps * I].
        value = value.transpose(0, 2, 1).reshape(len(value), -1) if value.ndim == 3 else value
        if value.shape != shape:
            raise CheckpointError(f"{key} has shape {list(value.shape)}, expected is {list(shape)}: this is no Whisper")
        tensors[key] = value
    return config, tensors
