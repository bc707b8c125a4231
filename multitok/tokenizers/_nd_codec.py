"""Run an integer autoencoder over arrays of any size in bounded memory: tile by tile, chunk by chunk of frames.

    frames [T, H, W, C] -> blocks: a tile with its surroundings, edges repeated up to whole patches -> levels
                        -> codes of the block, of which the tile's core is kept

How an array is cut does not show in the result (`_nd_tiles`), so the sizes here bound memory and nothing else. Nets
that look back in time remember, for each tile, what the next chunk needs; where they look ahead too, chunks overlap.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.nets.autoencoder_config import Sizes
from multitok.nets.integer import IntegerAutoencoder, Memory, Reach
from multitok.tokenizers._nd_levels import Levels
from multitok.tokenizers._nd_tiles import Span, Tile, core_sizes, spans

# Grid positions, and raw values each way, that are worked on at once; they bound the memory, not the result. Decoding
# holds its values in float64.
TILE_POSITIONS = 2**16
ENCODE_VALUES, DECODE_VALUES = 2**24, 2**23


class Pass:
    """One way through the frames of an array, and what the nets remember of it.

    Args:
        grid: (t, h, w); a stream gives a t that is large enough.
        reach: Of the direction.
        causal: Frames come in order and memory is carried; else chunks of frames overlap.
        most: Grid positions of a tile.
    """

    def __init__(self, grid: Sizes, reach: Reach, causal: bool, most: int) -> None:
        around = (reach.around, reach.around)
        self._time = (0, 0) if causal else (reach.past, reach.ahead)
        steps, rows, columns = core_sizes(grid, (self._time, around, around), most)
        self._steps = steps
        self._planes: list[tuple[Span, Span, Memory | None]] = [
            (row, column, {} if causal else None)
            for row in spans(grid[1], rows, around)
            for column in spans(grid[2], columns, around)
        ]

    def tiles(self, steps: int) -> Iterator[tuple[Tile, Memory | None]]:
        """The tiles of the next frames, with their memory.

        Args:
            steps: Grid steps of these frames.

        Yields:
            A tile, t counted from the first of these frames, and its memory.
        """
        for step in spans(steps, self._steps, self._time):
            for row, column, memory in self._planes:
                yield (step, row, column), memory


class NdCodec:
    """Raw frames to codes and back.

    Args:
        net: The autoencoder.
        levels: What becomes of raw values.
        num_codebooks: How many of its codebooks are used, the first ones.
    """

    def __init__(self, net: IntegerAutoencoder, levels: Levels, num_codebooks: int) -> None:
        self.net, self.levels, self.num_codebooks = net, levels, num_codebooks

    def most(self, values: int = DECODE_VALUES) -> int:
        """Grid positions of a tile of so many raw values."""
        return max(1, min(TILE_POSITIONS, values // self.net.config.patch_length))

    def encode_pass(self, grid: Sizes) -> Pass:
        """A way through frames to codes."""
        return Pass(grid, self.net.encode_reach(self.num_codebooks), self._causal, self.most(ENCODE_VALUES))

    def decode_pass(self, grid: Sizes) -> Pass:
        """A way through codes to frames."""
        return Pass(grid, self.net.decode_reach(self.num_codebooks), self._causal, self.most(DECODE_VALUES))

    def encode(self, frames: NDArray[Any], codes: NDArray[np.int32], way: Pass) -> None:
        """Code the next frames.

        Args:
            frames: [T, H, W, C] raw; T not a multiple of the patch repeats its last frame.
            codes: [n, t, h, w], written.
            way: From `encode_pass`.
        """
        pages = _Pages(frames)
        for tile, memory in way.tiles(codes.shape[1]):
            block = self.levels.encode(_cut(frames, tile, self.net.config.patch))
            found = self.net.encode_levels(block, self.num_codebooks, memory)
            step, row, column = (span.core for span in tile)
            codes[:, step, row, column] = np.moveaxis(found[tuple(span.inside for span in tile)], -1, 0)
            pages.release()

    def decode(self, codes: NDArray[np.int32], frames: NDArray[Any], way: Pass) -> None:
        """Decode the next codes.

        Args:
            codes: [n or more, t, h, w].
            frames: [T, H, W, C] raw, written; cropped from the right, the bottom and the end.
            way: From `decode_pass`.
        """
        pages, patch = _Pages(frames), self.net.config.patch
        for tile, memory in way.tiles(codes.shape[1]):
            step, row, column = (span.whole for span in tile)
            whole = codes[: self.num_codebooks, step, row, column]
            levels = self.net.decode_levels(np.ascontiguousarray(np.moveaxis(whole, 0, -1)), memory)
            target, source = [], []
            for span, side, length in zip(tile, patch, frames.shape[:3], strict=True):
                start, stop = span.core.start * side, min(span.core.stop * side, length)
                first = span.inside.start * side
                target.append(slice(start, stop))
                source.append(slice(first, first + stop - start))
            frames[tuple(target)] = self.levels.decode(levels[tuple(source)])
            pages.release()

    @property
    def _causal(self) -> bool:
        return max(self.net.config.taps) == 0


class _Pages:
    """The pages of a file that a memory-mapped array has brought into memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._mapping: mmap.mmap | None = None
        owner: Any = array
        shared = False
        while isinstance(owner, np.ndarray):
            # Pages of a private mapping may hold changes that are nowhere else.
            shared = shared or (isinstance(owner, np.memmap) and owner.mode in ("r", "r+", "w+"))
            owner = owner.base
        if shared and isinstance(owner, mmap.mmap):
            self._mapping = owner

    def release(self) -> None:
        """Give them back: the file keeps what was written, and the next access reads it again."""
        if self._mapping is not None and sys.platform == "linux":
            self._mapping.madvise(mmap.MADV_DONTNEED)


def _cut(frames: NDArray[Any], tile: Tile, patch: Sizes) -> NDArray[Any]:
    """The block under a tile with its surroundings, edges repeated up to whole patches."""
    sides = [(span.whole.start * step, span.whole.stop * step) for span, step in zip(tile, patch, strict=True)]
    block = frames[tuple(slice(start, stop) for start, stop in sides)]
    missing = [(0, stop - start - n) for (start, stop), n in zip(sides, block.shape[:3], strict=True)]
    return np.pad(block, [*missing, (0, 0)], mode="edge") if any(after for _, after in missing) else block
