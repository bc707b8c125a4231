"""`multitok train image`, `video` and `volume`: a neural tokenizer from files, folders, tars and tables."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

import click

from multitok.protocol import Modality
from multitok.train.presets import DEFAULT_PRESETS, PRESETS

_Choice = click.Choice

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


def _out(context: click.Context, option: click.Parameter, out: Path) -> Path:
    # Now, and not when hours of training are to be saved.
    if out.exists():
        raise click.BadParameter(f"{out} exists already: choose another folder or remove it first")
    return out


def autoencoder_command(modality: Modality) -> click.Command:
    """The command for one modality.

    Args:
        modality: Image, video or volume.
    """

    @click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
    @click.option(
        "--out", required=True, type=click.Path(path_type=Path), callback=_out, help="Checkpoint folder to write."
    )
    @click.option("--run", type=click.Path(path_type=Path), help="Run folder: log, states, pictures. [OUT-run]")
    @click.option(
        "--preset",
        type=_Choice([name for name, each in PRESETS.items() if each.modality is modality]),
        default=DEFAULT_PRESETS[modality],
        show_default=True,
    )
    @click.option("--minutes", type=click.FloatRange(0, min_open=True), help="About how long; in place of --steps.")
    @click.option("--steps", type=click.IntRange(1), help="Optimiser steps. [preset]")
    @click.option("--batch", type=click.IntRange(1), help="Crops a step, on each rank. [preset]")
    @click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="[preset]")
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
    @click.option(
        "--held-out",
        multiple=True,
        type=click.Path(path_type=Path, exists=True),
        help="What to measure on; repeatable. [a tenth of the items, at most 8]",
    )
    @click.option("--patience", type=click.IntRange(1), help="Stop after so many measurements without a gain.")
    @click.option("--eval-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
    @click.option("--save-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
    @click.option("--from", "start_from", help="Checkpoint or finished run folder to start from.")
    @click.option("--resume", is_flag=True, help="Go on with the run in the run folder.")
    @click.option("--precision", type=_Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True)
    @click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:1.")
    @click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Threads that read files.")
    @click.option("--tensorboard", type=_Choice(["auto", "on", "off"]), default="auto", show_default=True)
    @click.option("--live/--no-live", default=None, help="Live view. [on a terminal]")
    @click.option("--name", help="Name inside a vocabulary. [by modality]")
    def train(
        paths: tuple[Path, ...],
        out: Path,
        run: Path | None,
        preset: str,
        minutes: float | None,
        steps: int | None,
        batch: int | None,
        learning_rate: float | None,
        seed: int,
        held_out: tuple[Path, ...],
        patience: int | None,
        eval_every: int,
        save_every: int,
        start_from: str | None,
        resume: bool,
        precision: Literal["auto", "bf16", "fp32"],
        device: str,
        workers: int,
        tensorboard: Literal["auto", "on", "off"],
        live: bool | None,
        name: str | None,
    ) -> None:
        from multitok.checkpoint import save
        from multitok.prepare.training_items import open_items
        from multitok.train.options import TrainingOptions
        from multitok.train.train_autoencoder import train_autoencoder

        result = train_autoencoder(
            open_items(paths, modality),
            run or out.with_name(f"{out.name}-run"),
            preset=preset,
            options=TrainingOptions(
                seed=seed,
                steps=steps,
                minutes=minutes,
                batch=batch,
                learning_rate=learning_rate,
                eval_every=eval_every,
                save_every=save_every,
                patience=patience,
                precision=precision,
                device=device,
                workers=workers,
                tensorboard=tensorboard,
            ),
            held_out=open_items(held_out, modality) if held_out else None,
            start_from=start_from,
            resume=resume,
            name=name,
            command=_shown(sys.argv[1:]),
            show=live,
        )
        if result is not None:
            click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")

    train.__doc__ = _HELP.format(what=_WHAT[modality], modality=modality.value, example=_EXAMPLES[modality])
    return click.command(name=modality.value)(train)


def _shown(arguments: list[str]) -> str:
    """The command line, with paths cut to their last name: a card travels, folders of this machine do not."""
    shown = [Path(each).name if each.startswith(("/", "~", "../")) else each for each in arguments]
    return shlex.join(["multitok", *(each for each in shown if each != "--resume")])
