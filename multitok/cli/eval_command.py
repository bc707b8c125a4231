"""`multitok eval`: how good is a tokenizer?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.cli.eval_audio import audio_command
from multitok.cli.eval_run import check_json_file, measure_files, output_options, subject_options
from multitok.cli.eval_targets import comma_separated

if TYPE_CHECKING:
    from multitok.metrics import Evaluation, Evaluator, Peers


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
    @subject_options
    @click.option("--peers", callback=comma_separated, metavar="NAMES", help=f"Known codecs, or none. [{what}]")
    @output_options("pictures")
    def evaluate(
        targets: tuple[str, ...],
        published: tuple[tuple[str, str], ...],
        peers: tuple[str, ...] | None,
        runs: int,
        threads: int | None,
        json_file: Path | None,
        folder: Path | None,
    ) -> None:
        from multitok.metrics import Evaluator
        from multitok.metrics.peers import check_peers
        from multitok.protocol import Modality

        kind = Modality(modality)
        check_json_file(json_file)
        check_peers(kind, peers)
        measure_files(
            targets,
            published,
            kind,
            evaluator=partial(Evaluator, peers=peers, runs=runs, threads=threads),
            known_codecs=_known_codecs,
            show=_show,
            json_file=json_file,
            folder=folder,
        )

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


def _known_codecs(evaluators: Sequence[Evaluator], name: str, raw: Any) -> list[Peers]:
    """Those of one range of values are shared."""
    spans = [evaluator.value_range(raw) for evaluator in evaluators]
    known: dict[tuple[float, float], Peers] = {}
    for span, evaluator in zip(spans, evaluators, strict=True):
        if span not in known:
            known[span] = evaluator.peers(raw)
    return [known[span] for span in spans]


def _show(evaluation: Evaluation) -> None:
    from multitok.cli.tables import print_table
    from multitok.metrics import tables

    header, rows = tables.quality_rows(evaluation)
    right = " ".join(name for name in header if name not in tables.LEFT and " " not in name)
    print_table(f"{evaluation.tokenizer} ({evaluation.kind})", header, rows, right=right)
    header, rows = tables.codebook_rows(evaluation)
    print_table("", header, rows, right=" ".join(header[1:]))
    if evaluation.speed is not None:
        click.echo(tables.speed_line(evaluation))
