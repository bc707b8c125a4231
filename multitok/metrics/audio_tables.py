"""Evaluations of sound as rows of text: what the terminal and the report show alike."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from multitok.metrics import tables
from multitok.metrics.audio_evaluation import AudioEvaluation, AudioLevel, AudioMeanLevel
from multitok.metrics.audio_quality import AudioQuality
from multitok.metrics.audio_unit_score import UnitScore
from multitok.metrics.evaluation import rounded
from multitok.metrics.tables import MEAN

MOST_CODEBOOK_ROWS = 16
# Measure -> its column and the digits it is shown with.
COLUMNS: dict[str, tuple[str, int]] = {
    "pesq_wb": ("PESQ-WB", 2),
    "pesq_nb": ("PESQ-NB", 2),
    "stoi": ("STOI", 3),
    "estoi": ("ESTOI", 3),
    "distillmos": ("DistillMOS", 2),
    "speaker_similarity": ("speaker", 3),
    "mel_distance_db": ("mel dB", 2),
    "spectral_distance_db": ("LSD dB", 2),
    "si_sdr_db": ("SI-SDR dB", 1),
    "wer": ("WER", 3),
    "cer": ("CER", 3),
}


def quality_rows(evaluation: AudioEvaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: every clip's levels, then the means, each of these followed by the known codecs at its rate.

    Args:
        evaluation: What was found.

    Returns:
        Names of the columns; one string a column for each row. Rates are kbit/s; a measure that no row has is left
        out.
    """
    mean = evaluation.mean
    shown = [name for name in COLUMNS if any(_has(level, name) for level in mean)]
    header = ["item", "codebooks", "kbit/s", "entropy", *(COLUMNS[name][0] for name in shown)]
    rows = [_own(item.name, level, shown) for item in evaluation.items for level in item.levels]
    for whole in mean:
        rows.append(_own(MEAN, whole, shown))
        rows += [_known(name, whole.peers_bps[name], quality, shown) for name, quality in whole.peers.items()]
    return header, rows


def mean_rows(evaluation: AudioEvaluation) -> tuple[list[str], list[list[str]]]:
    """The same without the clips."""
    header, rows = quality_rows(evaluation)
    count = sum(1 + len(level.peers) for level in evaluation.mean)
    return header, rows[len(rows) - count :]


def codebook_rows(evaluation: AudioEvaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: how each codebook is used; of more than 16 the mean."""
    header, rows = tables.codebook_rows(evaluation)
    if len(rows) <= MOST_CODEBOOK_ROWS:
        return header, rows
    use = evaluation.codebooks
    sizes = {one.codebook_size for one in use}
    mean = [
        f"{fmean(one.usage for one in use):.1%}",
        f"{fmean(one.perplexity for one in use):,.1f}",
        f"{fmean(one.entropy_bits for one in use):.2f}",
    ]
    size = f"{sizes.pop():,}" if len(sizes) == 1 else "-"
    return header, [[f"mean of {len(use)}", size, f"{sum(one.num_codes for one in use):,}", *mean]]


def stability_rows(evaluation: AudioEvaluation) -> tuple[list[str], list[list[str]]]:
    """Header and one row: share of equal codes after each change."""
    shares = evaluation.stability
    return list(shares), [[f"{share:.1%}" for share in shares.values()]] if shares else []


def unit_rows(evaluation: AudioEvaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the units, and those of MFCC."""
    header = ["units", "frames/s", "PNMI", "phone purity", "cluster purity", "speaker NMI", "ABX within",
              "ABX across", "entropy bit/s", "dedup", "dedup bit/s", "with durations"]  # fmt: skip
    scores: Mapping[str, UnitScore | None] = {evaluation.tokenizer: evaluation.units, "MFCC": evaluation.mfcc}
    return header, [_score(name, score) for name, score in scores.items() if score is not None]


def speed_line(evaluation: AudioEvaluation) -> str:
    """ "encode 0.0040, decode 0.0120 of real time (1 thread, median of 3 runs)"; "" where nothing was timed."""
    speed = evaluation.speed
    if speed is None:
        return ""
    threads = f"{speed.threads} thread{'s' * (speed.threads > 1)}"
    runs = f"median of {speed.runs} runs" if speed.runs > 1 else "1 run"
    hours = f"{1 / speed.encode_rtf:,.0f} and {1 / speed.decode_rtf:,.0f} hours of sound an hour"
    return f"encode {speed.encode_rtf:.4f}, decode {speed.decode_rtf:.4f} of real time: {hours} ({threads}, {runs})"


def _has(level: AudioMeanLevel, name: str) -> bool:
    return any(getattr(one, name) is not None for one in (level.quality, *level.peers.values()) if one is not None)


def _own(name: str, level: AudioLevel | AudioMeanLevel, shown: list[str]) -> list[str]:
    rates = [f"{bps / 1000:.2f}" for bps in (level.nominal_bps, level.entropy_bps)]
    return [name, str(level.num_codebooks), *rates, *_values(level.quality, shown)]


def _known(name: str, bps: float | None, quality: AudioQuality | None, shown: list[str]) -> list[str]:
    rate = "-" if bps is None else f"{bps / 1000:.2f}"
    return [f"  {name}", "", rate, "", *(["-"] * len(shown) if quality is None else _values(quality, shown))]


def _values(quality: AudioQuality, shown: list[str]) -> list[str]:
    return [rounded(getattr(quality, name), COLUMNS[name][1]) for name in shown]


def _score(name: str, score: UnitScore) -> list[str]:
    errors = ["-" if error is None else f"{error:.1%}" for error in (score.abx_within, score.abx_across)]
    rates = score.rates
    return [
        name,
        f"{rates.frame_rate_hz:.3g}",
        f"{score.pnmi:.3f}",
        f"{score.phone_purity:.3f}",
        f"{score.cluster_purity:.3f}",
        rounded(score.speaker_nmi, 3),
        *errors,
        f"{rates.entropy_bps:.0f}",
        f"{rates.dedup_rate:.0%}",
        f"{rates.dedup_bps:.0f}",
        f"{rates.dedup_durations_bps:.0f}",
    ]
