"""`multitok train image`, `video` and `volume`: a neural tokenizer from files, folders, tars and tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from multitok.cli.options import shown_command
from multitok.cli.training_options import data_options, loop_options, run_folder, schedule_options
from multitok.protocol import Modality
from multitok.train.presets import DEFAULT_PRESETS, PRESETS

_WHAT = {
    Modality.IMAGE: "A neural image tokenizer from photos",
    Modality.VIDEO: "A neural video tokenizer from clips",
    Modality.VOLUME: "A neural volume tokenizer from scans or meshes",
}
_HELP = """{what}: files, folders, WebDataset .tar, .jsonl or .parquet documents.

    A few items are kept out of training to measure on, and files that cannot be read are left out and listed. The run
    folder holds the log, pictures and states; --resume goes on where a killed run was, and ends with the same bytes.

    \b
    multitok train {modality} {example}/ --out my-{modality} --minutes 30
    torchrun --nproc-per-node 8 -m multitok.cli train {modality} {example}/ --out my-{modality}
    """
_EXAMPLES = {Modality.IMAGE: "photos", Modality.VIDEO: "clips", Modality.VOLUME: "scans"}


def autoencoder_command(modality: Modality) -> click.Command:
    """The command for one modality.

    Args:
        modality: Image, video or volume.
    """

    @data_options
    @click.option("--run", type=click.Path(path_type=Path), help="Run folder: log, states, pictures. [OUT-run]")
    @click.option(
        "--preset",
        type=click.Choice([name for name, each in PRESETS.items() if each.modality is modality]),
        default=DEFAULT_PRESETS[modality],
        show_default=True,
    )
    @schedule_options(batch="Crops a step, on each rank. [preset]")
    @click.option(
        "--held-out",
        multiple=True,
        type=click.Path(path_type=Path, exists=True),
        help="What to measure on; repeatable. [a tenth of the items, at most 8]",
    )
    @click.option("--from", "start_from", help="Checkpoint or finished run folder to start from.")
    @loop_options
    @click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Threads that read files.")
    @click.option("--name", help="Name inside a vocabulary. [by modality]")
    def train(
        paths: tuple[Path, ...],
        out: Path,
        run: Path | None,
        preset: str,
        held_out: tuple[Path, ...],
        start_from: str | None,
        resume: bool,
        live: bool | None,
        name: str | None,
        **chosen: Any,
    ) -> None:
        from multitok.checkpoint import save
        from multitok.prepare.training_items import open_items
        from multitok.train.options import TrainingOptions
        from multitok.train.train_autoencoder import train_autoencoder

        result = train_autoencoder(
            open_items(paths, modality),
            run_folder(run, out),
            preset=preset,
            options=TrainingOptions(**chosen),
            held_out=open_items(held_out, modality) if held_out else None,
            start_from=start_from,
            resume=resume,
            name=name,
            command=shown_command(sys.argv[1:]),
            show=live,
        )
        if result is not None:
            click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")

    train.__doc__ = _HELP.format(what=_WHAT[modality], modality=modality.value, example=_EXAMPLES[modality])
    return click.command(name=modality.value)(train)
