"""`multitok train student`: speech units that stream, learned from units that do not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from multitok.cli.options import new_folder, shown_command


@click.command(name="student")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), callback=new_folder, help="Checkpoint folder to write."
)
@click.option("--teacher", default="semantic-whisper-base", show_default=True, help="Checkpoint of speech units.")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder: decoded sound, targets, states. [OUT-run]")
@click.option("--preset", type=click.Choice(["student", "student-small"]), default="student", show_default=True)
@click.option(
    "--voices",
    type=click.Choice(["folder", "file", "one"]),
    default="folder",
    show_default=True,
    help="What is one voice: the files of a folder, each file, or all of them.",
)
@click.option(
    "--noise",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Other sound that is mixed in, such as music; repeatable.",
)
@click.option("--codebook-size", type=click.Choice(["100", "500", "2000"]), default="500", show_default=True)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="About how long; in place of --steps.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps. [2500]")
@click.option("--batch", type=click.IntRange(1), help="Clips of 5.12 s a step. [12]")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="[0.002]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--patience", type=click.IntRange(1), help="Stop after so many measurements without a gain.")
@click.option("--eval-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
@click.option("--save-every", type=click.IntRange(1), default=250, show_default=True, help="Steps.")
@click.option("--resume", is_flag=True, help="Go on with the run in the run folder.")
@click.option(
    "--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True, help="Of the net."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--tensorboard", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--live/--no-live", default=None, help="Live view. [on a terminal]")
@click.option("--name", default="speech", show_default=True, help="Name inside a vocabulary.")
def student_command(
    paths: tuple[Path, ...],
    out: Path,
    teacher: str,
    run: Path | None,
    preset: str,
    voices: Literal["folder", "file", "one"],
    noise: tuple[Path, ...],
    codebook_size: str,
    minutes: float | None,
    steps: int | None,
    batch: int | None,
    learning_rate: float | None,
    seed: int,
    patience: int | None,
    eval_every: int,
    save_every: int,
    resume: bool,
    precision: Literal["auto", "bf16", "fp32"],
    device: str,
    tensorboard: Literal["auto", "on", "off"],
    live: bool | None,
    name: str,
) -> None:
    """Streaming speech units from speech files and folders, taught by other speech units.

    The teacher may look seconds ahead, the student looks 67.5 ms ahead. Put each voice into a folder of its own: then
    what tells voices apart is taken out of what is learned.

    \b
    multitok train student speech/ --out my-units --minutes 60
    multitok train student speech/ --out my-units --noise music/ --teacher semantic-whisper-base
    """
    from multitok.checkpoint import save
    from multitok.train.options import TrainingOptions
    from multitok.train.train_student import train_student

    result = train_student(
        paths,
        run or out.with_name(f"{out.name}-run"),
        teacher=teacher,
        config=preset,
        codebook_size=int(codebook_size),
        voices=voices,
        noise=noise or None,
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
        resume=resume,
        name=name,
        command=shown_command(sys.argv[1:]),
        show=live,
    )
    click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")
