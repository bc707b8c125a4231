"""How the command line prints: tables with rich, numbers with thin units."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> None:
    """Print rows as a table; columns named in `right` (space-separated) align right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if name in right.split() else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: give lines room there, so that other programs see each row whole.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False).print(table)


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
