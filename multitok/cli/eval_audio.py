"""`multitok eval audio`: how good is a tokenizer of sound?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    from multitok.metrics import AudioEvaluation, AudioEvaluator, ReportWriter


def _levels(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """ "1,4,8" -> (1, 4, 8)."""
    try:
        return None if text is None else tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: write numbers of codebooks, such as 1,4,8") from error


@click.command(name="audio", short_help="Measure tokenizers of sound.")
@click.argument("targets", nargs=-1, required=True, metavar="CHECKPOINT... FILE...")
@click.option(
    "--published",
    multiple=True,
    callback=published_pairs,
    metavar="KIND=PATH",
    help="A published checkpoint to measure too; repeatable.",
)
@click.option("--levels", callback=_levels, metavar="NUMBERS", help="Numbers of first codebooks. [1, 2, 4, 8 ... all]")
@click.option("--measures", callback=comma_separated, metavar="NAMES", help="Measures of quality. [all but two]")
@click.option("--peers", callback=comma_separated, metavar="NAMES", help="Known codecs, or none. [Opus, codec2]")
@click.option("--changes", callback=comma_separated, metavar="NAMES", help="Changes to survive, or none. [all]")
@click.option("--labels", type=click.Path(path_type=Path, exists=True), help="Phone labels: file or folder.")
@click.option("--recognise", metavar="NAME", help="Count word errors by pocketsphinx or a model's folder.")
@click.option("--transcripts", type=click.Path(path_type=Path, exists=True), help="JSON: clip to what is said in it.")
@click.option("--runs", type=click.IntRange(0), default=3, show_default=True, help="Timed runs; 0 times nothing.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the tokenizer. [as torch has it]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures; - prints them.")
@click.option("--report", "folder", type=click.Path(path_type=Path), help="Write a page with plots and spectrograms.")
def audio_command(
    targets: tuple[str, ...],
    published: tuple[tuple[str, str], ...],
    labels: Path | None,
    recognise: str | None,
    transcripts: Path | None,
    json_file: Path | None,
    folder: Path | None,
    measures: tuple[str, ...] | None,
    **options: Any,
) -> None:
    """Measure CHECKPOINTs (shipped names, or folders) on sound FILEs and folders of them.

    For numbers of first codebooks: bitrate, PESQ, STOI, DistillMOS, distances of spectra, and what known codecs do in
    as many bits; the share of codes that survive small changes; use of the codebooks; speed. With --labels (TextGrid,
    .lab, CTM, JSON) also what the units of the first codebook tell of phones and speakers, beside MFCC. A file that
    cannot be read is named, the others are measured, and the exit status is 1. docs/evaluation.md says what each
    figure means.
    """
    from multitok.metrics import AudioEvaluator, ReportWriter
    from multitok.metrics.audio_labels import read_labels
    from multitok.metrics.audio_quality import USUAL_MEASURES
    from multitok.metrics.audio_words import recogniser
    from multitok.protocol import Modality

    if json_file not in (None, STDOUT) and not json_file.parent.is_dir():
        raise click.BadParameter(f"{json_file.parent}: there is no such folder", param_hint="--json")
    options["measures"] = USUAL_MEASURES if measures is None else measures
    options["labels"] = None if labels is None else read_labels(labels)
    options["recognise"] = None if recognise is None else recogniser(recognise)
    options["transcripts"] = None if transcripts is None else _transcripts(transcripts)
    names, paths = split_targets(targets)
    tokenizers = load_tokenizers(names, published, Modality.AUDIO)
    files = files_of(paths, Modality.AUDIO)
    report = None if folder is None else ReportWriter(folder)
    evaluators = []
    for name, tokenizer in tokenizers.items():
        watch = None if report is None else report.watcher(name)
        evaluators.append(AudioEvaluator(tokenizer, name=name, watch=watch, **options))
    num_failed, shown = 0, shown_names(files)
    for number, path in enumerate(files, 1):
        if sys.stderr.isatty():
            click.echo(f"[{number}/{len(files)}] {path}", err=True)
        num_failed += not _measured(path, shown[path], evaluators)
    _show([evaluator.result() for evaluator in evaluators], json_file, report)
    if num_failed:
        click.echo(f"{num_failed} of {len(files)} files could not be measured", err=True)
        sys.exit(1)


def _transcripts(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(clip): str(text) for clip, text in found.items()}
    except (ValueError, AttributeError) as error:
        raise click.BadParameter(f"{path}: write JSON, clip to text", param_hint="--transcripts") from error


def _measured(path: Path, name: str, evaluators: Sequence[AudioEvaluator]) -> bool:
    """Measure a file with every tokenizer; False, and a line that says why, where one cannot."""
    from multitok.cli.messages import print_error
    from multitok.errors import InputError
    from multitok.frontend import media
    from multitok.protocol import Modality

    try:
        wave: Any = media.read(path, modality=Modality.AUDIO)
        known = {evaluator.rate_hz: evaluator.peers(name, wave) for evaluator in evaluators}
    except (InputError, OSError) as error:
        print_error(error)
        for evaluator in evaluators:
            evaluator.fail(name, str(error))
        return False
    failures = [evaluator.add(name, wave, peers=known[evaluator.rate_hz]) for evaluator in evaluators]
    for failure in dict.fromkeys(failure for failure in failures if failure is not None):
        print_error(InputError(f"{path}: {failure.reason}"))
    return not any(failures)


def _show(evaluations: Sequence[AudioEvaluation], json_file: Path | None, report: ReportWriter | None) -> None:
    from multitok.cli.tables import print_table
    from multitok.metrics import audio_tables

    text = json.dumps([one.to_json() for one in evaluations], indent=2, ensure_ascii=False, allow_nan=False)
    if json_file == STDOUT:
        click.echo(text)
    else:
        for evaluation in evaluations:
            if not evaluation.items:
                continue
            header, rows = audio_tables.quality_rows(evaluation)
            print_table(f"{evaluation.tokenizer} ({evaluation.kind})", header, rows, right=" ".join(header[1:]))
            if evaluation.stability:
                header, rows = audio_tables.stability_rows(evaluation)
                print_table("codes that stay equal", header, rows, right=" ".join(header))
            if evaluation.units is not None:
                header, rows = audio_tables.unit_rows(evaluation)
                print_table("", header, rows, right=" ".join(header[1:]))
            header, rows = audio_tables.codebook_rows(evaluation)
            print_table("", header, rows, right=" ".join(header[1:]))
            if evaluation.speed is not None:
                click.echo(audio_tables.speed_line(evaluation))
    if json_file not in (None, STDOUT):
        json_file.write_text(text + "\n", encoding="utf-8")
    if report is not None:
        click.echo(f"report: {report.finish(evaluations)}", err=json_file == STDOUT)
