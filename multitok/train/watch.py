"""What a user sees of a training run: a live view on a terminal, plain lines elsewhere, TensorBoard files.

    step 1,250 of 7,500   loss 5.31   28.4 dB   0.41 MPx/s   1:02:10 left
    codebooks, perplexity   1: 97% used, 702   2: 99% used, 768 ...
    held out   23.60   26.42   27.91   28.64 dB with 1 to 4 codebooks

and, on a terminal with colours, held-out pictures beside what the codes make of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.train.live_view import LINE_S, LOOK_S, LiveView

if TYPE_CHECKING:
    from multitok.train.heldout import Measured

# Side of a picture in half blocks: with the figures it fits on a terminal of 24 lines and 80 columns.
_SIDE = 32


class Moment(NamedTuple):
    """Where a run is, measured over its last steps.

    Args:
        step: Steps done.
        steps: Steps of the whole run.
        loss: Mean of the last steps.
        psnr: Mean of the last steps' crops, dB.
        learning_rate: Of the last step.
        values_per_s: Raw grid values (pixels, voxels) a second over all ranks.
        seconds_left: At this speed.
        usage: Share of each codebook's codes that occurred; empty before the first.
        perplexity: Of each codebook.
    """

    step: int
    steps: int
    loss: float
    psnr: float
    learning_rate: float
    values_per_s: float
    seconds_left: float
    usage: tuple[float, ...]
    perplexity: tuple[float, ...]


class Watch(LiveView):
    """Shows a run.

    Args:
        unit: "MPx/s", or "Mvoxel/s".
        tensorboard: Folder for TensorBoard files; None for none.
        show: True for the live view, False for plain lines; None shows it where standard error is a terminal.

    Raises:
        MissingExtraError: TensorBoard files are asked for and the package is not there.
    """

    def __init__(self, *, unit: str, tensorboard: Path | None, show: bool | None) -> None:
        super().__init__(tensorboard=tensorboard, show=show)
        self._unit = unit
        self._moment: Moment | None = None
        self._measured: Measured | None = None

    def step(self, moment: Moment) -> None:
        """Show where the run is; called after each step, draws now and then."""
        self._moment, now = moment, time.monotonic()
        if now < self._next:
            return
        if self._live is not None:
            self._look()
        else:
            self._next = now + LINE_S
            self.say(self._line(moment))

    def record(self, moment: Moment) -> None:
        """Write figures to TensorBoard."""
        if self._writer is not None:
            figures = {"loss": moment.loss, "psnr/training crops": moment.psnr, "learning rate": moment.learning_rate}
            figures[f"speed/{self._unit}"] = moment.values_per_s / 1e6
            for name, each in (("usage", moment.usage), ("perplexity", moment.perplexity)):
                figures |= {f"{name}/codebook {k}": value for k, value in enumerate(each, 1)}
            for name, value in figures.items():
                self._writer.add_scalar(name, value, moment.step)

    def measured(self, step: int, measured: Measured) -> None:
        """Show quality on held-out items."""
        self._measured = measured
        if self._live is None:
            self.say(f"step {step:,}   {_quality(measured.psnr)}")
        else:
            self._look()
        if self._writer is not None:
            for count, value in enumerate(measured.psnr, 1):
                self._writer.add_scalar(f"psnr/held out, codebooks 1 to {count}", value, step)
            self._writer.add_image("held out", measured.pictures, step, dataformats="HWC")
            self._writer.flush()

    def _look(self) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        self._next = time.monotonic() + LOOK_S
        parts: list[Any] = []
        if (moment := self._moment) is not None:
            bar = Table.grid()  # a bar alone ends no line
            bar.add_row(ProgressBar(moment.steps, moment.step, width=60))
            parts += [bar, Text(self._line(moment))]
            if moment.usage:
                each = zip(moment.usage, moment.perplexity, strict=True)
                shown = "   ".join(f"{k}: {use:.0%} used, {p:.0f}" for k, (use, p) in enumerate(each, 1))
                parts.append(Text(f"codebooks, perplexity   {shown}"))
        if self._measured is not None:
            parts += [Text(_quality(self._measured.psnr)), blocks(self._measured.pictures, self._live.console.width)]
        self._live.update(Group(*parts), refresh=True)

    def _line(self, moment: Moment) -> str:
        left = int(moment.seconds_left)
        return (
            f"step {moment.step:,} of {moment.steps:,}   loss {moment.loss:.3f}   {moment.psnr:.2f} dB   "
            f"{moment.values_per_s / 1e6:.2f} {self._unit}   {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )


def blocks(pictures: NDArray[np.uint8], columns: int) -> Any:
    """The first pictures of a sheet as coloured half blocks, each original left of what was decoded.

    Args:
        pictures: [rows, columns, 3], as `Measured.pictures`: two rows of squares.
        columns: Of the terminal.

    Returns:
        A `rich.text.Text`.
    """
    from PIL import Image
    from rich.style import Style
    from rich.text import Text

    side = pictures.shape[0] // 2
    count = min(max(columns // (2 * _SIDE), 1), pictures.shape[1] // side)
    squares = [pictures[row : row + side, side * k : side * (k + 1)] for k in range(count) for row in (0, side)]
    small = [np.asarray(Image.fromarray(each).resize((_SIDE, _SIDE), Image.Resampling.BOX)) for each in squares]
    joint = np.concatenate(small, 1)
    text = Text()
    for upper, lower in zip(joint[::2], joint[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            colours = ["#{:02x}{:02x}{:02x}".format(*each) for each in (top, bottom)]
            text.append("▀", Style(color=colours[0], bgcolor=colours[1]))
        text.append("\n")
    return text


def _quality(psnr: list[float]) -> str:
    how_many = "1 codebook" if len(psnr) == 1 else f"1 to {len(psnr)} codebooks"
    return f"held out   {'   '.join(f'{value:.2f}' for value in psnr)} dB with {how_many}"
