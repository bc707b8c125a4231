"""`multitok train codec`: a neural sound tokenizer from recordings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from multitok.cli.options import shown_command
from multitok.cli.training_options import data_options, loop_options, run_folder, schedule_options
from multitok.train.codec_presets import DEFAULT_PRESET, PRESETS


@click.command(name="codec")
@data_options
@click.option("--run", type=click.Path(path_type=Path), help="Run folder: decoded sound, log, states. [OUT-run]")
@click.option("--preset", type=click.Choice(list(PRESETS)), default=DEFAULT_PRESET, show_default=True)
@schedule_options(batch="Clips of a second a step. [preset]")
@click.option("--vocoder", help="Checkpoint whose vocoder the decoder starts from, such as dmel-vocoder.")
@click.option("--semantic", help="Checkpoint of speech units whose features the first codebook learns.")
@click.option("--held-out", type=click.IntRange(0), help="Files to measure on. [a tenth, at most 8]")
@click.option("--from", "start_from", help="Codec checkpoint to start from.")
@loop_options
@click.option("--name", default="audio", show_default=True, help="Name inside a vocabulary.")
def codec_command(
    paths: tuple[Path, ...],
    out: Path,
    run: Path | None,
    preset: str,
    vocoder: str | None,
    semantic: str | None,
    start_from: str | None,
    resume: bool,
    live: bool | None,
    name: str,
    **chosen: Any,
) -> None:
    """A neural codec from recordings: files, folders, WebDataset .tar, .jsonl or .parquet documents.

    A few files are kept out of training to measure on, and files that cannot be read are left out and listed. The run
    folder holds decoded sound, log and states; --resume goes on where a killed run was, and ends with the same bytes.

    \b
    multitok train codec recordings/ --out my-codec --vocoder dmel-vocoder --minutes 60
    """
    from multitok.checkpoint import save
    from multitok.prepare.training_items import open_items
    from multitok.protocol import Modality
    from multitok.train.options import TrainingOptions
    from multitok.train.train_codec import train_codec

    result = train_codec(
        open_items(paths, Modality.AUDIO),
        run_folder(run, out),
        preset=preset,
        options=TrainingOptions(**chosen),
        vocoder=vocoder,
        start_from=start_from,
        semantic=semantic,
        resume=resume,
        name=name,
        command=shown_command(sys.argv[1:]),
        show=live,
    )
    click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")
