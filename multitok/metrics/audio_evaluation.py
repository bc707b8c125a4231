"""What an evaluation of a tokenizer of sound found. Plain values only.

AudioEvaluation
├── items: AudioItem          one clip
│   ├── levels: AudioLevel    the first 1 .. K codebooks (K alone where levels cannot be dropped)
│   │   └── peers             the known codecs at the same nominal rate
│   └── stability             share of equal codes after each change
├── mean: AudioMeanLevel      the mean of the items' figures, level by level
├── codebooks: CodebookUse    over all items together
├── stability                 the mean over items and codebooks
├── speed: AudioSpeed
├── units: UnitScore          of the first codebook, where phone labels are given; `mfcc` beside it
└── failures: Failure         clips that could not be read or encoded
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from multitok.metrics.audio_peers import AudioPeerResult
from multitok.metrics.audio_quality import AudioQuality
from multitok.metrics.audio_unit_score import UnitScore
from multitok.metrics.evaluation import CodebookUse, Failure
from multitok.protocol import Json


@dataclass(frozen=True, slots=True)
class AudioLevel:
    """One clip, decoded with its first codebooks.

    Args:
        num_codebooks: How many.
        nominal_bps: Bits a second: codes times log2 of their codebook's size, padding included.
        entropy_bps: What an ideal entropy coder with one table per codebook for all clips would write.
        quality: How near the clip comes to its original.
        peers: Name of a known codec -> the best it does at `nominal_bps`.
    """

    num_codebooks: int
    nominal_bps: float
    entropy_bps: float
    quality: AudioQuality
    peers: Mapping[str, AudioPeerResult]

    def to_json(self) -> dict[str, Json]:
        """The level as JSON values."""
        return {
            "num_codebooks": self.num_codebooks,
            "nominal_bps": self.nominal_bps,
            "entropy_bps": self.entropy_bps,
            "quality": self.quality.to_json(),
            "peers": {name: peer.to_json() for name, peer in self.peers.items()},
        }


@dataclass(frozen=True, slots=True)
class AudioItem:
    """One clip.

    Args:
        name: The file's.
        duration_s: Its length.
        encode_s: Median time of one encode; None where it was not timed.
        decode_s: Median time of one decode of all codebooks.
        levels: By number of codebooks, ascending.
        stability: Change -> share of equal codes for each codebook.
    """

    name: str
    duration_s: float
    encode_s: float | None
    decode_s: float | None
    levels: tuple[AudioLevel, ...]
    stability: Mapping[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Json]:
        """The clip as JSON values."""
        return {
            "name": self.name,
            "duration_s": self.duration_s,
            "encode_s": self.encode_s,
            "decode_s": self.decode_s,
            "levels": [level.to_json() for level in self.levels],
            "stability": {change: list(shares) for change, shares in self.stability.items()},
        }


@dataclass(frozen=True, slots=True)
class AudioMeanLevel:
    """The mean of the clips' figures for one number of codebooks, each clip counting the same.

    Args:
        num_codebooks: How many.
        nominal_bps: Bits a second.
        entropy_bps: The same after ideal entropy coding.
        quality: Means over the clips for which a measure is defined.
        peers: The same of each known codec; None where it has none small enough for some clip.
        peers_bps: Bits a second that those took.
    """

    num_codebooks: int
    nominal_bps: float
    entropy_bps: float
    quality: AudioQuality
    peers: Mapping[str, AudioQuality | None]
    peers_bps: Mapping[str, float | None]

    def to_json(self) -> dict[str, Json]:
        """The means as JSON values."""
        return {
            "num_codebooks": self.num_codebooks,
            "nominal_bps": self.nominal_bps,
            "entropy_bps": self.entropy_bps,
            "quality": self.quality.to_json(),
            "peers": {name: peer.to_json() if peer else None for name, peer in self.peers.items()},
            "peers_bps": dict(self.peers_bps),
        }


@dataclass(frozen=True, slots=True)
class AudioSpeed:
    """How long the tokenizer takes for a second of sound.

    Args:
        encode_rtf: Real-time factor: the clips' median times over their length.
        decode_rtf: The same of decoding all codebooks.
        runs: Timed runs of each, after a first that is not timed.
        threads: Threads that the codebook search and torch were allowed.
    """

    encode_rtf: float
    decode_rtf: float
    runs: int
    threads: int

    def to_json(self) -> dict[str, Json]:
        """The figures as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class AudioEvaluation:
    """All that was found of one tokenizer.

    Args:
        tokenizer: Name of the checkpoint.
        kind: Its kind.
        fingerprint: sha256 of what fixes its output.
        sample_rate_hz: What it works at.
        versions: Package -> version of what the figures depend on.
        items: One result each, in the order given.
        failures: Those that have none.
        codebooks: One for each codebook; empty without items.
        speed: None where nothing was timed.
        units: None without phone labels.
        mfcc: Units of MFCC on the same clips; None without phone labels.
    """

    tokenizer: str
    kind: str
    fingerprint: str
    sample_rate_hz: int
    versions: Mapping[str, str]
    items: tuple[AudioItem, ...]
    failures: tuple[Failure, ...]
    codebooks: tuple[CodebookUse, ...]
    speed: AudioSpeed | None = None
    units: UnitScore | None = None
    mfcc: UnitScore | None = None

    @property
    def mean(self) -> tuple[AudioMeanLevel, ...]:
        """The means of the clips, level by level; empty without clips."""
        return tuple(self._mean_level(at) for at in range(len(self.items[0].levels))) if self.items else ()

    @property
    def stability(self) -> dict[str, float]:
        """Change -> share of equal codes, mean over codebooks and clips."""
        changes = self.items[0].stability if self.items else {}
        return {change: fmean(fmean(item.stability[change]) for item in self.items) for change in changes}

    def to_json(self) -> dict[str, Json]:
        """The evaluation as JSON values; infinite measures are the word "inf"."""
        return {
            "tokenizer": self.tokenizer,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "modality": "audio",
            "sample_rate_hz": self.sample_rate_hz,
            "versions": dict(self.versions),
            "mean": [level.to_json() for level in self.mean],
            "items": [item.to_json() for item in self.items],
            "failures": [failure.to_json() for failure in self.failures],
            "codebooks": [use.to_json() for use in self.codebooks],
            "stability": dict(self.stability),
            "speed": self.speed.to_json() if self.speed else None,
            "units": self.units.to_json() if self.units else None,
            "mfcc": self.mfcc.to_json() if self.mfcc else None,
        }

    def _mean_level(self, at: int) -> AudioMeanLevel:
        levels = [item.levels[at] for item in self.items]
        peers: dict[str, AudioQuality | None] = {}
        peers_bps: dict[str, float | None] = {}
        for name in levels[0].peers:
            found = [level.peers[name] for level in levels]
            whole = [peer.quality for peer in found if peer.quality is not None]
            peers[name] = AudioQuality.mean(whole) if len(whole) == len(found) else None
            rates = [
                peer.num_bits / item.duration_s
                for peer, item in zip(found, self.items, strict=True)
                if peer.num_bits is not None
            ]
            peers_bps[name] = _mean(rates) if len(rates) == len(found) else None
        return AudioMeanLevel(
            num_codebooks=levels[0].num_codebooks,
            nominal_bps=_mean(level.nominal_bps for level in levels),
            entropy_bps=_mean(level.entropy_bps for level in levels),
            quality=AudioQuality.mean(level.quality for level in levels),
            peers=peers,
            peers_bps=peers_bps,
        )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
