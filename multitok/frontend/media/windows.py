"""Windows: which values of a volume become 0 and which 1.

| window                     | written       | low and high                                                           |
|----------------------------|---------------|------------------------------------------------------------------------|
| `Window(-1000, 400)`       | "-1000:400"   | these, in the file's unit: Hounsfield for CT                           |
| `Window(1, 99, percent=True)` | "1%:99%"   | these percentiles of the volume's own values                           |
| "auto"                     | "auto"        | 0% and 99.5% for NIfTI, DICOM and TIFF; arrays, Zarr, meshes as stored |
| "stored"                   | "stored"      | none: values as stored                                                 |

v becomes (v - low) / (high - low), and what lies outside [0, 1] is cut. Percentiles suit MRI, whose unit is arbitrary;
CT has a unit, and one window for all scans keeps them comparable. Common ones: lung -1350:150, soft tissue -160:240,
brain 0:80, bone -450:1050.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError

_FORM = re.compile(r"\s*([^:%\s]+)\s*(%?)\s*:\s*([^:%\s]+)\s*(%?)\s*")


@dataclass(frozen=True)
class Window:
    """Two values, or two percentiles, between which a volume is seen.

    Args:
        low: Becomes 0.
        high: Becomes 1.
        percent: Both are percentiles of the volume's values, 0 to 100.

    Raises:
        InputError: Not finite, in the wrong order, or percentiles that cannot be.
    """

    low: float
    high: float
    percent: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"window {self}: give two finite numbers, the lower first, such as -160:240")
        if self.percent and not 0 <= self.low < self.high <= 100:
            raise InputError(f"window {self}: percentiles lie from 0% to 100%")

    def __str__(self) -> str:
        sign = "%" if self.percent else ""
        return f"{self.low:g}{sign}:{self.high:g}{sign}"


VolumeWindow: TypeAlias = "Window | Literal['auto', 'stored']"
AUTO_WINDOW = Window(0.0, 99.5, percent=True)


def parse_window(text: str) -> VolumeWindow:
    """A window as the table above writes it.

    Raises:
        InputError: It is none of these.
    """
    if text == "auto" or text == "stored":
        return "auto" if text == "auto" else "stored"
    match = _FORM.fullmatch(text)
    try:
        if match is None or match[2] != match[4]:
            raise ValueError
        return Window(float(match[1]), float(match[3]), percent=bool(match[2]))
    except InputError:
        raise
    except ValueError:
        raise InputError(f"window {text!r}: write auto, stored, LOW:HIGH or LOW%:HIGH%, such as -160:240") from None


def seen_through(volume: NDArray[np.float32], window: Window) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """A volume's values scaled to [0, 1] by a window.

    A volume of one value becomes zeros where percentiles are asked for. Percentiles that fall together give way to
    the largest value above.

    Args:
        volume: [Z, Y, X] float32, finite.
        window: What becomes 0 and 1.

    Returns:
        [Z, Y, X] float32 in [0, 1], and the values that became 0 and 1.
    """
    # So that the range of even the largest values stays finite.
    quarter: NDArray[np.float32] = volume * np.float32(0.25)
    low, high = window.low / 4, window.high / 4
    if window.percent:
        low, high = (float(value) for value in np.percentile(quarter, [window.low, window.high]))
        high = high if high > low else float(quarter.max())
        if high <= low:
            return np.zeros_like(volume), (low * 4, low * 4 + 1)
    with np.errstate(over="ignore"):
        np.divide(quarter - np.float32(low), np.float32(high - low), out=quarter)
    np.clip(quarter, np.float32(0.0), np.float32(1.0), out=quarter)
    return quarter, (low * 4, high * 4)


def normalise_volume(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a volume to [0, 1] by its least value and its 99.5th percentile; what lies above becomes 1.

    Scanners give arbitrary units, and a few bright voxels would otherwise squeeze all tissue into a narrow band.
    A constant volume becomes zeros.

    Args:
        volume: [Z, Y, X] float32, finite.

    Returns:
        [Z, Y, X] float32 in [0, 1].
    """
    return seen_through(volume, AUTO_WINDOW)[0]
