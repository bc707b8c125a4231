"""`multitok count`: how many tokens is it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.cli.options import as_read_options, document_options

if TYPE_CHECKING:
    from multitok.interleave import Template
    from multitok.prepare.sources import Rejected

_SHOWN = 20


@click.command(name="count")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--vocab", "vocab", default="base", show_default=True, help="Vocabulary that says which tokenizers.")
@document_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    sources: tuple[Path, ...],
    vocab: str,
    use: dict[str, str],
    template: Template | None,
    group_by_stem: bool,
    limits: dict[str, int],
    as_json: bool,
    **reading: Any,
) -> None:
    """Count the token IDs that `multitok prepare` would write for SOURCES, without writing them.

    Images, video, volumes, sound and series are counted from their headers; text and gene sequences are encoded,
    because their length depends on the content. A file whose damage only decoding shows is counted too.

    \b
    multitok count photos/ documents.jsonl corpus.tar
    """
    from multitok.cli import choose
    from multitok.cli.tables import human_bytes, human_count, plural, print_table
    from multitok.economics import count_tokens
    from multitok.frontend.media import Limits

    count = count_tokens(
        sources,
        choose.vocabulary(vocab),
        template=template,
        use=use,
        group_by_stem=group_by_stem,
        limits=Limits(**limits),
        reading=as_read_options(**reading),
    )
    problems = [(_where(rejected), rejected.message) for rejected in count.rejected]
    if as_json:
        modalities = {
            modality.value: {"items": part.items, "tokens": part.tokens, "bytes": part.num_bytes}
            for modality, part in count.modalities.items()
        }
        data = {
            "documents": count.num_documents,
            "tokens": count.num_tokens,
            "modalities": modalities,
            "left_out": dict(count.skipped),
            "num_problems": count.num_rejected,
            "problems": problems,
        }
        click.echo(json.dumps(data, indent=2))
        return
    rows = [
        (modality.value, human_count(part.items), human_count(part.tokens), human_bytes(part.num_bytes))
        for modality, part in count.modalities.items()
    ]
    if rows:
        print_table("", ("modality", "items", "tokens", "bytes in"), rows, right="items tokens bytes")
    documents, tokens = plural(count.num_documents, "document"), plural(count.num_tokens, "token")
    click.echo(f"{documents}, {tokens} with structure tokens")
    for what, times in count.skipped.items():
        click.echo(f"left out: {times:,} x {what}", err=True)
    for where, reason in problems[:_SHOWN]:
        click.echo(f"not counted: {where}: {reason}", err=True)
    if count.num_rejected > _SHOWN:
        click.echo(f"not counted: {count.num_rejected - _SHOWN:,} more items", err=True)


def _where(rejected: Rejected) -> str:
    """Its ID, which says the place too unless the source gave the ID."""
    if rejected.id.startswith(rejected.source):
        return rejected.id
    return f"{rejected.source}: {rejected.id} ({rejected.place})"
