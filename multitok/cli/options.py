"""What several commands ask for in the same words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from multitok.interleave import Template

LIMITS = ("max_bytes", "max_text_bytes", "max_pixels", "max_frames", "max_audio_s")

_Command = TypeVar("_Command", bound=Callable[..., Any])


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


def document_options(function: _Command) -> _Command:
    """Add the options that say how sources become documents: use, template, group_by_stem and limits."""
    for option in (
        click.option("--limit", "limits", multiple=True, callback=_limits, metavar="NAME=SIZE", help=_limit_help()),
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
