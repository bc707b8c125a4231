"""`multitok eval`: how good is a tokenizer?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.cli.eval_audio import audio_command
from multitok.cli.eval_targets import (
    STDOUT,
    comma_separated,
    files_of,
    load_tokenizers,
    published_pairs,
    shown_names,
    split_targets,
)

if TYPE_CHECKING:
    from multitok.metrics import Evaluation, Evaluator, ReportWriter
    from multitok.protocol import Modality


@click.group(name="eval")
def command() -> None:
    """Measure tokenizers on your own files: quality, rate, use of the codes, speed, and known codecs beside them.

    \b
    multitok eval image image-patch8 photos/
    multitok eval image image-patch8 runs/mine photos/ --report report/
    multitok eval volume volume-patch4 brain.nii.gz --peers none --json -
    multitok eval audio dmel-80hz speech/ --labels alignments/
    """


def _modality_command(modality: str, what: str) -> None:
    @click.argument("targets", nargs=-1, required=True, metavar="CHECKPOINT... FILE...")
    @click.option(
        "--published",
        multiple=True,
        callback=published_pairs,
        metavar="KIND=PATH",
        help="A published checkpoint to measure too; repeatable.",
    )
    @click.option("--peers", callback=comma_separated, metavar="NAMES", help=f"Known codecs, or none. [{what}]")
    @click.option("--runs", type=click.IntRange(0), default=3, show_default=True, help="Timed runs; 0 times nothing.")
    @click.option("--threads", type=click.IntRange(1), help="Threads of the tokenizer. [as torch has it]")
    @click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures; - prints them.")
    @click.option("--report", "folder", type=click.Path(path_type=Path), help="Write a page with plots and pictures.")
    def evaluate(
        targets: tuple[str, ...],
        published: tuple[tuple[str, str], ...],
        peers: tuple[str, ...] | None,
        runs: int,
        threads: int | None,
        json_file: Path | None,
        folder: Path | None,
    ) -> None:
        from multitok.metrics import Evaluator, ReportWriter
        from multitok.metrics.peers import check_peers
        from multitok.protocol import Modality

        kind = Modality(modality)
        if json_file not in (None, STDOUT) and not json_file.parent.is_dir():
            raise click.BadParameter(f"{json_file.parent}: there is no such folder", param_hint="--json")
        check_peers(kind, peers)
        names, paths = split_targets(targets)
        tokenizers = load_tokenizers(names, published, kind)
        files = files_of(paths, kind)
        report = None if folder is None else ReportWriter(folder)
        evaluators = []
        for name, tokenizer in tokenizers.items():
            watch = None if report is None else report.watcher(name)
            evaluators.append(Evaluator(tokenizer, name=name, peers=peers, runs=runs, threads=threads, watch=watch))
        num_failed, shown = 0, shown_names(files)
        for number, path in enumerate(files, 1):
            if sys.stderr.isatty():
                click.echo(f"[{number}/{len(files)}] {path}", err=True)
            num_failed += not _measured(path, shown[path], kind, evaluators)
        _show([evaluator.result() for evaluator in evaluators], json_file, report)
        if num_failed:
            click.echo(f"{num_failed} of {len(files)} files could not be measured", err=True)
            sys.exit(1)

    text = f"""Measure CHECKPOINTs (shipped names, or folders) on {modality} FILEs and folders of them.

    For every number of first codebooks: PSNR, SSIM, bits per {"voxel" if modality == "volume" else "pixel"}, and the
    best that {what} does in as many bits. A file that cannot be read is named, the others are measured, and the exit
    status is 1. docs/evaluation.md says what each figure means.
    """
    command.command(name=modality, help=text, short_help=f"Measure {modality} tokenizers.")(evaluate)


_modality_command("image", "JPEG, JPEG 4:4:4, WebP, AVIF")
_modality_command("video", "x264, x265")
_modality_command("volume", "JPEG 2000, x265")
command.add_command(audio_command)


def _measured(path: Path, name: str, modality: Modality, evaluators: Sequence[Evaluator]) -> bool:
    """Measure a file with every tokenizer; False, and a line that says why, where one cannot."""
    from multitok.cli.messages import print_error
    from multitok.errors import InputError
    from multitok.frontend import media

    try:
        raw: Any = media.read(path, modality=modality)
    except (InputError, OSError) as error:
        print_error(error)
        for evaluator in evaluators:
            evaluator.fail(name, str(error))
        return False
    known: dict[tuple[float, float], Any] = {}
    failures = []
    for evaluator in evaluators:
        span = evaluator.value_range(raw)
        if span not in known:
            known[span] = evaluator.peers(raw)
        failures.append(evaluator.add(name, raw, peers=known[span]))
    for failure in dict.fromkeys(failure for failure in failures if failure is not None):
        print_error(InputError(f"{path}: {failure.reason}"))
    return not any(failures)


def _show(evaluations: Sequence[Evaluation], json_file: Path | None, report: ReportWriter | None) -> None:
    from multitok.cli.tables import print_table
    from multitok.metrics import tables

    text = json.dumps([one.to_json() for one in evaluations], indent=2, ensure_ascii=False, allow_nan=False)
    if json_file == STDOUT:
        click.echo(text)
    else:
        for evaluation in evaluations:
            if not evaluation.items:
                continue
            header, rows = tables.quality_rows(evaluation)
            right = " ".join(name for name in header if name not in tables.LEFT and " " not in name)
            print_table(f"{evaluation.tokenizer} ({evaluation.kind})", header, rows, right=right)
            header, rows = tables.codebook_rows(evaluation)
            print_table("", header, rows, right=" ".join(header[1:]))
            if evaluation.speed is not None:
                click.echo(tables.speed_line(evaluation))
    if json_file not in (None, STDOUT):
        json_file.write_text(text + "\n", encoding="utf-8")
    if report is not None:
        page = report.finish(evaluations)
        click.echo(f"report: {page}", err=json_file == STDOUT)
