"""How good are units of speech: what they tell of the phone and of the speaker, and what they cost.

Shape letters: F frames of all clips together, V units (codes of one codebook), Y phones.

All of it is counting. With the joint counts n[y, v] of what is said and the unit there, in F frames:

    PNMI            I(phone; unit) / H(phone)    1: the unit says the phone, 0: it says nothing of it
    phone purity    sum_v max_y n[y, v] / F      frames right if every unit is named after its most frequent phone
    cluster purity  sum_y max_v n[y, v] / F      frames that carry the most frequent unit of their phone
    speaker NMI     I(speaker; unit) / H(speaker)   0: the unit is the same whoever speaks

Counts of few frames overstate information: units and labels that are independent share about
(V - 1)(Y - 1) / (2F) nats by chance. So compare sets of units on the same frames, and beside MFCC units.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multitok.errors import InputError, ShapeError
from multitok.metrics.rates import CodeCounts
from multitok.protocol import Json


def pnmi(units: ArrayLike, phones: ArrayLike) -> float:
    """Phone-normalised mutual information: the share of the phones' entropy that the units tell.

    Args:
        units: [F] the unit of each frame.
        phones: [F] the phone of each frame, integers or strings.

    Returns:
        From 0 to 1.

    Raises:
        ShapeError: The two do not have one length above 0.
        InputError: There is one phone only, so there is nothing to tell.

    Source:
        Hsu et al. 2021, "HuBERT: Self-Supervised Speech Representation Learning", eq. 6.
    """
    joint = _joint_counts(units, phones, "phones")
    return _normalised_information(joint, "phones")


def speaker_nmi(units: ArrayLike, speakers: ArrayLike) -> float:
    """The share of the speakers' entropy that the units tell; low is good for semantic units.

    Args:
        units: [F] the unit of each frame.
        speakers: [F] who speaks, integers or strings.

    Returns:
        From 0 to 1.

    Raises:
        ShapeError: The two do not have one length above 0.
        InputError: There is one speaker only.
    """
    joint = _joint_counts(units, speakers, "speakers")
    return _normalised_information(joint, "speakers")


def phone_purity(units: ArrayLike, phones: ArrayLike) -> float:
    """Share of frames whose phone is the most frequent one of their unit.

    Args:
        units: As for `pnmi`.
        phones: As for `pnmi`.

    Returns:
        From 0 to 1; grows with the number of units by itself.

    Raises:
        ShapeError: As for `pnmi`.

    Source:
        Hsu et al. 2021, eq. 4.
    """
    joint = _joint_counts(units, phones, "phones")
    return float(joint.max(axis=0).sum() / joint.sum())


def cluster_purity(units: ArrayLike, phones: ArrayLike) -> float:
    """Share of frames whose unit is the most frequent one of their phone.

    Args:
        units: As for `pnmi`.
        phones: As for `pnmi`.

    Returns:
        From 0 to 1; falls with the number of units by itself.

    Raises:
        ShapeError: As for `pnmi`.

    Source:
        Hsu et al. 2021, eq. 5.
    """
    joint = _joint_counts(units, phones, "phones")
    return float(joint.max(axis=1).sum() / joint.sum())


@dataclass(frozen=True, slots=True)
class UnitRates:
    """What the units of some clips cost; entropies are of order zero (see `multitok.metrics.rates`).

    Args:
        num_frames: F, of all clips together.
        frame_rate_hz: Frames a second.
        usage: Share of the codebook that occurs.
        perplexity: How many equally frequent units would carry as much, frame by frame.
        entropy_bits: Bits per frame after ideal entropy coding.
        nominal_bps: Bits a second at log2 of the codebook's size per frame.
        entropy_bps: The same after ideal entropy coding.
        dedup_rate: Share of frames that only repeat the one before, which dedup takes away.
        units_per_s: Units a second that dedup leaves.
        dedup_bps: Bits a second of those, entropy-coded, without their durations.
        dedup_durations_bps: The same with durations, entropy-coded by a table of their own.
    """

    num_frames: int
    frame_rate_hz: float
    usage: float
    perplexity: float
    entropy_bits: float
    nominal_bps: float
    entropy_bps: float
    dedup_rate: float
    units_per_s: float
    dedup_bps: float
    dedup_durations_bps: float

    def to_json(self) -> dict[str, Json]:
        """The figures as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def unit_rates(clips: Iterable[NDArray[np.integer[Any]]], *, codebook_size: int, frame_rate_hz: float) -> UnitRates:
    """What the units of some clips cost, as they are and after dedup.

    Args:
        clips: [F] units of each clip; a run of equal units does not go on from clip to clip.
        codebook_size: V.
        frame_rate_hz: Frames a second.

    Returns:
        Rates over all clips together.

    Raises:
        ShapeError: A clip is not one row of units, or there is no unit at all.
    """
    parts = [np.asarray(clip) for clip in clips]
    if any(part.ndim != 1 for part in parts) or not sum(part.size for part in parts):
        raise ShapeError(
            f"units of shapes {[list(part.shape) for part in parts[:4]]}: give rows of units, some of them"
        )
    runs = [run_lengths(part) for part in parts if part.size]
    frames = CodeCounts.of(np.concatenate(parts))
    kept = CodeCounts.of(np.concatenate([units for units, _ in runs]))
    durations = CodeCounts.of(np.concatenate([lengths for _, lengths in runs]))
    num_frames, num_runs = int(frames.counts.sum()), int(kept.counts.sum())
    units_per_s = num_runs / num_frames * frame_rate_hz
    return UnitRates(
        num_frames=num_frames,
        frame_rate_hz=frame_rate_hz,
        usage=frames.usage(codebook_size),
        perplexity=frames.perplexity,
        entropy_bits=frames.entropy_bits,
        nominal_bps=float(np.log2(codebook_size)) * frame_rate_hz,
        entropy_bps=frames.entropy_bits * frame_rate_hz,
        dedup_rate=1 - num_runs / num_frames,
        units_per_s=units_per_s,
        dedup_bps=kept.entropy_bits * units_per_s,
        dedup_durations_bps=(kept.entropy_bits + durations.entropy_bits) * units_per_s,
    )


def run_lengths(units: NDArray[np.integer[Any]]) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
    """The units of each run of equal ones, and how many frames each run has.

    Args:
        units: [F], F above 0.

    Returns:
        [R] units, no two neighbours equal, and [R] lengths that sum to F.
    """
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
    return units[starts], np.diff(starts, append=len(units))


def _joint_counts(units: ArrayLike, labels: ArrayLike, what: str) -> NDArray[np.int64]:
    """Counts [Y, V] of label and unit, of those only that occur."""
    units, labels = np.asarray(units), np.asarray(labels)
    if units.ndim != 1 or units.shape != labels.shape or not units.size:
        raise ShapeError(
            f"units {list(units.shape)} and {what} {list(labels.shape)}: give one of each for every frame, [F] and [F]"
        )
    columns, column = np.unique(units, return_inverse=True)
    rows, row = np.unique(labels, return_inverse=True)
    flat = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
    return flat.reshape(len(rows), len(columns))


def _normalised_information(joint: NDArray[np.int64], what: str) -> float:
    """I(label; unit) / H(label)."""
    if len(joint) < 2:
        raise InputError(f"there is one of the {what} only: information about it needs at least two")
    of_labels, of_units = _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0))
    return min(max(0.0, (of_labels + of_units - _entropy(joint.ravel())) / of_labels), 1.0)


def _entropy(counts: NDArray[np.int64] | Sequence[int]) -> float:
    """In nats."""
    shares = np.asarray(counts, np.float64)
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log(shares)).sum())
