"""How a search on a GPU is carried out: which kernel, in which tiles, on how many vectors at once.

The rule, by arithmetic only (nothing here is tuned by measurement):

1. `small`, one fused kernel in float32: l2, k = 1, D <= 16, values within float32, and either enough vectors to fill
   the device or a codebook of at most 4,096 codes, which one block gets through quickly.
2. `mma`, bfloat16 on tensor cores: compute capability 8.0 or newer, D > 16, at least 256 codes and 64 vectors, and a
   tile fits into shared memory. With enough vectors for 256 on every multiprocessor, the first tile that gives eight
   warps there: 256 x 128 with the vectors resident, two blocks of 128 x 128 resident, 256 x 128. Otherwise the first
   that fits of 128 x 128 resident, 128 x 128, 128 x 64.
3. `f32` otherwise.

Where fewer blocks of vectors than multiprocessors are left, the codebook is cut into parts that are searched at once.

Extra memory is at most `WORKSPACE_BYTES`, but never less than for one tile of vectors, beside the prepared codebook
(2 or 4 bytes a value, or both).
"""

from __future__ import annotations

from typing import NamedTuple

from multitok.codebook.cuda_launch import SMALL_DIMS, TENSOR_CORE_CAPABILITY, Device

WORKSPACE_BYTES = 2**29
SMALL_CODEBOOK_SIZE = 4096
SMALL_VECTORS_PER_BLOCK = 256
MMA_LEAST_CODES, MMA_LEAST_VECTORS = 256, 64
# Vectors and codes of one warp of the tensor-core kernel; of a block of the float32 kernel.
MMA_SIDE, F32_SIDE = 64, 128
# Tiles in the order of the rule, and how many blocks have to fit on a multiprocessor together.
WIDE_TILES = (((4, 2, True), 1), ((2, 2, True), 2), ((4, 2, False), 1))
TILES = (((2, 2, True), 1), ((2, 2, False), 1), ((2, 1, False), 1))
WIDE_VECTORS = 256
# Shared memory that the system takes for each block.
RESERVED_BYTES = 1024
# Dimensions are padded to whole slices.
MMA_SLICE, F32_SLICE = 32, 8
# Parts of the codebook in a second look, whose number of vectors is not known beforehand.
SECOND_LOOK_PARTS = 8


class Pass(NamedTuple):
    """One proposing pass: its kernel and how it cuts the work.

    Args:
        tile: For "mma" one of `MMA_TILES`, for "f32" None.
        capacity: Candidates that a vector's list holds.
        parts: Parts of the codebook that are searched at once.
    """

    tile: tuple[int, int, bool] | None
    capacity: int
    parts: int

    @property
    def rows(self) -> int:
        """Vectors of a block."""
        return F32_SIDE if self.tile is None else MMA_SIDE * self.tile[0]

    @property
    def codes(self) -> int:
        """Codes of a tile."""
        return F32_SIDE if self.tile is None else MMA_SIDE * self.tile[1]

    @property
    def lists(self) -> int:
        """Candidate lists a vector: warps side by side along the codes keep lists of their own."""
        return self.parts * (1 if self.tile is None else self.tile[1])

    def padded_dim(self, dim: int) -> int:
        """D, padded to whole slices."""
        return _padded(dim, F32_SLICE if self.tile is None else MMA_SLICE)

    def shared_bytes(self, dim: int) -> int:
        """Shared memory of a block: what nearest_mma.cu and nearest_f32.cu lay out there."""
        if self.tile is None:
            buffers = 2 * 2 * F32_SLICE * (F32_SIDE + 4) + 8 * 2 * (F32_SIDE + 16) + F32_SIDE
            return 4 * buffers + F32_SIDE * (8 * self.capacity + 8)
        row_warps, code_warps, resident = self.tile
        stage = (self.codes + (0 if resident else self.rows)) * (MMA_SLICE + 8) * 2 + 4 * self.codes
        scratch = row_warps * code_warps * 8 * (MMA_SIDE + 16) * 4
        lists = self.rows * code_warps * (8 * self.capacity + 8)
        vectors = self.rows * (self.padded_dim(dim) + 8) * 2 if resident else 0
        return 3 * stage + scratch + 4 * self.rows + lists + vectors

    def bytes_per_row(self, dim: int) -> int:
        """Global memory that a vector takes: its operand, its tolerance and its lists."""
        operand = self.padded_dim(dim) * (4 if self.tile is None else 2)
        return operand + 4 + self.lists * (8 * self.capacity + 4)


class Plan(NamedTuple):
    """How one search is carried out.

    Args:
        small: Whether the fused kernel does it all; then nothing else counts.
        first: The proposing pass over all vectors.
        second: That over the vectors whose lists overflowed; None: these are compared with every code.
        rows_at_once: Vectors in the workspace at once.
    """

    small: bool
    first: Pass
    second: Pass | None
    rows_at_once: int


def plan_search(device: Device, *, count: int, size: int, dim: int, nearest: int, metric: str, double: bool) -> Plan:
    """The plan for a search, by the rule above.

    Args:
        device: Where it runs.
        count: N.
        size: V.
        dim: D.
        nearest: k.
        metric: "l2", "cosine" or "dot".
        double: Whether vectors or codes are float64.
    """
    fills = count >= device.multiprocessors * SMALL_VECTORS_PER_BLOCK
    small = (
        metric == "l2" and nearest == 1 and dim in SMALL_DIMS and not double and (fills or size <= SMALL_CODEBOOK_SIZE)
    )
    mma = (
        device.capability >= TENSOR_CORE_CAPABILITY
        and dim not in SMALL_DIMS
        and size >= MMA_LEAST_CODES
        and count >= MMA_LEAST_VECTORS
    )
    first = _mma_pass(device, count, dim, nearest) if mma and not small else None
    if first is not None:
        second = f32_pass(nearest, parts=min(SECOND_LOOK_PARTS, _tiles(size, F32_SIDE)))
        return _cut(device, first, second, count, size, dim, small=False)
    return _cut(device, f32_pass(nearest, parts=1), None, count, size, dim, small=small)


def _mma_pass(device: Device, count: int, dim: int, nearest: int) -> Pass | None:
    """The tensor-core pass by the rule above; None where no tile fits."""
    capacity = 8 if nearest == 1 else nearest + 16
    wide = count >= device.multiprocessors * WIDE_VECTORS
    for tile, together in (WIDE_TILES if wide else ()) + TILES:
        search = Pass(tile, capacity, 1)
        if together * (search.shared_bytes(dim) + RESERVED_BYTES) <= device.shared_bytes + RESERVED_BYTES:
            return search
    return None


def f32_pass(nearest: int, *, parts: int) -> Pass:
    """A float32 pass for k = `nearest`; 16 lanes may add to a list at once, beside the k that it always holds."""
    return Pass(None, 16 if nearest == 1 else 32, parts)


def _cut(device: Device, first: Pass, second: Pass | None, count: int, size: int, dim: int, *, small: bool) -> Plan:
    """The plan with these passes: parts such that every multiprocessor has a block, rows such that the memory holds."""
    blocks, tiles = _tiles(count, first.rows), _tiles(size, first.codes)
    parts = max(1, min(device.multiprocessors // max(blocks, 1), tiles))
    first = first._replace(parts=_tiles(tiles, _tiles(tiles, parts)))  # no part without a tile
    per_row = first.bytes_per_row(dim) + (second.bytes_per_row(dim) + 4 if second else 0)
    # A float32 copy of vectors of other types, and whole waves of blocks where there is room for one.
    rows = WORKSPACE_BYTES // (per_row + 4 * dim) // first.rows * first.rows
    wave = device.multiprocessors * first.rows
    return Plan(small, first, second, max(rows // wave * wave if rows > wave else rows, first.rows))


def tiles_per_part(size: int, search: Pass) -> tuple[int, int]:
    """Tiles of the codebook, and how many of them a part has."""
    tiles = _tiles(size, search.codes)
    return tiles, _tiles(tiles, search.parts)


def _tiles(count: int, side: int) -> int:
    return -(-count // side)


def _padded(count: int, side: int) -> int:
    return _tiles(count, side) * side
