"""What the views of all training runs share: a live view on a terminal, plain lines elsewhere, a TensorBoard writer."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from multitok.errors import MissingExtraError

if TYPE_CHECKING:
    from typing_extensions import Self

# Seconds between two plain lines, and between two looks of the live view.
LINE_S, LOOK_S = 10.0, 0.5


class LiveView(ABC):
    """Opens and closes the view; what it shows is the derived class's.

    Args:
        tensorboard: Folder for TensorBoard files; None for none.
        show: True for the live view, False for plain lines; None shows it where standard error is a terminal.

    Raises:
        MissingExtraError: TensorBoard files are asked for and the package is not there.
    """

    def __init__(self, *, tensorboard: Path | None, show: bool | None) -> None:
        self._writer = None if tensorboard is None else tensorboard_writer(tensorboard)
        self._live_wanted = sys.stderr.isatty() if show is None else show
        self._live: Any = None
        self._next = 0.0

    def __enter__(self) -> Self:
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

    @abstractmethod
    def _look(self) -> None:
        """Draw the live view."""


def tensorboard_writer(folder: Path) -> Any:
    """A writer of TensorBoard files.

    Args:
        folder: Where they go.

    Raises:
        MissingExtraError: The package is not there.
    """
    if not has_tensorboard():
        raise MissingExtraError(
            "TensorBoard files need tensorboard: pip install 'multitok[tensorboard]', or leave them out",
            name="tensorboard",
        )
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def has_tensorboard() -> bool:
    """Whether TensorBoard files can be written."""
    import importlib.util

    return importlib.util.find_spec("tensorboard") is not None
