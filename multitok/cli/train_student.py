"""`multitok train student`: speech units that stream, learned from units that do not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from multitok.cli.options import shown_command
from multitok.cli.training_options import data_options, loop_options, run_folder, schedule_options


@click.command(name="student")
@data_options
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
@schedule_options(batch="Clips of 5.12 s a step. [12]", steps="2500", learning_rate="0.002")
@loop_options
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
    resume: bool,
    live: bool | None,
    name: str,
    **chosen: Any,
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
        run_folder(run, out),
        teacher=teacher,
        config=preset,
        codebook_size=int(codebook_size),
        voices=voices,
        noise=noise or None,
        options=TrainingOptions(**chosen),
        resume=resume,
        name=name,
        command=shown_command(sys.argv[1:]),
        show=live,
    )
    click.echo(f"{save(result.tokenizer, out, card=result.card)}: {result.tokenizer!r}")
