"""Cut a grid into tiles that overlap by what the nets reach, so that codes of tiles are codes of the whole.

    one axis of 10 grid steps, tiles of 4, reach 2; "#" core, "+" surroundings computed and thrown away

        # # # # + + . . . .
        . . + + # # # # + +           at the ends of the grid a tile ends too: there the nets see
        . . . . . . + + # #           the same zeros as they do in the whole

Plain geometry: grid steps in, slices of grid steps out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

# Grid steps that a net sees before and after a position, along one axis.
Halo = tuple[int, int]


class Span(NamedTuple):
    """A tile along one axis, in grid steps.

    Args:
        core: What the tile gives.
        whole: What it computes: the core and its surroundings, inside the grid.
    """

    core: slice
    whole: slice

    @property
    def inside(self) -> slice:
        """The core, counted from the beginning of the whole."""
        return slice(self.core.start - self.whole.start, self.core.stop - self.whole.start)


# A tile: its spans along t, h and w.
Tile = tuple[Span, Span, Span]


def core_sizes(grid: Sequence[int], halos: Sequence[Halo], most: int) -> tuple[int, ...]:
    """Sizes of the tiles' cores, so that a tile with its surroundings has few enough positions.

    Args:
        grid: Size along each axis, at least 1.
        halos: Surroundings along each axis.
        most: Positions of a tile, surroundings included; kept as long as a core can be made smaller.

    Returns:
        A size along each axis. First is cut what has many steps for its surroundings: that wastes least.
    """
    sizes = list(grid)

    def positions() -> int:
        around = [min(n, size + sum(halo)) for n, size, halo in zip(grid, sizes, halos, strict=True)]
        return math.prod(around)

    while positions() > most and max(sizes) > 1:
        axis = max((i for i, size in enumerate(sizes) if size > 1), key=lambda i: sizes[i] / (1 + sum(halos[i])))
        sizes[axis] = -(-sizes[axis] // 2)
    # Halves are coarse: what is left of the bound goes to the shortest sides, as far as it reaches.
    for axis in sorted(range(len(grid)), key=lambda i: sizes[i]):
        own = min(grid[axis], sizes[axis] + sum(halos[axis]))
        room = most // (positions() // own)
        sizes[axis] = grid[axis] if room >= grid[axis] else max(sizes[axis], room - sum(halos[axis]))
    return tuple(sizes)


def spans(length: int, size: int, halo: Halo) -> list[Span]:
    """The tiles along one axis.

    Args:
        length: Grid steps of the axis.
        size: Largest core; the cores are as equal as can be.
        halo: Surroundings.

    Returns:
        Spans in order, whose cores cover the axis.
    """
    count = -(-length // size)
    edges = [length * i // count for i in range(count + 1)]
    before, after = halo
    return [
        Span(slice(start, stop), slice(max(0, start - before), min(length, stop + after)))
        for start, stop in itertools.pairwise(edges)
    ]
