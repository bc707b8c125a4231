"""A folder to look at: `index.md`, curves of quality against rate, contact sheets, all figures as JSON.

report/
    index.md                    tables, plots and sheets, for any Markdown viewer
    evaluation.json             a list of `Evaluation.to_json`
    psnr.png  ssim.png          quality against bits per pixel or voxel, beside the known codecs
    sheets/<tokenizer>/<n>.png  original, levels and error maps of the first items
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from multitok.errors import InputError, MissingExtraError
from multitok.metrics import tables
from multitok.metrics.evaluate import Watcher
from multitok.metrics.evaluation import Evaluation
from multitok.metrics.quality import Quality
from multitok.metrics.sheets import write_sheet

MAX_SHEETS = 24
_Measure = Callable[[Quality], float | None]
_PLOTS: dict[str, tuple[str, _Measure]] = {
    "psnr": ("PSNR, dB", lambda quality: quality.psnr_db),
    "ssim": ("SSIM", lambda quality: quality.ssim),
}


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

    def finish(self, evaluations: Sequence[Evaluation]) -> Path:
        """Write tables, plots and JSON.

        Args:
            evaluations: One for each tokenizer, of the same items.

        Returns:
            The page, `index.md`.
        """
        found = [evaluation for evaluation in evaluations if evaluation.items]
        plots = [name for name in _PLOTS if found and _plot(self._folder / f"{name}.png", name, found)]
        data = [evaluation.to_json() for evaluation in evaluations]
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        (self._folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        parts = ["# " + ", ".join(evaluation.tokenizer for evaluation in evaluations)]
        parts += [f"![{_PLOTS[name][0]} against rate]({name}.png)" for name in plots]
        for evaluation in evaluations:
            parts += self._section(evaluation)
        page = self._folder / "index.md"
        page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        return page

    def _section(self, evaluation: Evaluation) -> list[str]:
        versions = ", ".join(f"{package} {version}" for package, version in evaluation.versions.items())
        parts = [f"## {evaluation.tokenizer}", f"{evaluation.kind}, fingerprint `{evaluation.fingerprint}`; {versions}"]
        if evaluation.items:
            parts += [tables.markdown(*tables.quality_rows(evaluation)), _NOTE]
            parts += [tables.markdown(*tables.codebook_rows(evaluation)), tables.speed_line(evaluation)]
        parts += [
            f"{item.name}: {item.clipped_share:.2%} of its voxels lie outside the tokenizer's window and were "
            "measured as its ends."
            for item in evaluation.items
            if item.clipped_share
        ]
        parts += [f"Not measured: {failure.name}: {failure.reason}" for failure in evaluation.failures]
        parts += [_missing_peers(evaluation)]
        sheets = self._sheets.get(evaluation.tokenizer, {})
        parts += [f"{name}\n\n![{name}]({path})" for name, path in sheets.items()]
        return [part for part in parts if part]


_NOTE = (
    "Rates are nominal and after ideal entropy coding. A known codec's column: PSNR and SSIM of its best file that "
    'takes no more than the nominal bits; "-" where its smallest file takes more.'
)


def _missing_peers(evaluation: Evaluation) -> str:
    lines = [
        f"- {item.name}, {level.num_codebooks} codebook{'s' * (level.num_codebooks > 1)}: no {name}: {peer.reason}"
        for item in evaluation.items
        for level in item.levels
        for name, peer in level.peers.items()
        if peer.quality is None
    ]
    return "\n".join(lines)


def _plot(path: Path, name: str, evaluations: Sequence[Evaluation]) -> bool:
    """Draw one measure against the rate; False where no item has it."""
    label, measure = _PLOTS[name]
    figure = _figure_class()(figsize=(7.5, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    drawn = [
        _draw(axes, evaluation.tokenizer, _points(evaluation, measure), linewidth=2.2, marker="o")
        for evaluation in evaluations
    ]
    if not any(drawn):
        return False
    known = {peer: None for evaluation in evaluations for peer in evaluation.mean[0].peers}
    for peer in known:
        points = {rate: value for one in evaluations for rate, value in _peer_points(one, peer, measure)}
        _draw(axes, peer, sorted(points.items()), linewidth=1.2, marker=".", linestyle="--")
    axes.set_xscale("log")
    for direction in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        direction("{x:.3g}")
    axes.set_xlabel(f"bits per {evaluations[0].unit}, mean over the items")
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


def _points(evaluation: Evaluation, measure: _Measure) -> list[tuple[float, float]]:
    found = [(level.nominal_bits_per_unit, measure(level.quality)) for level in evaluation.mean]
    return [(rate, value) for rate, value in found if value is not None and math.isfinite(value)]


def _peer_points(evaluation: Evaluation, peer: str, measure: _Measure) -> list[tuple[float, float]]:
    """At the rate that its files really took, mean over the items."""
    points = []
    for at, level in enumerate(evaluation.mean):
        quality = level.peers.get(peer)
        value = measure(quality) if quality else None
        if value is not None and math.isfinite(value):
            sizes = [(item.levels[at].peers[peer].num_bytes or 0) * 8 / item.num_units for item in evaluation.items]
            points.append((math.fsum(sizes) / len(sizes), value))
    return points


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
