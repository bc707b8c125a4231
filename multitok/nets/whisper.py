"""Whisper's encoder up to one of its layers, in float32, for windows of one length.

    log-mel [2 T, M] -> convolution -> convolution, stride 2 -> + positions -> layers -> hidden states [T, D]

It looks at the whole window, to both sides: not causal. Weights may be held as int8 with one scale for each output
value; they are multiplied out when the encoder is made.

Shape letters: T frames (50 a second), M mel bands, D channels, O output values of a linear map, I its input values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from multitok.errors import ShapeError, SpecError
from multitok.nets.one_thread import one_thread

LONGEST_PERIOD = 10_000
MAX_FRAMES = 1_500
MATRICES = ("attention.in", "attention.out", "feed_forward.in", "feed_forward.out")
NORMS = ("attention.norm", "feed_forward.norm")


@dataclass(frozen=True)
class WhisperConfig:
    """Shape of a Whisper encoder.

    Args:
        width: D.
        heads: Attention heads; they divide the width.
        layers: Layers that are run: the hidden states are those after the last of them.
        num_mels: M.

    Raises:
        SpecError: A size is below 1, or the heads do not divide the width.
    """

    width: int
    heads: int
    layers: int
    num_mels: int = 80

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.layers, self.num_mels) < 1 or self.width % (2 * self.heads):
            raise SpecError(f"{self}: give sizes of at least 1, an even number of channels for each head")

    def to_json(self) -> dict[str, Any]:
        """JSON values that rebuild it."""
        return asdict(self)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by its name; matrices are [O, I], convolutions [O, taps * I] with the tap first."""
        d = self.width
        shapes: dict[str, tuple[int, ...]] = {
            "conv_1.weight": (d, 3 * self.num_mels), "conv_1.bias": (d,), "conv_2.weight": (d, 3 * d),
            "conv_2.bias": (d,),
        }  # fmt: skip
        sizes = {"attention.in": (3 * d, d), "attention.out": (d, d)}
        sizes |= {"feed_forward.in": (4 * d, d), "feed_forward.out": (d, 4 * d)}
        for i in range(self.layers):
            for name in MATRICES:
                shapes[f"layer_{i}.{name}.weight"] = sizes[name]
                shapes[f"layer_{i}.{name}.bias"] = sizes[name][:1]
            for name in NORMS:
                shapes |= {f"layer_{i}.{name}.weight": (d,), f"layer_{i}.{name}.bias": (d,)}
        return shapes


class WhisperEncoder:
    """A Whisper encoder; immutable, so threads may share it (they take turns).

    Args:
        config: Its shape.
        tensors: Floating point by the names of `config.shapes()`; a matrix may be int8 with "NAME.scale" [O] beside it.

    Raises:
        SpecError: A tensor is missing, superfluous, of another shape or not finite.
    """

    def __init__(self, config: WhisperConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        self._weights = _multiplied_out(config, tensors)
        self._positions = positions(config.width)

    def hidden_states(self, log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the last layer gives, without the norm that ends the whole encoder.

        Args:
            log_mel: [2 T, M], T at most 1,500.

        Returns:
            [T, D].

        Raises:
            ShapeError: Another shape.
        """
        if log_mel.ndim != 2 or log_mel.shape[1] != self.config.num_mels or len(log_mel) not in range(
            2, 2 * MAX_FRAMES + 1, 2
        ):  # fmt: skip
            raise ShapeError(
                f"log-mel of shape {list(log_mel.shape)}: give [frames, {self.config.num_mels}], an even number of "
                f"frames up to {2 * MAX_FRAMES}"
            )
        with one_thread():
            x = functional.gelu(self._linear("conv_1", _three_taps(torch.from_numpy(log_mel), stride=1)))
            x = functional.gelu(self._linear("conv_2", _three_taps(x, stride=2)))
            x = x + self._positions[: len(x)]
            for i in range(self.config.layers):
                x = x + self._attention(f"layer_{i}.attention", x)
                x = x + self._feed_forward(f"layer_{i}.feed_forward", x)
            states: NDArray[np.float32] = x.numpy()
        return states

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self._weights[f"{name}.norm.weight"], self._weights[f"{name}.norm.bias"]
        )

    def _attention(self, name: str, x: Tensor) -> Tensor:
        joined = self._linear(f"{name}.in", self._norm(name, x))
        # [T, 3 D] -> queries, keys, values, each [heads, T, D / heads]
        queries, keys, values = joined.view(len(x), 3, self.config.heads, -1).permute(1, 2, 0, 3).unbind()
        scores = torch.matmul(queries, keys.transpose(1, 2)) * (queries.shape[-1] ** -0.5)
        mixed = torch.matmul(scores.softmax(dim=-1), values)
        return self._linear(f"{name}.out", mixed.transpose(0, 1).flatten(1))

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        return self._linear(f"{name}.out", functional.gelu(self._linear(f"{name}.in", self._norm(name, x))))


def positions(width: int) -> Tensor:
    """[1500, D]: sines, then cosines, of periods from 2 pi to 10,000 times as much.

    Source:
        OpenAI whisper, `model.py`, `sinusoids`.
    """
    rates = np.exp(-math.log(LONGEST_PERIOD) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(MAX_FRAMES)[:, None] * rates
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32))


def in_int8(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The same tensors with matrices rounded to int8, one scale for each output value, and the rest in float16."""
    held: dict[str, NDArray[Any]] = {}
    for name, value in tensors.items():
        if value.ndim == 2:
            scale = np.maximum(np.abs(value).max(axis=1), np.float32(1e-8)).astype(np.float32) / 127
            held[name] = np.rint(value / scale[:, None]).astype(np.int8)
            held[f"{name.removesuffix('.weight')}.scale"] = scale
        else:
            held[name] = value.astype(np.float16)
    return held


def _three_taps(x: Tensor, stride: int) -> Tensor:
    """[T, I] -> [T / stride, 3 I]: each frame with the one before and the one after, zeros outside."""
    padded = functional.pad(x, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + len(x) : stride] for tap in range(3)], dim=1)


def _multiplied_out(config: WhisperConfig, tensors: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    shapes, used = config.shapes(), set()
    weights = {}
    for name, shape in shapes.items():
        value = tensors.get(name)
        if value is None or value.shape != shape:
            given = "missing" if value is None else f"of shape {list(value.shape)}"
            raise SpecError(f"Whisper encoder: {name} is {given}, {list(shape)} belongs to {config}")
        used.add(name)
        weight = value.astype(np.float32)
        if value.dtype == np.int8:
            scale = f"{name.removesuffix('.weight')}.scale"
            if scale not in tensors or tensors[scale].shape != shape[:1]:
                raise SpecError(f"Whisper encoder: {name} is int8, and {scale} [{shape[0]}] is not there")
            used.add(scale)
            weight *= tensors[scale].astype(np.float32)[:, None]
        if not np.isfinite(weight).all():
            raise SpecError(f"Whisper encoder: {name} holds a value that is not finite: the file is damaged")
        weights[name] = torch.from_numpy(weight)
    if surplus := tensors.keys() - used:
        raise SpecError(f"Whisper encoder: {min(surplus)} is unexpected, it belongs to another configuration")
    return weights
