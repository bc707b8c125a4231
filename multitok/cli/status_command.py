"""`multitok status`: how far is a job?"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(name="status")
@click.argument("out", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(out: Path, as_json: bool) -> None:
    """Show how far the prepare job in OUT is; safe to call while it runs."""
    from multitok.cli.tables import human_count, plural, print_table
    from multitok.prepare import status

    found = status(out)
    state = "done" if found.is_finished else "running" if found.is_running else "failed" if found.failed else "stopped"
    if as_json:
        data = {
            "state": state,
            "shards": {
                "planned": found.planned,
                "running": found.running,
                "done": found.done,
                "failed": len(found.failed),
            },
            "documents": found.num_documents,
            "tokens": found.num_tokens,
            "quarantined": found.num_quarantined,
            "bytes_share": found.bytes_share,
        }
        click.echo(json.dumps(data, indent=2))
        return
    click.echo(f"{out}: {state}, {100 * found.bytes_share:.1f}% of the input bytes")
    shards = [
        ("planned", found.planned),
        ("running", found.running),
        ("done", found.done),
        ("failed", len(found.failed)),
    ]
    click.echo("shards: " + ", ".join(f"{count:,} {word}" for word, count in shards))
    rows = [(m.value, human_count(count.items), human_count(count.tokens)) for m, count in found.counts.items()]
    rows.append(("all", plural(found.num_documents, "document"), human_count(found.num_tokens)))
    print_table("", ("modality", "items", "tokens"), rows, right="items tokens")
    if found.num_quarantined:
        click.echo(f"{plural(found.num_quarantined, 'item')} in quarantine: {out}/shard-*.quarantine.jsonl")
    for number, reason in found.failed.items():
        click.echo(f"shard {number} failed: {reason}")
    if state in ("stopped", "failed"):
        click.echo("Run the same prepare command again: it goes on where it stopped.")
