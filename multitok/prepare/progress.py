"""A live bar on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_TICK_S = 0.1


class Progress:
    """Shows shards, documents, tokens, tokens a second and the time left.

    Args:
        num_bytes: Input bytes of the whole job, as planned.
        done_bytes: Of these, what stood before this run.
        show: True or False; None shows the bar where standard error is a terminal.
    """

    def __init__(self, num_bytes: int, done_bytes: int, show: bool | None) -> None:
        self.shown = sys.stderr.isatty() if show is None else show
        self._num_bytes, self._done_bytes = num_bytes, done_bytes
        self._bar: Any = None
        self._task: Any = None
        self._started = self._next_tick = time.monotonic()

    def __enter__(self) -> Progress:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("prepare"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("{task.fields[counts]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("prepare", total=self._num_bytes, completed=self._done_bytes, counts="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tick(self, num_documents: int, num_tokens: int) -> None:
        """Show what this run has written so far."""
        if self._bar is not None and time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + _TICK_S
            rate = num_tokens / max(time.monotonic() - self._started, 1e-9)
            counts = f"{num_documents:,} documents  {num_tokens:,} tokens  {rate:,.0f} tokens/s"
            self._bar.update(self._task, counts=counts)

    def finish_shard(self, num_bytes: int) -> None:
        """Move the bar by a shard's input bytes."""
        if self._bar is not None:
            self._bar.update(self._task, advance=num_bytes)
