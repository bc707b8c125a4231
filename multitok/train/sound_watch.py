"""What a user sees of the training of a sound model: a live view on a terminal, plain lines elsewhere, TensorBoard.

step 1,250 of 7,500   loss 1.31   spectral 0.62   audible 0.14   0:12:10 left
held out   loss 1.28   pesq 2.41
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from multitok.train.watch import tensorboard_writer

# Seconds between two plain lines, and between two looks of the live view.
_LINE_S, _LOOK_S = 10.0, 0.5


class SoundWatch:
    """Shows a run.

    Args:
        steps: Of the whole run.
        tensorboard: Folder for TensorBoard files; None for none.
        show: True for the live view, False for plain lines; None shows it where standard error is a terminal.

    Raises:
        MissingExtraError: TensorBoard files are asked for and the package is not there.
    """

    def __init__(self, *, steps: int, tensorboard: Path | None, show: bool | None) -> None:
        self._steps = steps
        self._writer = None if tensorboard is None else tensorboard_writer(tensorboard)
        self._live_wanted = sys.stderr.isatty() if show is None else show
        self._live: Any = None
        self._line = self._held_out = ""
        self._step, self._next = 0, 0.0
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> SoundWatch:
        if self._live_wanted:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._look()
            self._live.stop()
        if self._writer is not None:
            self._writer.close()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Show where the run is; called after each step, draws now and then.

        Args:
            step: Steps done.
            figures: Of this step, by name.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        if now < self._next:
            return
        self._step = step
        done = step - self._first[0]
        left = int((now - self._first[1]) / done * (self._steps - step)) if done else 0
        shown = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left" if done else ""
        self._line = f"step {step:,} of {self._steps:,}   {_shown(figures)}   {shown}"
        if self._live is not None:
            self._next = now + _LOOK_S
            self._look()
        else:
            self._next = now + _LINE_S
            self.say(self._line)

    def record(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures to TensorBoard.

        Args:
            step: Steps done.
            figures: By name; a "/" groups them.
        """
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def measured(self, step: int, figures: Mapping[str, float]) -> None:
        """Show quality on held-out sound.

        Args:
            step: Steps done.
            figures: By name.
        """
        self._held_out = f"held out   {_shown(figures)}"
        if self._live is None:
            self.say(f"step {step:,}   {self._held_out}")
        else:
            self._look()
        self.record(step, {f"held out/{name}": value for name, value in figures.items()})
        if self._writer is not None:
            self._writer.flush()

    def _look(self) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid()  # a bar alone ends no line
        bar.add_row(ProgressBar(self._steps, self._step, width=60))
        self._live.update(Group(bar, Text(self._line), Text(self._held_out)), refresh=True)


def _shown(figures: Mapping[str, float]) -> str:
    return "   ".join(f"{name} {value:.4g}" for name, value in figures.items())
