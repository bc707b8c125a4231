"""A folder to look at: `index.md`, curves of quality against rate, contact sheets, all figures as JSON.

report/
    index.md                    tables, plots and sheets, for any Markdown viewer
    evaluation.json             a list of `Evaluation.to_json`
    psnr.png  ssim.png          quality against bits per pixel or voxel, beside the known codecs; of sound
                                pesq_wb.png, stoi.png, distillmos.png and mel_distance.png against kbit/s
    sheets/<tokenizer>/<n>.png  original, levels and error maps of the first items; of sound its spectrograms
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from multitok.errors import InputError, MissingExtraError
from multitok.metrics import audio_tables, tables
from multitok.metrics.audio_evaluation import AudioEvaluation, AudioMeanLevel
from multitok.metrics.evaluation import Evaluation, MeanLevel
from multitok.metrics.item_evaluator import Watcher
from multitok.metrics.sheets import write_sheet

MAX_SHEETS = 24
_PLOTS = {"psnr_db": "PSNR, dB", "ssim": "SSIM"}
_AUDIO_PLOTS = {
    "pesq_wb": "PESQ-WB",
    "stoi": "STOI",
    "distillmos": "DistillMOS",
    "mel_distance_db": "mel distance, dB",
}
AnyEvaluation: TypeAlias = "Evaluation | AudioEvaluation"


class ReportWriter:
    """Writes a report: sheets while the items pass, the rest at the end.

    Args:
        folder: A folder that is empty or does not exist.
        max_sheets: Contact sheets for each tokenizer; those of further items are left out.

    Raises:
        InputError: The folder holds something.
        MissingExtraError: matplotlib is not installed.
    """

    def __init__(self, folder: Path, *, max_sheets: int = MAX_SHEETS) -> None:
        _figure_class()  # now, and not when hours of work are to be drawn
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} holds something: a report needs a folder that is empty or does not exist")
        self._folder, self._max_sheets = folder, max_sheets
        self._sheets: dict[str, dict[str, str]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def watcher(self, tokenizer: str) -> Watcher:
        """What to give an evaluation as `watch`, so that its sheets land in the report.

        Args:
            tokenizer: What the evaluation calls its tokenizer.

        Returns:
            What writes the sheet of an item that it is called with.
        """
        sheets = self._sheets.setdefault(tokenizer, {})
        place = Path("sheets") / _file_name(tokenizer)

        def watch(name: str, raw: NDArray[Any], decoded: Mapping[int, NDArray[Any]], span: tuple[float, float]) -> None:
            if len(sheets) >= self._max_sheets:
                return
            (self._folder / place).mkdir(parents=True, exist_ok=True)
            path = place / f"{len(sheets):03d}-{_file_name(Path(name).stem)}.png"
            write_sheet(self._folder / path, raw, decoded, low=span[0], peak=span[1])
            sheets[name] = path.as_posix()

        return watch

    def finish(self, evaluations: Sequence[AnyEvaluation]) -> Path:
        """Write tables, plots and JSON.

        Args:
            evaluations: One for each tokenizer, of the same items of one modality.

        Returns:
            The page, `index.md`.
        """
        found = [evaluation for evaluation in evaluations if evaluation.items]
        labels = _AUDIO_PLOTS if any(isinstance(one, AudioEvaluation) for one in found) else _PLOTS
        plots = {
            name.removesuffix("_db"): label
            for name, label in labels.items()
            if found and _plot(self._folder / f"{name.removesuffix('_db')}.png", name, label, found)
        }
        data = [evaluation.to_json() for evaluation in evaluations]
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        (self._folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        parts = ["# " + ", ".join(evaluation.tokenizer for evaluation in evaluations)]
        parts += [f"![{label} against rate]({name}.png)" for name, label in plots.items()]
        for evaluation in evaluations:
            parts += self._section(evaluation)
        page = self._folder / "index.md"
        page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        return page

    def _section(self, evaluation: AnyEvaluation) -> list[str]:
        versions = ", ".join(f"{package} {version}" for package, version in evaluation.versions.items())
        parts = [f"## {evaluation.tokenizer}", f"{evaluation.kind}, fingerprint `{evaluation.fingerprint}`; {versions}"]
        if evaluation.items:
            parts += _sound(evaluation) if isinstance(evaluation, AudioEvaluation) else _pictures(evaluation)
        parts += [f"Not measured: {failure.name}: {failure.reason}" for failure in evaluation.failures]
        parts += [_missing_peers(evaluation)]
        sheets = self._sheets.get(evaluation.tokenizer, {})
        parts += [f"{name}\n\n![{name}]({path})" for name, path in sheets.items()]
        return [part for part in parts if part]


def _pictures(evaluation: Evaluation) -> list[str]:
    parts = [tables.markdown(*tables.quality_rows(evaluation)), _NOTE]
    parts += [tables.markdown(*tables.codebook_rows(evaluation)), tables.speed_line(evaluation)]
    return parts + [
        f"{item.name}: {item.clipped_share:.2%} of its voxels lie outside the tokenizer's window and were "
        "measured as its ends."
        for item in evaluation.items
        if item.clipped_share
    ]


def _sound(evaluation: AudioEvaluation) -> list[str]:
    parts = [tables.markdown(*audio_tables.quality_rows(evaluation)), _AUDIO_NOTE]
    if evaluation.stability:
        parts += ["Codes that stay equal:", tables.markdown(*audio_tables.stability_rows(evaluation))]
    if evaluation.units is not None:
        parts += [tables.markdown(*audio_tables.unit_rows(evaluation))]
    return [*parts, tables.markdown(*audio_tables.codebook_rows(evaluation)), audio_tables.speed_line(evaluation)]


_NOTE = (
    "Rates are nominal and after ideal entropy coding. A known codec's column: PSNR and SSIM of its best file that "
    'takes no more than the nominal bits; "-" where its smallest file takes more.'
)
_AUDIO_NOTE = (
    "Rates are nominal and after ideal entropy coding. Below each mean stand the known codecs: the largest file of "
    'each that takes no more than the nominal bits; "-" where its smallest file takes more. Spectrograms: the lowest '
    "band at the bottom, 80 dB from black to white; errors are white from 10 dB on."
)


def _missing_peers(evaluation: AnyEvaluation) -> str:
    lines = [
        f"- {item.name}, {level.num_codebooks} codebook{'s' * (level.num_codebooks > 1)}: no {name}: {peer.reason}"
        for item in evaluation.items
        for level in item.levels
        for name, peer in level.peers.items()
        if peer.quality is None
    ]
    return "\n".join(lines)


def _plot(path: Path, name: str, label: str, evaluations: Sequence[AnyEvaluation]) -> bool:
    """Draw one measure against the rate; False where no item has it."""
    figure = _figure_class()(figsize=(7.5, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    drawn = [
        _draw(axes, evaluation.tokenizer, _points(evaluation, name), linewidth=2.2, marker="o")
        for evaluation in evaluations
    ]
    if not any(drawn):
        return False
    known = {peer: None for evaluation in evaluations for peer in evaluation.mean[0].peers}
    for peer in known:
        points = {rate: value for one in evaluations for rate, value in _peer_points(one, peer, name)}
        _draw(axes, peer, sorted(points.items()), linewidth=1.2, marker=".", linestyle="--")
    axes.set_xscale("log")
    for direction in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        direction("{x:.3g}")
    first = evaluations[0]
    per = "kbit/s" if isinstance(first, AudioEvaluation) else f"bits per {first.unit}"
    axes.set_xlabel(f"{per}, mean over the items")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)
    return True


def _draw(axes: Any, label: str, points: Sequence[tuple[float, float]], **style: Any) -> bool:
    if not points:
        return False
    axes.plot([rate for rate, _ in points], [value for _, value in points], label=label, **style)
    return True


def _points(evaluation: AnyEvaluation, name: str) -> list[tuple[float, float]]:
    found = [
        (level.nominal_bps / 1000 if isinstance(level, AudioMeanLevel) else level.nominal_bits_per_unit,
         getattr(level.quality, name))
        for level in evaluation.mean
    ]  # fmt: skip
    return [(rate, value) for rate, value in found if value is not None and math.isfinite(value)]


def _peer_points(evaluation: AnyEvaluation, peer: str, name: str) -> list[tuple[float, float]]:
    """At the rate that its files really took, mean over the items."""
    points = []
    levels: Sequence[MeanLevel | AudioMeanLevel] = evaluation.mean
    for at, level in enumerate(levels):
        quality = level.peers.get(peer)
        value = getattr(quality, name) if quality else None
        rate = _peer_rate(evaluation, peer, at)
        if value is not None and math.isfinite(value) and rate is not None:
            points.append((rate, value))
    return points


def _peer_rate(evaluation: AnyEvaluation, peer: str, at: int) -> float | None:
    if isinstance(evaluation, AudioEvaluation):
        bps = evaluation.mean[at].peers_bps[peer]
        return None if bps is None else bps / 1000
    sizes = [(item.levels[at].peers[peer].num_bytes or 0) * 8 / item.num_units for item in evaluation.items]
    return math.fsum(sizes) / len(sizes)


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        reason = "a report needs matplotlib: pip install 'multitok[eval]'"
        raise MissingExtraError(reason, name="matplotlib") from error
    return Figure


def _file_name(text: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._")[:60] or "item"
