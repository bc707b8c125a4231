"""What several commands ask for in the same words."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from multitok.frontend.media import ReadOptions
    from multitok.interleave import Template

LIMITS = ("max_bytes", "max_text_bytes", "max_pixels", "max_frames", "max_audio_s")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def new_folder(context: click.Context, option: click.Parameter, out: Path) -> Path:
    """The folder, if it is not there: asked now, and not when hours of training are to be saved."""
    if out.exists():
        raise click.BadParameter(f"{out} exists already: choose another folder or remove it first")
    return out


def shown_command(arguments: list[str]) -> str:
    """The command line, with paths cut to their last name: a card travels, folders of this machine do not."""
    shown = [Path(each).name if each.startswith(("/", "~", "../")) else each for each in arguments]
    return shlex.join(["multitok", *(each for each in shown if each != "--resume")])


def parse_size(text: str) -> int:
    """ "64M" -> 67108864."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise click.BadParameter(f"{text!r}: write a size such as 64M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _limits(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, int]:
    """["max_text_bytes=1G"] -> {"max_text_bytes": 2**30}."""
    limits = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if key not in LIMITS:
            raise click.BadParameter(f"{key!r}: the limits are {', '.join(LIMITS)}")
        if not equals:
            raise click.BadParameter(f"{pair!r}: write NAME=SIZE, such as {key}=64M")
        limits[key] = parse_size(text)
    return limits


def _use(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """["sequence=dna", ".faa=protein"] -> {"sequence": "dna", ".faa": "protein"}."""
    use = {}
    for pair in pairs:
        key, equals, name = pair.partition("=")
        if not (key and equals and name):
            raise click.BadParameter(f"{pair!r}: write MODALITY=TOKENIZER or .ENDING=TOKENIZER")
        use[key] = name
    return use


def _template(context: click.Context, option: click.Parameter, path: Path | None) -> Template | None:
    if path is None:
        return None
    from multitok.interleave import Template

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        reason = f"{path} is no JSON ({error}): give what json.dumps(Template(...).to_json()) writes"
        raise click.BadParameter(reason) from error
    return Template.from_json(data)


def _checked(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """A callback that lets a text through where `read` takes it."""

    def check(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
        from multitok.errors import InputError

        try:
            if text is not None:
                read(text)
        except InputError as error:
            raise click.BadParameter(str(error)) from error
        return text

    return check


def _frame_rate(text: str) -> object:
    from multitok.frontend.media import as_frame_rate

    return as_frame_rate(text)


def _window(text: str) -> object:
    from multitok.frontend.media import parse_window

    return parse_window(text)


def reading_options(function: _Command) -> _Command:
    """Add the options that say how files are read: limits, fps, window, orientation, mesh_resolution and mesh_fill."""
    for option in (
        click.option(
            "--mesh-fill", type=click.Choice(["solid", "surface"]), default="solid", help="Of .obj and .ply. [solid]"
        ),
        click.option(
            "--mesh-resolution",
            type=click.IntRange(1, 1024),
            default=64,
            help="Voxels along a mesh's longest side. [64]",
        ),
        click.option(
            "--orientation",
            type=click.Choice(["ras", "stored"]),
            default="ras",
            help="Turn volumes to Right, Anterior, Superior, or leave them. [ras]",
        ),
        click.option(
            "--window",
            callback=_checked(_window),
            default="auto",
            metavar="LOW:HIGH",
            help="Volume values that become 0 and 1: -160:240, 1%:99%, auto or stored. [auto]",
        ),
        click.option(
            "--fps",
            callback=_checked(_frame_rate),
            metavar="RATE",
            help="Frames a second of videos and animations, such as 8 or 30000/1001. [all frames]",
        ),
        click.option("--limit", "limits", multiple=True, callback=_limits, metavar="NAME=SIZE", help=_limit_help()),
    ):
        function = option(function)
    return function


def as_read_options(
    *, fps: str | None, window: str, orientation: str, mesh_resolution: int, mesh_fill: str
) -> ReadOptions:
    """What `reading_options` gave, without the limits."""
    from multitok.frontend.media import ReadOptions, as_frame_rate

    return ReadOptions.from_json(
        {
            "fps": None if fps is None else str(as_frame_rate(fps)),
            "frame": None,
            "window": window,
            "orientation": orientation,
            "mesh_resolution": mesh_resolution,
            "mesh_fill": mesh_fill,
        }
    )


def document_options(function: _Command) -> _Command:
    """Add the options that say how sources become documents: use, template, group_by_stem, and `reading_options`."""
    function = reading_options(function)
    for option in (
        click.option("--group-by-stem", is_flag=True, help="Files of a folder with one stem are one document."),
        click.option(
            "--template",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            callback=_template,
            metavar="FILE",
            help="JSON file: how documents are written.",
        ),
        click.option(
            "--use",
            multiple=True,
            callback=_use,
            metavar="WHAT=NAME",
            help="Tokenizer for a modality or file ending; repeatable.",
        ),
    ):
        function = option(function)
    return function


def _limit_help() -> str:
    return f"How large an item may be; repeatable. {', '.join(LIMITS)}"
