"""`multitok train vocoder` and `mel-vq`: spectrogram tokens, and the net that makes sound of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

import click


def _out(context: click.Context, option: click.Parameter, out: Path) -> Path:
    # Now, and not when hours of training are to be saved.
    if out.exists():
        raise click.BadParameter(f"{out} exists already: choose another folder or remove it first")
    return out


_PATHS = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
_OUT = click.option(
    "--out", required=True, type=click.Path(path_type=Path), callback=_out, help="Checkpoint folder to write."
)


@click.command(name="vocoder")
@_PATHS
@_OUT
@click.option("--tokenizer", default="dmel-80hz", show_default=True, help="Checkpoint whose codes it makes sound of.")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder: decoded sound, log, states. [OUT-run]")
@click.option("--preset", type=click.Choice(["vocoder", "vocoder-small"]), default="vocoder", show_default=True)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="About how long; in place of --steps.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps. [2850]")
@click.option("--batch", type=click.IntRange(1), help="Clips of 0.8 s a step. [24]")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="[0.002]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--patience", type=click.IntRange(1), help="Stop after so many measurements without a gain.")
@click.option("--eval-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
@click.option("--save-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
@click.option("--from", "start_from", help="Checkpoint whose vocoder to start from.")
@click.option("--resume", is_flag=True, help="Go on with the run in the run folder.")
@click.option(
    "--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True, help="Of the net."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--tensorboard", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--live/--no-live", default=None, help="Live view. [on a terminal]")
def vocoder_command(
    paths: tuple[Path, ...],
    out: Path,
    tokenizer: str,
    run: Path | None,
    preset: str,
    minutes: float | None,
    steps: int | None,
    batch: int | None,
    learning_rate: float | None,
    seed: int,
    patience: int | None,
    eval_every: int,
    save_every: int,
    start_from: str | None,
    resume: bool,
    precision: Literal["auto", "bf16", "fp32"],
    device: str,
    tensorboard: Literal["auto", "on", "off"],
    live: bool | None,
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
        run or out.with_name(f"{out.name}-run"),
        tokenizer=tokenizer,
        config=preset,
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
            tensorboard=tensorboard,
        ),
        start_from=start_from,
        resume=resume,
        command=_shown(sys.argv[1:]),
        show=live,
    )
    click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")


def _shown(arguments: list[str]) -> str:
    """The command line, with paths cut to their last name: a card travels, folders of this machine do not."""
    shown = [Path(each).name if each.startswith(("/", "~", "../")) else each for each in arguments]
    return shlex.join(["multitok", *(each for each in shown if each != "--resume")])
