"""How each command of `multitok eval` goes through its files: options, evaluators, failures, what is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from multitok.cli.eval_targets import files_of, load_tokenizers, published_pairs, shown_names, split_targets

if TYPE_CHECKING:
    from multitok.metrics import AudioEvaluator, Evaluator, ReportWriter
    from multitok.protocol import Modality

    AnyEvaluator = TypeVar("AnyEvaluator", Evaluator, AudioEvaluator)

STDOUT = Path("-")
Command = Callable[..., None]


def subject_options(command: Command) -> Command:
    """What is measured: checkpoints and files, published checkpoints."""
    published = click.option(
        "--published",
        multiple=True,
        callback=published_pairs,
        metavar="KIND=PATH",
        help="A published checkpoint to measure too; repeatable.",
    )
    return click.argument("targets", nargs=-1, required=True, metavar="CHECKPOINT... FILE...")(published(command))


def output_options(drawn: str) -> Callable[[Command], Command]:
    """How it is timed and where figures go; a report has plots and what is `drawn`."""
    runs = click.option(
        "--runs", type=click.IntRange(0), default=3, show_default=True, help="Timed runs; 0 times nothing."
    )
    threads = click.option("--threads", type=click.IntRange(1), help="Threads of the tokenizer. [as torch has it]")
    path = click.Path(path_type=Path)
    figures = click.option("--json", "json_file", type=path, help="Write all figures; - prints them.")
    report = click.option("--report", "folder", type=path, help=f"Write a page with plots and {drawn}.")
    return lambda command: runs(threads(figures(report(command))))


def check_json_file(json_file: Path | None) -> None:
    """Refuse a file in a folder that does not exist, before hours of work."""
    if json_file not in (None, STDOUT) and not json_file.parent.is_dir():
        raise click.BadParameter(f"{json_file.parent}: there is no such folder", param_hint="--json")


def measure_files(
    targets: Sequence[str],
    published: Sequence[tuple[str, str]],
    modality: Modality,
    *,
    evaluator: Callable[..., AnyEvaluator],
    known_codecs: Callable[[Sequence[AnyEvaluator], str, Any], Sequence[Any]],
    show: Callable[[Any], None],
    json_file: Path | None,
    folder: Path | None,
) -> None:
    """Measure every tokenizer on every file; ends the process with status 1 where some file could not be measured.

    Args:
        targets: Checkpoints, files and folders.
        published: Kinds and paths of published checkpoints.
        modality: Of the files.
        evaluator: Makes one of a tokenizer, `name` and `watch`.
        known_codecs: Evaluators, an item's name and the item -> its known codecs for each of them.
        show: Prints the tables of an evaluation that has items.
        json_file: Where all figures go.
        folder: Where the report goes.
    """
    from multitok.metrics import ReportWriter

    names, paths = split_targets(targets)
    tokenizers = load_tokenizers(names, published, modality)
    files = files_of(paths, modality)
    report = None if folder is None else ReportWriter(folder)
    evaluators = []
    for name, tokenizer in tokenizers.items():
        watch = None if report is None else report.watcher(name)
        evaluators.append(evaluator(tokenizer, name=name, watch=watch))
    num_failed, shown = 0, shown_names(files)
    for number, path in enumerate(files, 1):
        if sys.stderr.isatty():
            click.echo(f"[{number}/{len(files)}] {path}", err=True)
        num_failed += not _measured(path, shown[path], modality, evaluators, known_codecs)
    _write([one.result() for one in evaluators], show, json_file, report)
    if num_failed:
        click.echo(f"{num_failed} of {len(files)} files could not be measured", err=True)
        sys.exit(1)


def _measured(
    path: Path,
    name: str,
    modality: Modality,
    evaluators: Sequence[AnyEvaluator],
    known_codecs: Callable[[Sequence[AnyEvaluator], str, Any], Sequence[Any]],
) -> bool:
    """Measure a file with every tokenizer; False, and a line that says why, where one cannot."""
    from multitok.cli.messages import print_error
    from multitok.errors import InputError
    from multitok.frontend import media

    try:
        raw: Any = media.read(path, modality=modality)
        known = known_codecs(evaluators, name, raw)
    except (InputError, OSError) as error:
        print_error(error)
        for evaluator in evaluators:
            evaluator.fail(name, str(error))
        return False
    failures = [evaluator.add(name, raw, peers=peers) for evaluator, peers in zip(evaluators, known, strict=True)]
    for failure in dict.fromkeys(failure for failure in failures if failure is not None):
        print_error(InputError(f"{path}: {failure.reason}"))
    return not any(failures)


def _write(
    evaluations: Sequence[Any], show: Callable[[Any], None], json_file: Path | None, report: ReportWriter | None
) -> None:
    text = json.dumps([one.to_json() for one in evaluations], indent=2, ensure_ascii=False, allow_nan=False)
    if json_file == STDOUT:
        click.echo(text)
    else:
        for evaluation in evaluations:
            if evaluation.items:
                show(evaluation)
    if json_file not in (None, STDOUT):
        json_file.write_text(text + "\n", encoding="utf-8")
    if report is not None:
        click.echo(f"report: {report.finish(evaluations)}", err=json_file == STDOUT)
