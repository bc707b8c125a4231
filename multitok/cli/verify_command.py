"""`multitok verify`: is a prepared folder what was written, and does its source still encode to it?"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="verify")
@click.argument("out", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--sample", type=click.IntRange(0), default=100, show_default=True, help="Documents to encode again.")
def command(out: Path, sample: int) -> None:
    """Compare every file in OUT with its sha256, and encode a sample of its documents again."""
    from multitok.cli.tables import human_bytes
    from multitok.prepare import verify

    report = verify(out, sample=sample)
    click.echo(
        f"{out}: {report.num_files:,} files ({human_bytes(report.num_bytes)}) have their sha256; "
        f"{report.num_documents:,} documents encode to the same IDs"
    )
