"""Raw values as the levels -128 to 127 that the autoencoder codes, and back: pixels, or intensities in a window.

Both ways take float64 and one order of operations, so levels and values are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError

# Levels are 8 bits wide, with 0 in the middle.
MIDDLE, TOP = 128, 255


class Levels(Protocol):
    """What becomes of raw values."""

    @property
    def dtype(self) -> type[np.generic]:
        """Of the raw values."""

    @property
    def window(self) -> tuple[float, float]:
        """Raw values of the lowest and of the highest level."""

    def encode(self, raw: NDArray[Any], /) -> NDArray[np.int16]:
        """Raw values to levels."""

    def decode(self, levels: NDArray[np.float64], /) -> NDArray[Any]:
        """Any levels, not only whole ones inside the range, to raw values."""


class PixelLevels:
    """uint8: the level is the value minus 128."""

    dtype: ClassVar[type[np.generic]] = np.uint8
    window: ClassVar[tuple[float, float]] = (0.0, 255.0)

    def encode(self, raw: NDArray[np.uint8], /) -> NDArray[np.int16]:
        """Pixel values to levels."""
        levels: NDArray[np.int16] = raw.astype(np.int16)
        levels -= MIDDLE
        return levels

    def decode(self, levels: NDArray[np.float64], /) -> NDArray[np.uint8]:
        """The nearest pixel values, halves to even."""
        values = levels + MIDDLE
        np.rint(values, out=values)
        return np.clip(values, 0, TOP, out=values).astype(np.uint8)


class WindowLevels:
    """float32: 256 equal steps from low to high; what lies outside is clipped.

    Args:
        window: (low, high), both finite, low < high.

    Raises:
        SpecError: It is no such window.
    """

    dtype: ClassVar[type[np.generic]] = np.float32

    def __init__(self, window: Sequence[float]) -> None:
        if len(window) != 2 or not all(map(math.isfinite, window)) or not window[0] < window[1]:
            raise SpecError(f"window={list(window)}: give (low, high) with low < high, both finite")
        self.window = float(window[0]), float(window[1])

    def encode(self, raw: NDArray[np.float32], /) -> NDArray[np.int16]:
        """Finite intensities to levels."""
        low, high = self.window
        share = (np.clip(raw.astype(np.float64), low, high) - low) / (high - low)
        share *= TOP
        np.rint(share, out=share)
        levels: NDArray[np.int16] = share.astype(np.int16)
        levels -= MIDDLE
        return levels

    def decode(self, levels: NDArray[np.float64], /) -> NDArray[np.float32]:
        """Intensities inside the window."""
        low, high = self.window
        share = np.clip((levels + MIDDLE) / TOP, 0, 1)
        return (low + share * (high - low)).astype(np.float32)
