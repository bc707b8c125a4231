"""`multitok prepare`: raw sources to token shards."""

from __future__ import annotations

import re
from pathlib import Path

import click

LIMITS = ("max_bytes", "max_text_bytes", "max_pixels", "max_frames", "max_audio_s")


def parse_size(text: str) -> int:
    """ "64M" -> 67108864."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise click.BadParameter(f"{text!r}: write a size such as 64M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _budget(_: click.Context, __: click.Parameter, text: str) -> float | int:
    """ "1%" -> 0.01, "0.01" -> 0.01, "20" -> 20."""
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}: write a share (1% or 0.01) or a number of items (20)") from None


def _limits(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, int]:
    """["max_text_bytes=1G"] -> {"max_text_bytes": 2**30}."""
    limits = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in LIMITS:
            raise click.BadParameter(f"{key!r}: the limits are {', '.join(LIMITS)}")
        limits[key] = parse_size(text)
    return limits


@click.command(name="prepare")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--vocab", required=True, help="Vocabulary file, or a shipped one: base.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the shards.")
@click.option("--workers", type=click.IntRange(1), help="Processes. [one per core]")
@click.option("--executor", type=click.Choice(["process", "inline"]), default="process", show_default=True)
@click.option("--use", multiple=True, metavar="WHAT=NAME", help="Tokenizer for a modality or file ending; repeatable.")
@click.option("--template", type=click.Path(path_type=Path, exists=True), help="JSON file: how documents are written.")
@click.option("--group-by-stem", is_flag=True, help="Files of a folder with one stem are one document.")
@click.option(
    "--shard-size",
    callback=lambda _, __, text: parse_size(text),
    default="64M",
    show_default=True,
    help="Input bytes per shard.",
)
@click.option("--error-budget", callback=_budget, default="1%", show_default=True, help="Share or number of bad items.")
@click.option(
    "--limit", "limits", callback=_limits, multiple=True, metavar="NAME=SIZE", help="How large an item may be."
)
@click.option("--progress/--no-progress", default=None, help="Live bar. [on a terminal]")
def command(
    sources: tuple[Path, ...],
    vocab: str,
    out: Path,
    workers: int | None,
    executor: str,
    use: tuple[str, ...],
    template: Path | None,
    group_by_stem: bool,
    shard_size: int,
    error_budget: float | int,
    limits: dict[str, int],
    progress: bool | None,
) -> None:
    """Turn SOURCES (folders, files, .jsonl or .parquet documents, WebDataset .tar) into token shards in OUT.

    Kill it at any instant and run the same command again: it goes on, and ends with the same bytes. Items that
    cannot be tokenized go to shard-*.quarantine.jsonl with their reason, and the rest goes on.

    \b
    multitok prepare photos/ speech/ documents.jsonl --vocab base --out shards
    """
    import json

    from multitok.cli import choose
    from multitok.cli.tables import human_bytes, human_count, print_table
    from multitok.frontend.media import Limits
    from multitok.interleave import Template
    from multitok.prepare import prepare

    report = prepare(
        sources,
        choose.vocabulary(vocab),
        out,
        workers=workers,
        executor=executor,
        template=None if template is None else Template.from_json(json.loads(template.read_text(encoding="utf-8"))),
        use=choose.parse_use(use),
        group_by_stem=group_by_stem,
        shard_bytes=shard_size,
        error_budget=error_budget,
        limits=Limits(**limits),
        progress=progress,
    )
    rows = [
        (
            modality.value,
            human_count(part.items),
            human_count(part.tokens),
            human_count(part.tokens_per_s) if part.tokens_per_s else "",
            human_bytes(part.bytes_in),
        )
        for modality, part in report.modalities.items()
    ]
    header = ("modality", "items", "tokens", "tokens/s per worker", "bytes in")
    print_table("", header, rows, right="items tokens bytes")
    click.echo(
        f"\n{report.num_documents:,} documents, {report.num_tokens:,} tokens, {human_bytes(report.bytes_out)} in "
        f"{report.num_shards} shards in {report.out} ({report.new_shards} new, {report.seconds:.1f} s)"
    )
    for what, count in report.skipped.items():
        click.echo(f"left out: {count:,} files of {what}")
    if report.num_quarantined:
        click.echo(f"{report.num_quarantined:,} items in quarantine: {report.out}/shard-*.quarantine.jsonl")
