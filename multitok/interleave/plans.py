"""Plans: a flatten pattern applied to K codebooks over one grid, vectorised, with its exact inverse.

Shape letters: K codebooks, N grid positions, n tokens in the stream, S steps of K parallel streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import PatternError
from multitok.interleave.patterns import Pattern

# Sources of tokens that are no codes, in `Plan.sources`.
EMPTY, ROW, FRAME = -1, -2, -3


@dataclass(frozen=True)
class Plan:
    """A pattern applied to K codebooks over one grid: immutable, a few numbers, no index arrays.

    Args:
        pattern: Resolved for K.
        num_codebooks: K.
        grid: One size >= 0 per axis.

    Raises:
        PatternError: The pattern does not fit K or the grid.
    """

    pattern: Pattern
    num_codebooks: int
    grid: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.num_codebooks < 1 or not self.grid or min(self.grid) < 0:
            raise PatternError(
                f"{self.num_codebooks} codebooks over the grid {self.grid}: give at least one codebook and axis"
            )
        if self.pattern != self.pattern.resolved(self.num_codebooks):
            raise PatternError(f"{self.pattern}: resolve the pattern for {self.num_codebooks} codebooks first")
        if (self.pattern.row or self.pattern.frame) and len(self.grid) < 2:
            raise PatternError(f"{self.pattern} over the grid {self.grid}: row and frame tokens need two axes or more")

    @classmethod
    def of(cls, pattern: Pattern | str, num_codebooks: int, grid: Sequence[int]) -> Plan:
        """The plan of a pattern for K codebooks over `grid`; made once, then cached.

        Raises:
            PatternError: The pattern cannot be parsed, or does not fit K or the grid.
        """
        parsed = Pattern.parse(pattern) if isinstance(pattern, str) else pattern
        return _plan(parsed.resolved(num_codebooks), num_codebooks, tuple(int(n) for n in grid))

    @property
    def num_positions(self) -> int:
        """N."""
        return math.prod(self.grid)

    @property
    def num_streams(self) -> int:
        """How many tokens one step takes."""
        return self.pattern.num_streams(self.num_codebooks)

    @property
    def num_steps(self) -> int:
        """S: steps of the model; for one stream the number of tokens."""
        return self.length // self.num_streams

    @property
    def length(self) -> int:
        """n: tokens in the stream, separators and fillers included."""
        if self.pattern.codebooks == "delay":
            # Without positions nothing is delayed.
            steps = self.num_positions + max(self.pattern.numbers) if self.num_positions else 0
            return self.num_codebooks * steps
        frames, rows, _ = self._shape
        ends = frames * (rows * self.pattern.row + self.pattern.frame)
        return self.num_codebooks * self.num_positions + ends * len(self._groups)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Frames, rows per frame, positions per row, in stream order."""
        axes = (1, 1, *self.grid)
        rows, width = axes[-2], axes[-1]
        if self.pattern.positions == "column" and len(self.grid) > 1:
            rows, width = width, rows
        return math.prod(axes[:-2]), rows, width

    @property
    def _groups(self) -> tuple[int, ...]:
        """Sizes of the groups of codebooks that are written one after the other."""
        return self.pattern.numbers if self.pattern.codebooks == "coarse-first" else (self.num_codebooks,)

    def flatten(
        self,
        values: NDArray[Any],
        *,
        row: int = ROW,
        frame: int = FRAME,
        empty: int = EMPTY,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The stream of `values`.

        Args:
            values: [K, *grid].
            row: What ends a row.
            frame: What ends a frame.
            empty: What fills delayed streams.
            out: [n] contiguous, written to; None for a new array of the dtype of `values`.
        Returns:
            `out`.
        Raises:
            PatternError: `values` or `out` has another shape.
        """
        if values.shape != (self.num_codebooks, *self.grid):
            raise PatternError(
                f"values of shape {list(values.shape)} for a plan of {self.num_codebooks} codebooks over {self.grid}"
            )
        if out is None:
            out = np.empty(self.length, values.dtype)
        if out.shape != (self.length,) or not out.flags.c_contiguous:
            raise PatternError(f"out of shape {list(out.shape)}: give a contiguous array of {self.length} tokens")
        if self.pattern.positions == "column" and len(self.grid) > 1:
            values = values.swapaxes(-1, -2)
        if self.pattern.codebooks == "delay":
            self._delay(values.reshape(self.num_codebooks, self.num_positions), out, empty)
            return out
        first, at = 0, 0
        for group in self._groups:
            part = values[first : first + group].reshape(group, *self._shape)
            size = self._group_length(group)
            self._write(part, out[at : at + size], row, frame)
            first, at = first + group, at + size
        return out

    def unflatten(
        self, stream: NDArray[Any], *, row: int = ROW, frame: int = FRAME, empty: int = EMPTY
    ) -> NDArray[Any]:
        """The values [K, *grid] whose stream this is; inverts `flatten`.

        Raises:
            PatternError: The stream has another length, or a separator or filler is not where it must be.
        """
        if stream.shape != (self.length,):
            raise PatternError(
                f"a stream of {stream.size} tokens for {self.pattern} with {self.num_codebooks} codebooks over the "
                f"grid {self.grid}, which takes {self.length}: it is cut short, too long, or of another grid"
            )
        values = np.empty((self.num_codebooks, *self.grid), stream.dtype)
        column = self.pattern.positions == "column" and len(self.grid) > 1
        target = values.swapaxes(-1, -2) if column else values
        if self.pattern.codebooks == "delay":
            target[...] = self._undelayed(stream, empty).reshape(target.shape)
            return values
        first, at = 0, 0
        for group in self._groups:
            size = self._group_length(group)
            part = self._read(stream[at : at + size], group, at, row, frame)
            target[first : first + group] = part.reshape(group, *target.shape[1:])
            first, at = first + group, at + size
        return values

    def streams(self, stream: NDArray[Any]) -> NDArray[Any]:
        """The [K, S] view of a stream for models that read K tokens at a step; [1, n] for flat and coarse-first.

        Raises:
            PatternError: The stream has another length.
        """
        if stream.shape != (self.length,):
            raise PatternError(f"a stream of {stream.size} tokens for {self.pattern}, which takes {self.length}")
        return stream.reshape(-1, self.num_streams).T if stream.size else stream.reshape(self.num_streams, 0)

    def sources(self) -> NDArray[np.int64]:
        """[n] for each token the flat index into values [K, *grid] it comes from; EMPTY, ROW or FRAME elsewhere."""
        count = self.num_codebooks * self.num_positions
        return self.flatten(np.arange(count, dtype=np.int64).reshape(self.num_codebooks, *self.grid))

    def _group_length(self, group: int) -> int:
        frames, rows, width = self._shape
        return frames * (rows * (width * group + self.pattern.row) + self.pattern.frame)

    def _write(self, part: NDArray[Any], out: NDArray[Any], row: int, frame: int) -> None:
        group, frames, rows, width = part.shape
        step = width * group + self.pattern.row
        framed = out.reshape(frames, rows * step + self.pattern.frame)
        if self.pattern.frame:
            framed[:, -1] = frame
            framed = framed[:, :-1]
        # Rows of a frame are contiguous, so this is a view: nothing is copied twice.
        rowed = np.lib.stride_tricks.as_strided(
            framed,
            (frames, rows, step),
            (framed.strides[0], step * out.itemsize, out.itemsize),
        )
        if self.pattern.row:
            rowed[:, :, -1] = row
        body = rowed[:, :, : width * group]
        for k in range(group):
            body[:, :, k::group] = part[k]

    def _read(self, stream: NDArray[Any], group: int, at: int, row: int, frame: int) -> NDArray[Any]:
        frames, rows, width = self._shape
        step = width * group + self.pattern.row
        framed = stream.reshape(frames, rows * step + self.pattern.frame)
        if self.pattern.frame:
            self._expect(framed[:, -1], frame, "frame", at + np.arange(1, frames + 1) * framed.shape[1] - 1)
            framed = framed[:, :-1]
        rowed = framed.reshape(frames, rows, step)
        if self.pattern.row:
            ends = (np.arange(frames) * (rows * step + self.pattern.frame))[:, None] + np.arange(1, rows + 1) * step - 1
            self._expect(rowed[:, :, -1], row, "row", at + ends)
            rowed = rowed[:, :, :-1]
        return np.moveaxis(rowed.reshape(frames, rows, width, group), -1, 0)

    def _expect(self, found: NDArray[Any], token: int, what: str, places: NDArray[Any]) -> None:
        wrong = found != token
        if wrong.any():
            raise PatternError(
                f"{int(found[wrong][0])} where the {what} token {token} is due, at token {int(places[wrong][0])} of "
                f"the stream: not {self.pattern} over the grid {self.grid}"
            )

    def _delay(self, values: NDArray[Any], out: NDArray[Any], empty: int) -> None:
        steps = out.reshape(self.num_steps, self.num_codebooks)
        steps[...] = empty
        for k, delay in enumerate(self.pattern.numbers if steps.size else ()):
            steps[delay : delay + self.num_positions, k] = values[k]

    def _undelayed(self, stream: NDArray[Any], empty: int) -> NDArray[Any]:
        steps = stream.reshape(self.num_steps, self.num_codebooks)
        values = np.empty((self.num_codebooks, self.num_positions), stream.dtype)
        for k, delay in enumerate(self.pattern.numbers if steps.size else ()):
            stop = delay + self.num_positions
            values[k] = steps[delay:stop, k]
            for begin, end in ((0, delay), (stop, len(steps))):
                places = np.arange(begin, end) * self.num_codebooks + k
                self._expect(steps[begin:end, k], empty, "empty", places)
        return values


@lru_cache(maxsize=4096)
def _plan(pattern: Pattern, num_codebooks: int, grid: tuple[int, ...]) -> Plan:
    return Plan(pattern, num_codebooks, grid)


def grid_of(
    pattern: Pattern,
    stream: NDArray[Any],
    num_codebooks: int,
    num_axes: int,
    *,
    row: int = ROW,
    frame: int = FRAME,
) -> tuple[int, ...]:
    """The grid of a stream: one axis by its length, two by its row tokens, three by row and frame tokens.

    Whether the separators stand at the right places is for `Plan.unflatten` to see.

    Args:
        pattern: How the stream was made.
        stream: [n], whole.
        num_codebooks: K.
        num_axes: Number of grid axes.
        row: What ends a row.
        frame: What ends a frame.
    Returns:
        The grid.
    Raises:
        PatternError: No grid has such a stream, or the pattern does not tell it.
    """
    pattern = pattern.resolved(num_codebooks)
    groups = len(pattern.numbers) if pattern.codebooks == "coarse-first" else 1
    rows = int((stream == row).sum()) // groups if pattern.row else 0
    frames = int((stream == frame).sum()) // groups if pattern.frame else 1
    codes = stream.size - groups * (rows + frames * pattern.frame)
    delay = max(pattern.numbers) if pattern.codebooks == "delay" and stream.size else 0
    positions = codes // num_codebooks - delay
    if num_axes == 1 and not (pattern.row or pattern.frame):
        grid: tuple[int, ...] = (positions,)
    elif num_axes == 2 and pattern.row:
        grid = (rows, positions // max(rows, 1))
    elif num_axes == 3 and pattern.row and pattern.frame:
        grid = (frames, rows // max(frames, 1), positions // max(rows, 1))
    else:
        raise PatternError(
            f"{pattern} does not tell the size of a grid of {num_axes} axes: use spans, or a template that writes "
            "the size"
        )
    if pattern.positions == "column" and num_axes > 1:
        grid = (*grid[:-2], grid[-1], grid[-2])
    if min(grid) < 0 or Plan.of(pattern, num_codebooks, grid).length != stream.size:
        raise PatternError(
            f"a stream of {stream.size} tokens with {rows} row and {frames if pattern.frame else 0} frame tokens: "
            f"no grid of {num_axes} axes and {num_codebooks} codebooks makes that with {pattern}"
        )
    return grid
