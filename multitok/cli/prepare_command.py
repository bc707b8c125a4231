"""`multitok prepare`: raw sources to token shards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.cli.options import as_read_options, document_options, parse_size

if TYPE_CHECKING:
    from multitok.interleave import Template


def _budget(_: click.Context, __: click.Parameter, text: str) -> float | int:
    """ "1%" -> 0.01, "0.01" -> 0.01, "20" -> 20."""
    try:
        budget = float(text[:-1]) / 100 if text.endswith("%") else int(text) if text.isdigit() else float(text)
        if not math.isfinite(budget):
            raise ValueError
        return budget
    except ValueError:
        raise click.BadParameter(f"{text!r}: write a share (1% or 0.01) or a number of items (20)") from None


@click.command(name="prepare")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--vocab", required=True, help="Vocabulary file, or a shipped one: base.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the shards.")
@click.option("--workers", type=click.IntRange(1), help="Processes. [one per core]")
@click.option("--executor", type=click.Choice(["process", "inline"]), default="process", show_default=True)
@document_options
@click.option(
    "--shard-size",
    callback=lambda _, __, text: parse_size(text),
    default="64M",
    show_default=True,
    help="Input bytes per shard.",
)
@click.option("--error-budget", callback=_budget, default="1%", show_default=True, help="Share or number of bad items.")
@click.option("--progress/--no-progress", default=None, help="Live bar. [on a terminal]")
def command(
    sources: tuple[Path, ...],
    vocab: str,
    out: Path,
    workers: int | None,
    executor: str,
    use: dict[str, str],
    template: Template | None,
    group_by_stem: bool,
    shard_size: int,
    error_budget: float | int,
    limits: dict[str, int],
    progress: bool | None,
    **reading: Any,
) -> None:
    """Turn SOURCES (folders, files, .jsonl or .parquet documents, WebDataset .tar) into token shards in OUT.

    Kill it at any instant and run the same command again: it goes on, and ends with the same bytes. Items that
    cannot be tokenized go to shard-*.quarantine.jsonl with their reason, and the rest goes on.

    \b
    multitok prepare photos/ speech/ documents.jsonl --vocab base --out shards
    """
    from multitok.cli import choose
    from multitok.cli.tables import human_bytes, human_count, plural, print_table
    from multitok.frontend.media import Limits
    from multitok.prepare import prepare

    report = prepare(
        sources,
        choose.vocabulary(vocab),
        out,
        workers=workers,
        executor=executor,
        template=template,
        use=use,
        group_by_stem=group_by_stem,
        shard_bytes=shard_size,
        error_budget=error_budget,
        limits=Limits(**limits),
        reading=as_read_options(**reading),
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
    documents, tokens = plural(report.num_documents, "document"), plural(report.num_tokens, "token")
    shards = f"{human_bytes(report.bytes_out)} in {plural(report.num_shards, 'shard')}"
    click.echo(f"\n{documents}, {tokens}, {shards} in {report.out} ({report.new_shards:,} new, {report.seconds:.1f} s)")
    for what, count in report.skipped.items():
        click.echo(f"left out: {count:,} x {what}")
    if report.num_quarantined:
        click.echo(f"{plural(report.num_quarantined, 'item')} in quarantine: {report.out}/shard-*.quarantine.jsonl")
