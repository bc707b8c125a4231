"""Flatten patterns written as slow, obvious loops: one token after the other."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np


def positions_of(grid: tuple[int, ...], order: str) -> list[tuple[int, ...]]:
    """Grid positions in stream order."""
    if order == "raster" or len(grid) == 1:
        return list(product(*map(range, grid)))
    swapped = (*grid[:-2], grid[-1], grid[-2])
    return [(*p[:-2], p[-1], p[-2]) for p in product(*map(range, swapped))]


def rows_of(grid: tuple[int, ...], order: str) -> list[list[list[tuple[int, ...]]]]:
    """Positions as frames of rows, empty rows included."""
    if len(grid) == 1:
        return [[positions_of(grid, order)]]
    outer, height, width = grid[:-2], grid[-2], grid[-1]
    frames = []
    for frame in product(*map(range, outer)):
        if order == "raster":
            frames.append([[(*frame, y, x) for x in range(width)] for y in range(height)])
        else:
            frames.append([[(*frame, y, x) for y in range(height)] for x in range(width)])
    return frames


def flatten(
    values: np.ndarray[Any, Any],
    *,
    order: str = "raster",
    codebooks: str = "flat",
    numbers: tuple[int, ...] = (),
    row: bool = False,
    frame: bool = False,
) -> list[Any]:
    """The stream; "." for the empty token, "R" after a row, "F" after a frame."""
    num_codebooks, grid = values.shape[0], values.shape[1:]
    places = positions_of(grid, order)
    if codebooks == "delay":
        delays = numbers or tuple(range(num_codebooks))
        steps = len(places) + max(delays) if places else 0
        stream: list[Any] = []
        for step in range(steps):
            for k in range(num_codebooks):
                at = step - delays[k]
                stream.append(values[(k, *places[at])].item() if 0 <= at < len(places) else ".")
        return stream
    if codebooks == "coarse-first":
        sizes = numbers or (1,) * num_codebooks
        ends = np.cumsum(sizes).tolist()
        groups = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    else:
        groups = [range(num_codebooks)]
    stream = []
    for group in groups:
        for each_frame in rows_of(grid, order):
            for each_row in each_frame:
                for place in each_row:
                    for k in group:
                        stream.append(values[(k, *place)].item())
                if row:
                    stream.append("R")
            if frame:
                stream.append("F")
    return stream
