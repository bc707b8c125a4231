"""Evaluations as rows of text: what the terminal and the report show alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from multitok.metrics.evaluation import CodebookUse, Evaluation, rounded
from multitok.metrics.quality import Quality

# Columns that hold words; the others hold figures.
LEFT = ("item", "codebook", "tokenizer", "units")
MEAN = "mean"


class HasCodebooks(Protocol):
    """An evaluation, of whatever modality."""

    @property
    def codebooks(self) -> tuple[CodebookUse, ...]:
        """How each codebook is used."""


def quality_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: every item's levels, then the means.

    Args:
        evaluation: What was found.

    Returns:
        Names of the columns; one string a column for each row. Rates are bits per pixel or voxel; a known codec's
        column holds its PSNR and SSIM at the row's nominal rate.
    """
    mean = evaluation.mean
    peers = list(mean[0].peers) if mean else []
    is_volume = evaluation.unit == "voxel"  # which has a foreground, and no MS-SSIM
    per = f"bits/{evaluation.unit}"
    header = ["item", "codebooks", per, "entropy", "PSNR", *(["foreground"] if is_volume else []), "SSIM"]
    header += [*(["MS-SSIM"] if not is_volume else []), *peers]
    rows = [
        _row(item.name, level.num_codebooks, level.nominal_bits / item.num_units, level.entropy_bits / item.num_units,
             level.quality, {name: peer.quality for name, peer in level.peers.items()}, is_volume)
        for item in evaluation.items
        for level in item.levels
    ]  # fmt: skip
    rows += [
        _row(MEAN, level.num_codebooks, level.nominal_bits_per_unit, level.entropy_bits_per_unit, level.quality,
             level.peers, is_volume)
        for level in mean
    ]  # fmt: skip
    return header, rows


def codebook_rows(evaluation: HasCodebooks) -> tuple[list[str], list[list[str]]]:
    """Header and rows: how each codebook is used."""
    header = ["codebook", "size", "codes", "usage", "perplexity", "entropy"]
    rows = [
        [
            str(k),
            f"{use.codebook_size:,}",
            f"{use.num_codes:,}",
            f"{use.usage:.1%}",
            f"{use.perplexity:,.1f}",
            f"{use.entropy_bits:.2f}",
        ]
        for k, use in enumerate(evaluation.codebooks)
    ]
    return header, rows


def speed_line(evaluation: Evaluation) -> str:
    """ "encode 36.6 MPx/s, decode 78.7 MPx/s (1 thread, median of 3 runs)"; "" where nothing was timed."""
    speed = evaluation.speed
    if speed is None:
        return ""
    unit = "MVoxel/s" if evaluation.unit == "voxel" else "MPx/s"
    threads = f"{speed.threads} thread{'s' * (speed.threads > 1)}"
    runs = f"median of {speed.runs} runs" if speed.runs > 1 else "1 run"
    encode, decode = (rate / 1e6 for rate in (speed.encode_units_per_s, speed.decode_units_per_s))
    return f"encode {encode:,.2f} {unit}, decode {decode:,.2f} {unit} ({threads}, {runs})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; figures align right."""
    lines = [header, ["---" if name in LEFT else "---:" for name in header], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _row(
    name: str,
    num_codebooks: int,
    nominal: float,
    entropy: float,
    quality: Quality,
    peers: Mapping[str, Quality | None],
    is_volume: bool,
) -> list[str]:
    row = [name, str(num_codebooks), f"{nominal:.3f}", f"{entropy:.3f}", rounded(quality.psnr_db, 2)]
    row += [rounded(quality.psnr_foreground_db, 2)] if is_volume else []
    row += [rounded(quality.ssim, 3)]
    row += [] if is_volume else [rounded(quality.ms_ssim, 3)]
    return row + [_peer(peer) for peer in peers.values()]


def _peer(quality: Quality | None) -> str:
    return "-" if quality is None else f"{rounded(quality.psnr_db, 2)} {rounded(quality.ssim, 3)}"
