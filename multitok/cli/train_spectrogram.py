"""`multitok train vocoder` and `mel-vq`: spectrogram tokens, and the net that makes sound of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from multitok.cli.options import shown_command
from multitok.cli.training_options import data_options, loop_options, run_folder, schedule_options


@click.command(name="vocoder")
@data_options
@click.option("--tokenizer", default="dmel-80hz", show_default=True, help="Checkpoint whose codes it makes sound of.")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder: decoded sound, log, states. [OUT-run]")
@click.option("--preset", type=click.Choice(["vocoder", "vocoder-small"]), default="vocoder", show_default=True)
@schedule_options(batch="Clips of 0.8 s a step. [24]", steps="2850", learning_rate="0.002")
@click.option("--from", "start_from", help="Checkpoint whose vocoder to start from.")
@loop_options
def vocoder_command(
    paths: tuple[Path, ...],
    out: Path,
    tokenizer: str,
    run: Path | None,
    preset: str,
    start_from: str | None,
    resume: bool,
    live: bool | None,
    **chosen: Any,
) -> None:
    """A vocoder from sound files and folders, for a tokenizer of spectrograms.

    The result is that tokenizer, with the same codes, decoding by the vocoder.

    \b
    multitok train vocoder recordings/ --out my-dmel --minutes 60
    multitok train vocoder recordings/ --out my-mel-vq --tokenizer mel-vq --from mel-vq
    """
    from multitok.checkpoint import save
    from multitok.train.options import TrainingOptions
    from multitok.train.train_vocoder import train_vocoder

    result = train_vocoder(
        paths,
        run_folder(run, out),
        tokenizer=tokenizer,
        config=preset,
        options=TrainingOptions(**chosen),
        start_from=start_from,
        resume=resume,
        command=shown_command(sys.argv[1:]),
        show=live,
    )
    click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")
