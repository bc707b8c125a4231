"""What an evaluation found: one row per item and level, their means, the codebooks, the speed. Plain values only.

Evaluation
├── items: ItemResult        one file
│   └── levels: LevelResult  the first 1 .. K codebooks (K alone where levels cannot be dropped)
│       └── peers            the known codecs at the same nominal rate
├── mean: MeanLevel          the mean of the items' figures, level by level
├── codebooks: CodebookUse   over all items together
├── speed: Speed
└── failures: Failure        items that could not be read or encoded
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from multitok.metrics.peers import PeerResult
from multitok.metrics.quality import Quality
from multitok.protocol import Json, Modality


@dataclass(frozen=True, slots=True)
class LevelResult:
    """One item, decoded with its first codebooks.

    Args:
        num_codebooks: How many.
        nominal_bits: Codes times log2 of their codebook's size, padding included.
        entropy_bits: What an ideal entropy coder with one table per codebook for all items would write.
        quality: How near the item comes to its original.
        peers: Name of a known codec -> the best it does in `nominal_bits`.
    """

    num_codebooks: int
    nominal_bits: float
    entropy_bits: float
    quality: Quality
    peers: Mapping[str, PeerResult]

    def to_json(self) -> dict[str, Json]:
        """The level as JSON values."""
        return {
            "num_codebooks": self.num_codebooks,
            "nominal_bits": self.nominal_bits,
            "entropy_bits": self.entropy_bits,
            "quality": self.quality.to_json(),
            "peers": {name: peer.to_json() for name, peer in self.peers.items()},
        }


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One item.

    Args:
        name: The file's.
        extent: Raw size along each grid axis.
        num_units: Pixels (of all frames) or voxels.
        clipped_share: Share of a volume's voxels outside the tokenizer's window; they are measured as its ends.
        encode_s: Median time of one encode; None where it was not timed.
        decode_s: Median time of one decode of all codebooks.
        levels: By number of codebooks, ascending.
    """

    name: str
    extent: tuple[int, ...]
    num_units: int
    clipped_share: float
    encode_s: float | None
    decode_s: float | None
    levels: tuple[LevelResult, ...]

    def to_json(self) -> dict[str, Json]:
        """The item as JSON values."""
        return {
            "name": self.name,
            "extent": list(self.extent),
            "num_units": self.num_units,
            "clipped_share": self.clipped_share,
            "encode_s": self.encode_s,
            "decode_s": self.decode_s,
            "levels": [level.to_json() for level in self.levels],
        }


@dataclass(frozen=True, slots=True)
class MeanLevel:
    """The mean of the items' figures for one number of codebooks, each item counting the same.

    Args:
        num_codebooks: How many.
        nominal_bits_per_unit: Bits per pixel or voxel.
        entropy_bits_per_unit: The same after ideal entropy coding.
        quality: Means over the items for which a measure is defined.
        peers: The same of each known codec; None where it has no file small enough for some item.
    """

    num_codebooks: int
    nominal_bits_per_unit: float
    entropy_bits_per_unit: float
    quality: Quality
    peers: Mapping[str, Quality | None]

    def to_json(self) -> dict[str, Json]:
        """The means as JSON values."""
        return {
            "num_codebooks": self.num_codebooks,
            "nominal_bits_per_unit": self.nominal_bits_per_unit,
            "entropy_bits_per_unit": self.entropy_bits_per_unit,
            "quality": self.quality.to_json(),
            "peers": {name: peer.to_json() if peer else None for name, peer in self.peers.items()},
        }


@dataclass(frozen=True, slots=True)
class CodebookUse:
    """How one codebook is used over all items together.

    Args:
        codebook_size: How many codes it has.
        num_codes: How many were written.
        usage: Share of the codebook that occurs.
        perplexity: How many equally frequent codes would carry as much.
        entropy_bits: Bits per code after ideal entropy coding; nominal is log2 of the size.
    """

    codebook_size: int
    num_codes: int
    usage: float
    perplexity: float
    entropy_bits: float

    def to_json(self) -> dict[str, Json]:
        """The figures as JSON values."""
        return {
            "codebook_size": self.codebook_size,
            "num_codes": self.num_codes,
            "usage": self.usage,
            "perplexity": self.perplexity,
            "entropy_bits": self.entropy_bits,
        }


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast items became codes and came back.

    Args:
        encode_units_per_s: Pixels or voxels of all items over the sum of their median times.
        decode_units_per_s: The same of decoding all codebooks.
        runs: Timed runs of each, after a first that is not timed.
        threads: Threads that the codebook search and torch were allowed.
    """

    encode_units_per_s: float
    decode_units_per_s: float
    runs: int
    threads: int

    def to_json(self) -> dict[str, Json]:
        """The figures as JSON values."""
        return {
            "encode_units_per_s": self.encode_units_per_s,
            "decode_units_per_s": self.decode_units_per_s,
            "runs": self.runs,
            "threads": self.threads,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """An item without figures.

    Args:
        name: The file's.
        reason: What is wrong with it.
    """

    name: str
    reason: str

    def to_json(self) -> dict[str, Json]:
        """The failure as JSON values."""
        return {"name": self.name, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that was found of one tokenizer.

    Args:
        tokenizer: Name of the checkpoint.
        kind: Its kind.
        fingerprint: sha256 of what fixes its output.
        modality: Of the items.
        versions: Package -> version of what the figures depend on.
        items: One result each, in the order given.
        failures: Those that have none.
        codebooks: One for each codebook; empty without items.
        speed: None where nothing was timed.
    """

    tokenizer: str
    kind: str
    fingerprint: str
    modality: Modality
    versions: Mapping[str, str]
    items: tuple[ItemResult, ...]
    failures: tuple[Failure, ...]
    codebooks: tuple[CodebookUse, ...]
    speed: Speed | None

    @property
    def unit(self) -> str:
        """What rates are counted by: "pixel" or "voxel"."""
        return "voxel" if self.modality is Modality.VOLUME else "pixel"

    @property
    def mean(self) -> tuple[MeanLevel, ...]:
        """The means of the items, level by level; empty without items."""
        return tuple(self._mean_level(at) for at in range(len(self.items[0].levels))) if self.items else ()

    def to_json(self) -> dict[str, Json]:
        """The evaluation as JSON values; infinite measures are the word "inf"."""
        return {
            "tokenizer": self.tokenizer,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "modality": self.modality.value,
            "unit": self.unit,
            "versions": dict(self.versions),
            "mean": [level.to_json() for level in self.mean],
            "items": [item.to_json() for item in self.items],
            "failures": [failure.to_json() for failure in self.failures],
            "codebooks": [use.to_json() for use in self.codebooks],
            "speed": self.speed.to_json() if self.speed else None,
        }

    def _mean_level(self, at: int) -> MeanLevel:
        levels = [item.levels[at] for item in self.items]
        units = [item.num_units for item in self.items]
        peers: dict[str, Quality | None] = {}
        for name in levels[0].peers:
            found = [level.peers[name].quality for level in levels]
            whole = [quality for quality in found if quality is not None]
            peers[name] = mean_quality(whole) if len(whole) == len(found) else None
        return MeanLevel(
            num_codebooks=levels[0].num_codebooks,
            nominal_bits_per_unit=_mean(level.nominal_bits / n for level, n in zip(levels, units, strict=True)),
            entropy_bits_per_unit=_mean(level.entropy_bits / n for level, n in zip(levels, units, strict=True)),
            quality=mean_quality([level.quality for level in levels]),
            peers=peers,
        )


def mean_quality(qualities: list[Quality]) -> Quality:
    """The mean of each measure over the items that have it; None where none has."""

    def over(measure: Callable[[Quality], float | None]) -> float | None:
        values = [value for value in map(measure, qualities) if value is not None]
        return _mean(values) if values else None

    psnr = over(lambda quality: quality.psnr_db)
    assert psnr is not None  # every item has one
    return Quality(
        psnr_db=psnr,
        ssim=over(lambda quality: quality.ssim),
        ms_ssim=over(lambda quality: quality.ms_ssim),
        psnr_foreground_db=over(lambda quality: quality.psnr_foreground_db),
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def rounded(value: float | None, digits: int) -> str:
    """A measure as a table shows it: "27.56", "inf", "-" where there is none."""
    return "-" if value is None else "inf" if math.isinf(value) else f"{value:.{digits}f}"
