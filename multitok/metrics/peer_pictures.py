"""JPEG, WebP and AVIF for pictures, JPEG 2000 for the slices of volumes: all by Pillow."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import MediaError, MissingExtraError

_FORMATS: dict[str, tuple[str, range, dict[str, Any]]] = {
    "JPEG": ("JPEG", range(1, 96), {"subsampling": "4:2:0", "optimize": True}),
    "JPEG 4:4:4": ("JPEG", range(1, 96), {"subsampling": "4:4:4", "optimize": True}),
    "WebP": ("WEBP", range(101), {"method": 6}),
    "AVIF": ("AVIF", range(101), {"subsampling": "4:2:0", "speed": 6, "max_threads": 1}),
}
# Name in Pillow's feature list -> what to do where Pillow was built without it.
_FEATURES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
_LEVELS_16_BIT = 2**16 - 1


class PictureCodec:
    """One of Pillow's lossy formats for uint8 [H, W, 3].

    Args:
        name: "JPEG", "JPEG 4:4:4", "WebP" or "AVIF".

    Raises:
        MissingExtraError: Pillow was built without the format.
    """

    def __init__(self, name: str) -> None:
        self._format, qualities, self._options = _FORMATS[name]
        self._qualities: Sequence[float] = qualities
        _check_pillow(self._format)

    @property
    def settings(self) -> Sequence[float]:
        """Pillow's `quality`."""
        return self._qualities

    def encode(self, raw: NDArray[Any], setting: float) -> bytes:
        """The whole file."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(raw).save(file, self._format, quality=int(setting), **self._options)
        return file.getvalue()

    def decode(self, payload: bytes, raw: NDArray[Any]) -> NDArray[Any]:
        """uint8 pixels."""
        from PIL import Image

        with Image.open(io.BytesIO(payload), formats=[self._format]) as picture:
            return np.asarray(picture.convert("RGB"))


class Jpeg2000Slices:
    """JPEG 2000 for float32 [Z, Y, X]: each slice a codestream of its own, all at one distortion.

    Args:
        low: Least value of the range.
        peak: Width of the range.

    Raises:
        MissingExtraError: Pillow was built without the format.
    """

    def __init__(self, low: float, peak: float) -> None:
        self._low, self._peak = low, peak
        _check_pillow("JPEG2000")

    @property
    def settings(self) -> Sequence[float]:
        """PSNR in dB that the encoder aims at."""
        return [10 + step / 4 for step in range(341)]

    def encode(self, raw: NDArray[Any], setting: float) -> bytes:
        """The slices' codestreams, each behind its length in 4 bytes."""
        from PIL import Image

        levels = to_levels(raw, self._low, self._peak, _LEVELS_16_BIT)
        parts = []
        for pixels in levels:
            file = io.BytesIO()
            Image.fromarray(pixels).save(
                file, "JPEG2000", no_jp2=True, irreversible=True, quality_mode="dB", quality_layers=[setting]
            )
            parts.append(struct.pack("<I", file.tell()) + file.getvalue())
        return b"".join(parts)

    def decode(self, payload: bytes, raw: NDArray[Any]) -> NDArray[Any]:
        """float32 voxels."""
        from PIL import Image

        slices, at = [], 0
        while at < len(payload):
            (size,) = struct.unpack_from("<I", payload, at)
            with Image.open(io.BytesIO(payload[at + 4 : at + 4 + size]), formats=["JPEG2000"]) as picture:
                slices.append(np.asarray(picture))
            at += 4 + size
        if len(slices) != len(raw):
            raise MediaError(f"{len(slices)} slices came back of {len(raw)}")
        return from_levels(np.stack(slices), self._low, self._peak, _LEVELS_16_BIT)


def to_levels(raw: NDArray[Any], low: float, peak: float, top: int) -> NDArray[np.uint16]:
    """Values of a range as integers 0 to `top`."""
    share = np.clip((raw.astype(np.float64) - low) / peak, 0, 1)
    return np.rint(share * top).astype(np.uint16)


def from_levels(levels: NDArray[np.uint16], low: float, peak: float, top: int) -> NDArray[np.float32]:
    """Integers 0 to `top` as values of the range."""
    return (low + levels.astype(np.float64) * (peak / top)).astype(np.float32)


def _check_pillow(format_name: str) -> None:
    from PIL import features

    feature = _FEATURES.get(format_name)
    if feature is not None and not features.check(feature):
        raise MissingExtraError(
            f"Pillow here writes no {format_name}: pip install --upgrade 'multitok[eval]', or leave that codec out",
            name="PIL",
        )
