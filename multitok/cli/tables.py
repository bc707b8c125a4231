"""How the command line prints: tables with rich, numbers with thin units."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

_PIPE_WIDTH = 100_000


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", wrap: str = ""
) -> None:
    """Print rows as a table.

    Args:
        title: A line above it; "" for none.
        header: Names of the columns.
        rows: One string a column.
        right: Columns that align right, space-separated.
        wrap: Columns that a narrow terminal breaks over lines, space-separated; "" lets it break all.
    """
    from rich.console import Console
    from rich.table import Table

    if title:
        # Above the table and not part of it: rich would break a long one to the table's width.
        click.secho(title, bold=True)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in header:
        table.add_column(
            name,
            justify="right" if name in right.split() else "left",
            overflow="fold",
            no_wrap=bool(wrap) and name not in wrap.split(),
        )
    for row in rows:
        table.add_row(*row)
    if sys.stdout.isatty():
        Console(highlight=False, markup=False).print(table)
        return
    # A pipe has no width: other programs see each row whole, and no blanks at its end.
    console = Console(file=io.StringIO(), width=_PIPE_WIDTH, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def human_count(count: float) -> str:
    """1234567 -> "1,234,567"."""
    return f"{count:,.0f}"


def plural(count: int, noun: str) -> str:
    """(1, "shard") -> "1 shard", (2000, "shard") -> "2,000 shards"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
