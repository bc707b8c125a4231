"""All figures of one set of speech units on labelled clips, and the units of MFCC that stand beside it.

MFCC units are the clusters (k-means, as many as there are codes, 500 by custom) of 13 cepstral coefficients with
their slopes, at 50 Hz, fitted to the very clips that are scored: the classical baseline, and a generous one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import nearest_code
from multitok.frontend.resample import to_mono
from multitok.metrics.audio_abx import Saying, abx
from multitok.metrics.audio_labels import Phone, frame_phones, sayings, speaker_of
from multitok.metrics.audio_units import UnitRates, cluster_purity, phone_purity, pnmi, speaker_nmi, unit_rates
from multitok.protocol import Json, Waveform
from multitok.tokenizers._semantic_frames import MfccFrontEnd
from multitok.train.kmeans import train_kmeans

MFCC_RATE_HZ = 16_000
MFCC_FRAME_RATE_HZ = 50.0
MFCC_UNITS = 500


@dataclass(frozen=True, slots=True)
class UnitScore:
    """What units tell of phones and speakers, and what they cost.

    Args:
        num_clips: Clips with labels.
        num_speakers: Their speakers.
        pnmi: Share of the phones' entropy that the units tell; silence is a phone.
        phone_purity: Share of frames whose phone is their unit's most frequent.
        cluster_purity: Share of frames whose unit is their phone's most frequent.
        speaker_nmi: Share of the speakers' entropy that the units tell; None with one speaker.
        abx_within: ABX error within speakers; None where the labels hold no triple.
        abx_across: ABX error across speakers.
        rates: What they cost.
    """

    num_clips: int
    num_speakers: int
    pnmi: float
    phone_purity: float
    cluster_purity: float
    speaker_nmi: float | None
    abx_within: float | None
    abx_across: float | None
    rates: UnitRates

    def to_json(self) -> dict[str, Json]:
        """The figures as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "rates"}
        return {**values, "rates": self.rates.to_json()}


def score_units(
    units: Mapping[str, NDArray[np.integer[Any]]],
    labels: Mapping[str, Sequence[Phone]],
    *,
    codebook_size: int,
    frame_rate_hz: float,
) -> UnitScore:
    """Score units on the clips that have labels.

    Args:
        units: Clip -> its units [F]; frame f covers f / rate to (f + 1) / rate.
        labels: Clip -> its phones; every clip of `units` is there.
        codebook_size: V.
        frame_rate_hz: Frames a second.

    Returns:
        Figures over all clips together.

    Raises:
        InputError: The labels hold one phone only.
        ShapeError: There is no labelled frame.
    """
    phones = {clip: frame_phones(labels[clip], len(row), frame_rate_hz) for clip, row in units.items()}
    known = {clip: phones[clip] != "" for clip in units}
    flat = np.concatenate([units[clip][known[clip]] for clip in units])
    named = np.concatenate([phones[clip][known[clip]] for clip in units])
    speakers = np.repeat([speaker_of(clip) for clip in units], [int(known[clip].sum()) for clip in units])
    num_speakers = len(np.unique(speakers))
    said: list[Saying] = []
    for clip, row in units.items():
        said += sayings(row, labels[clip], frame_rate_hz=frame_rate_hz, speaker=speaker_of(clip))
    errors = abx(said) if said else None
    return UnitScore(
        num_clips=len(units),
        num_speakers=num_speakers,
        pnmi=pnmi(flat, named),
        phone_purity=phone_purity(flat, named),
        cluster_purity=cluster_purity(flat, named),
        speaker_nmi=speaker_nmi(flat, speakers) if num_speakers > 1 else None,
        abx_within=errors.within if errors else None,
        abx_across=errors.across if errors else None,
        rates=unit_rates(units.values(), codebook_size=codebook_size, frame_rate_hz=frame_rate_hz),
    )


def mfcc_features(wave: Waveform) -> NDArray[np.float32]:
    """MFCC and their slopes, [F, 39] at 50 Hz."""
    front_end = MfccFrontEnd()
    state, first = front_end.step(front_end.initial_state(), to_mono(wave, MFCC_RATE_HZ))
    return np.concatenate([first, front_end.finish(state)])


def mfcc_units(
    features: Mapping[str, NDArray[np.float32]], *, codebook_size: int = MFCC_UNITS, seed: int = 0
) -> dict[str, NDArray[np.int32]]:
    """Clusters of these features.

    Args:
        features: Clip -> [F, 39].
        codebook_size: V.
        seed: Of k-means.

    Returns:
        Clip -> [F] units.
    """
    rows = np.concatenate(list(features.values()))
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    normal = {clip: (row - mean) / std for clip, row in features.items()}
    vectors = train_kmeans(np.concatenate(list(normal.values())), codebook_size, seed=seed)
    return {clip: nearest_code(row, vectors) for clip, row in normal.items()}
