"""What the commands that train ask for in the same words.

A command takes its own options, `resume` and `live` by name; the others have the names of `TrainingOptions`:

    def command(paths: tuple[Path, ...], out: Path, run: Path | None, resume: bool, live: bool | None, **chosen: Any):
        options = TrainingOptions(**chosen)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from multitok.cli.options import new_folder

_Command = TypeVar("_Command", bound=Callable[..., Any])


def data_options(function: _Command) -> _Command:
    """Add paths, of the data, and out."""
    return _with(
        function,
        click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
        click.option(
            "--out",
            required=True,
            type=click.Path(path_type=Path),
            callback=new_folder,
            help="Checkpoint folder to write.",
        ),
    )


def schedule_options(
    *, batch: str, steps: str = "preset", learning_rate: str = "preset"
) -> Callable[[_Command], _Command]:
    """Add minutes, steps, batch, learning_rate and seed.

    Args:
        batch: What --batch counts, with its default.
        steps: The default of --steps.
        learning_rate: The default of --learning-rate.
    """
    rate = click.FloatRange(0, 1, min_open=True, max_open=True)
    return lambda function: _with(
        function,
        click.option("--minutes", type=click.FloatRange(0, min_open=True), help="About how long; in place of --steps."),
        click.option("--steps", type=click.IntRange(1), help=f"Optimiser steps. [{steps}]"),
        click.option("--batch", type=click.IntRange(1), help=batch),
        click.option("--learning-rate", type=rate, help=f"[{learning_rate}]"),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    )


def loop_options(function: _Command) -> _Command:
    """Add patience, eval_every, save_every, precision, device and tensorboard; and resume and live."""
    return _with(
        function,
        click.option("--patience", type=click.IntRange(1), help="Stop after so many measurements without a gain."),
        click.option("--eval-every", type=click.IntRange(1), default=250, show_default=True, help="Steps."),
        click.option("--save-every", type=click.IntRange(1), default=250, show_default=True, help="Steps."),
        click.option("--resume", is_flag=True, help="Go on with the run in the run folder."),
        click.option(
            "--precision",
            type=click.Choice(["auto", "bf16", "fp32"]),
            default="auto",
            show_default=True,
            help="Of the nets.",
        ),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:1."),
        click.option("--tensorboard", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True),
        click.option("--live/--no-live", default=None, help="Live view. [on a terminal]"),
    )


def run_folder(run: Path | None, out: Path) -> Path:
    """Of a command with the options run and out."""
    return run or out.with_name(f"{out.name}-run")


def _with(function: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    """The options, as they are to be listed."""
    for option in reversed(options):
        function = option(function)
    return function
