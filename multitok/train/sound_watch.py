"""What a user sees of the training of a sound model: a live view on a terminal, plain lines elsewhere, TensorBoard.

step 1,250 of 7,500   loss 1.31   spectral 0.62   audible 0.14   0:12:10 left
held out   loss 1.28   pesq 2.41
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from multitok.train.live_view import LINE_S, LOOK_S, LiveView


class SoundWatch(LiveView):
    """Shows a run.

    Args:
        steps: Of the whole run.
        tensorboard: Folder for TensorBoard files; None for none.
        show: True for the live view, False for plain lines; None shows it where standard error is a terminal.

    Raises:
        MissingExtraError: TensorBoard files are asked for and the package is not there.
    """

    def __init__(self, *, steps: int, tensorboard: Path | None, show: bool | None) -> None:
        super().__init__(tensorboard=tensorboard, show=show)
        self._steps = steps
        self._line = self._held_out = ""
        self._step = 0
        self._first: tuple[int, float] | None = None

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
            self._next = now + LOOK_S
            self._look()
        else:
            self._next = now + LINE_S
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
