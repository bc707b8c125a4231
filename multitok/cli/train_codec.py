"""`multitok train codec`: a neural sound tokenizer from recordings."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

import click

from multitok.train.codec_presets import DEFAULT_PRESET, PRESETS


def _out(context: click.Context, option: click.Parameter, out: Path) -> Path:
    # Now, and not when hours of training are to be saved.
    if out.exists():
        raise click.BadParameter(f"{out} exists already: choose another folder or remove it first")
    return out


@click.command(name="codec")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), callback=_out, help="Checkpoint folder to write."
)
@click.option("--run", type=click.Path(path_type=Path), help="Run folder: decoded sound, log, states. [OUT-run]")
@click.option("--preset", type=click.Choice(list(PRESETS)), default=DEFAULT_PRESET, show_default=True)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="About how long; in place of --steps.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps. [preset]")
@click.option("--batch", type=click.IntRange(1), help="Clips of a second a step. [preset]")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="[preset]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--vocoder", help="Checkpoint whose vocoder the decoder starts from, such as dmel-vocoder.")
@click.option("--semantic", help="Checkpoint of speech units whose features the first codebook learns.")
@click.option("--held-out", type=click.IntRange(0), help="Files to measure on. [a tenth, at most 8]")
@click.option("--patience", type=click.IntRange(1), help="Stop after so many measurements without a gain.")
@click.option("--eval-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
@click.option("--save-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
@click.option("--from", "start_from", help="Codec checkpoint to start from.")
@click.option("--resume", is_flag=True, help="Go on with the run in the run folder.")
@click.option(
    "--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True, help="Of the nets."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--tensorboard", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--live/--no-live", default=None, help="Live view. [on a terminal]")
@click.option("--name", default="audio", show_default=True, help="Name inside a vocabulary.")
def codec_command(
    paths: tuple[Path, ...],
    out: Path,
    run: Path | None,
    preset: str,
    minutes: float | None,
    steps: int | None,
    batch: int | None,
    learning_rate: float | None,
    seed: int,
    vocoder: str | None,
    semantic: str | None,
    held_out: int | None,
    patience: int | None,
    eval_every: int,
    save_every: int,
    start_from: str | None,
    resume: bool,
    precision: Literal["auto", "bf16", "fp32"],
    device: str,
    tensorboard: Literal["auto", "on", "off"],
    live: bool | None,
    name: str,
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
        run or out.with_name(f"{out.name}-run"),
        preset=preset,
        options=TrainingOptions(
            seed=seed,
            steps=steps,
            minutes=minutes,
            batch=batch,
            learning_rate=learning_rate,
            held_out=held_out,
            eval_every=eval_every,
            save_every=save_every,
            patience=patience,
            precision=precision,
            device=device,
            tensorboard=tensorboard,
        ),
        vocoder=vocoder,
        start_from=start_from,
        semantic=semantic,
        resume=resume,
        name=name,
        command=_shown(sys.argv[1:]),
        show=live,
    )
    click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")


def _shown(arguments: list[str]) -> str:
    """The command line, with paths cut to their last name: a card travels, folders of this machine do not."""
    shown = [Path(each).name if each.startswith(("/", "~", "../")) else each for each in arguments]
    return shlex.join(["multitok", *(each for each in shown if each != "--resume")])
