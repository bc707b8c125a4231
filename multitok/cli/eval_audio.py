"""`multitok eval audio`: how good is a tokenizer of sound?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.cli.eval_run import check_json_file, measure_files, output_options, subject_options
from multitok.cli.eval_targets import comma_separated

if TYPE_CHECKING:
    from multitok.metrics import AudioEvaluation, AudioEvaluator, AudioPeers


def _levels(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """ "1,4,8" -> (1, 4, 8)."""
    try:
        return None if text is None else tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: write numbers of codebooks, such as 1,4,8") from error


@click.command(name="audio", short_help="Measure tokenizers of sound.")
@subject_options
@click.option("--levels", callback=_levels, metavar="NUMBERS", help="Numbers of first codebooks. [1, 2, 4, 8 ... all]")
@click.option("--measures", callback=comma_separated, metavar="NAMES", help="Measures of quality. [all but two]")
@click.option("--peers", callback=comma_separated, metavar="NAMES", help="Known codecs, or none. [Opus, codec2]")
@click.option("--changes", callback=comma_separated, metavar="NAMES", help="Changes to survive, or none. [all]")
@click.option("--labels", type=click.Path(path_type=Path, exists=True), help="Phone labels: file or folder.")
@click.option("--recognise", metavar="NAME", help="Count word errors by pocketsphinx or a model's folder.")
@click.option("--transcripts", type=click.Path(path_type=Path, exists=True), help="JSON: clip to what is said in it.")
@output_options("spectrograms")
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
    from multitok.metrics import AudioEvaluator
    from multitok.metrics.audio_labels import read_labels
    from multitok.metrics.audio_quality import USUAL_MEASURES
    from multitok.metrics.audio_words import recogniser
    from multitok.protocol import Modality

    check_json_file(json_file)
    options["measures"] = USUAL_MEASURES if measures is None else measures
    options["labels"] = None if labels is None else read_labels(labels)
    options["recognise"] = None if recognise is None else recogniser(recognise)
    options["transcripts"] = None if transcripts is None else _transcripts(transcripts)
    measure_files(
        targets,
        published,
        Modality.AUDIO,
        evaluator=partial(AudioEvaluator, **options),
        known_codecs=_known_codecs,
        show=_show,
        json_file=json_file,
        folder=folder,
    )


def _transcripts(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(clip): str(text) for clip, text in found.items()}
    except (ValueError, AttributeError) as error:
        raise click.BadParameter(f"{path}: write JSON, clip to text", param_hint="--transcripts") from error


def _known_codecs(evaluators: Sequence[AudioEvaluator], name: str, wave: Any) -> list[AudioPeers]:
    """Those at one rate are shared."""
    known = {evaluator.rate_hz: evaluator.peers(name, wave) for evaluator in evaluators}
    return [known[evaluator.rate_hz] for evaluator in evaluators]


def _show(evaluation: AudioEvaluation) -> None:
    from multitok.cli.tables import print_table
    from multitok.metrics import audio_tables

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
