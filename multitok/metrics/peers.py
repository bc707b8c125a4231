"""Known codecs at the rate of codes: for an item and a number of bits, the best file of each that takes no more.

| modality | codec      | what it is                                                                              |
|----------|------------|-----------------------------------------------------------------------------------------|
| image    | JPEG       | Pillow, baseline, 4:2:0, optimised Huffman tables, quality 1 to 95                       |
| image    | JPEG 4:4:4 | the same with colour at full size                                                       |
| image    | WebP       | Pillow, lossy (4:2:0), method 6, quality 0 to 100                                        |
| image    | AVIF       | Pillow, 4:2:0, speed 6, quality 0 to 100                                                 |
| video    | x264, x265 | PyAV, yuv420p, preset medium, tune psnr, constant rate factor 51 to 0 by quarters        |
| volume   | JPEG 2000  | Pillow, each slice by itself at one distortion, 16 bits, irreversible                    |
| volume   | x265       | PyAV, slices as frames, 12-bit grey, else as above                                      |

Of a picture the whole file counts. Of a clip the elementary stream counts, without container and without the text in
which x264 lists its settings; key frames are up to 250 frames apart, the encoders' default. Odd sizes, and for x265
sides below 64, are made up by repeating the edge.

Settings are searched by halving and guessing, for a better setting makes a larger file but for rare steps of a few
bytes: what is found never takes more than it may, and very rarely a better one that fits is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.metrics.peer_pictures import Jpeg2000Slices, PictureCodec
from multitok.metrics.peer_video import ClipCodec, SliceCodec
from multitok.metrics.quality import Quality, measure
from multitok.protocol import Json, Modality

# What is run where nothing else is asked for.
PEERS: dict[Modality, tuple[str, ...]] = {
    Modality.IMAGE: ("JPEG", "JPEG 4:4:4", "WebP", "AVIF"),
    Modality.VIDEO: ("x264", "x265"),
    Modality.VOLUME: ("JPEG 2000", "x265"),
}


class Codec(Protocol):
    """A codec as the search needs it."""

    @property
    def settings(self) -> Sequence[float]:
        """What can be set, from the smallest file to the largest."""

    def encode(self, raw: NDArray[Any], setting: float) -> bytes:
        """What is counted."""

    def decode(self, payload: bytes, raw: NDArray[Any]) -> NDArray[Any]:
        """An array like `raw`, of which only shape and type are looked at."""


@dataclass(frozen=True, slots=True)
class PeerResult:
    """The best file of one codec under a limit.

    Args:
        setting: Quality, rate factor or distortion it was made with; None where no file is small enough.
        num_bytes: Its size.
        quality: How near it is to the original.
        reason: Why there is none.
    """

    setting: float | None = None
    num_bytes: int | None = None
    quality: Quality | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Json]:
        """The result as JSON values."""
        return {
            "setting": self.setting,
            "num_bytes": self.num_bytes,
            "quality": self.quality.to_json() if self.quality else None,
            "reason": self.reason,
        }


class Peers:
    """The known codecs for one item; remembers every file it made, so that further limits cost little.

    Args:
        raw: The item.
        modality: What it is.
        names: Which codecs, from `PEERS`; None takes all of the modality.
        low: Least value of a volume's range.
        peak: Width of that range.

    Raises:
        SpecError: A codec is unknown for the modality.
        MissingExtraError: A codec's package is not installed.
    """

    def __init__(
        self,
        raw: NDArray[Any],
        modality: Modality,
        names: Sequence[str] | None = None,
        *,
        low: float = 0.0,
        peak: float | None = None,
    ) -> None:
        check_peers(modality, names)
        chosen = PEERS[modality] if names is None else names
        self._searches = {name: _Search(_codec(name, modality, low, peak), raw, low, peak) for name in chosen}

    def best(self, max_bits: float) -> dict[str, PeerResult]:
        """The best file of each codec that takes no more than `max_bits`."""
        return {name: search.best(max_bits) for name, search in self._searches.items()}


def check_peers(modality: Modality, names: Sequence[str] | None) -> None:
    """Raise unless `names` are codecs for items of this modality.

    Raises:
        SpecError: One is unknown for the modality.
    """
    if modality not in PEERS:
        raise SpecError(f"{modality}: known codecs are there for {', '.join(PEERS)}")
    for name in names or ():
        if name not in PEERS[modality]:
            raise SpecError(f"{name!r}: the codecs for {modality} are {', '.join(PEERS[modality])}")


def _codec(name: str, modality: Modality, low: float, peak: float | None) -> Codec:
    if modality is Modality.IMAGE:
        return PictureCodec(name)
    if modality is Modality.VIDEO:
        return ClipCodec(name)
    if peak is None:
        raise SpecError("codecs of volumes need the range of the values: give low and peak")
    return Jpeg2000Slices(low, peak) if name == "JPEG 2000" else SliceCodec(low, peak)


class _Search:
    """Bisection over one codec's settings, remembering what was tried."""

    def __init__(self, codec: Codec, raw: NDArray[Any], low: float, peak: float | None) -> None:
        self._codec, self._raw, self._low, self._peak = codec, raw, low, peak
        self._payloads: dict[int, bytes] = {}
        self._qualities: dict[int, Quality] = {}
        self._reason = ""

    def best(self, max_bits: float) -> PeerResult:
        if not self._reason:
            try:
                return self._found(max_bits)
            except (OSError, ValueError) as error:  # how Pillow and ours say that a codec cannot take such an item
                self._reason = str(error) or type(error).__name__
        return PeerResult(reason=self._reason)

    def _found(self, max_bits: float) -> PeerResult:
        # Invariant: `fits` does (or is before the first setting), no known one from `beyond` on does.
        known = {index: self._fits(index, max_bits) for index in self._payloads}
        fits = max((index for index, small in known.items() if small), default=-1)
        beyond = min((index for index in known if index > fits), default=len(self._codec.settings))
        halve = False
        while beyond - fits > 1:
            width = beyond - fits
            tried = (fits + beyond) // 2 if halve else self._guess(fits, beyond, max_bits)
            fits, beyond = (tried, beyond) if self._fits(tried, max_bits) else (fits, tried)
            halve = not halve and beyond - fits > width // 2
        if fits < 0:
            return PeerResult(reason=f"its smallest file has {len(self._payload(0)):,} bytes")
        return PeerResult(self._codec.settings[fits], len(self._payload(fits)), self._quality(fits))

    def _guess(self, low: int, high: int, max_bits: float) -> int:
        """Where the limit should lie between two settings: sizes grow about exponentially."""
        if low not in self._payloads or high not in self._payloads:
            return (low + high) // 2
        smaller, larger, wanted = (math.log(bits) for bits in (self._bits(low), self._bits(high), max_bits))
        guess = low + int((high - low) * (wanted - smaller) / max(larger - smaller, 1e-9))
        return min(max(guess, low + 1), high - 1)

    def _fits(self, index: int, max_bits: float) -> bool:
        return self._bits(index) <= max_bits

    def _bits(self, index: int) -> int:
        return len(self._payload(index)) * 8

    def _payload(self, index: int) -> bytes:
        if index not in self._payloads:
            self._payloads[index] = self._codec.encode(self._raw, self._codec.settings[index])
        return self._payloads[index]

    def _quality(self, index: int) -> Quality:
        if index not in self._qualities:
            decoded = self._codec.decode(self._payload(index), self._raw)
            self._qualities[index] = measure(self._raw, decoded, peak=self._peak, low=self._low)
        return self._qualities[index]
