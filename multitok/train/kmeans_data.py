"""The vectors that k-means reads: in the same blocks however they came, and what the first pass finds out about them.

    batches   |--- 5 ---|- 2 -|-------- 7 --------|         as they came
    blocks    |-- 4 --|-- 4 --|-- 4 --|- 2 -|               as every pass reads them

Since every later step sees blocks, no result depends on the size of the batches. A block that lies within one batch is
not copied. Memory: one block, and the sample of the first pass.

N vectors, V codes, D dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError

Floats: TypeAlias = NDArray[np.floating[Any]]
# A function that starts a new pass, or the arrays and files of one.
Batches: TypeAlias = Callable[[], Iterable[Floats]] | Sequence[Floats | str | os.PathLike[str]]

# A block is about this large, so that what one step has read is still in a cache for the next ...
BLOCK_BYTES = 2**23
# ... but has this many vectors at least and at most, and several for each code.
BLOCK_VECTORS = (2**12, 2**18)
BLOCK_VECTORS_PER_CODE = 4
# Vectors read from a safetensors file at once.
FILE_VECTORS = 2**16
# Vectors of the sample by which the usual magnitude of a value is judged.
USUAL_VECTORS = 2**10
# Squared distances between vectors of larger values might overflow float64.
LARGEST_MAGNITUDE = 2.0**500

# The magnitude of a float, as bits: everything but the sign. It grows with the magnitude, NaN and infinity on top.
_MAGNITUDE_BITS: dict[np.dtype[Any], tuple[type[np.unsignedinteger[Any]], int]] = {
    np.dtype(np.float16): (np.uint16, 0x7FFF),
    np.dtype(np.float32): (np.uint32, 0x7FFFFFFF),
    np.dtype(np.float64): (np.uint64, 0x7FFFFFFFFFFFFFFF),
}


class Survey(NamedTuple):
    """What the first pass finds out.

    Args:
        num_vectors: N.
        dim: D.
        largest: Largest magnitude of a value.
        usual: Median magnitude of the values in the sample, zeros left out; 0 where all are.
        dtype: Of the codebook: float64 for float64 vectors, else float32.
        sample: [S, D], S = min(N, wanted, but at least 1,024), each vector with the same chance.
    """

    num_vectors: int
    dim: int
    largest: float
    usual: float
    dtype: np.dtype[Any]
    sample: Floats


class Blocks:
    """Vectors in blocks of equal size, the last one smaller. Iterating starts a pass.

    A block is only valid until the next one is asked for.

    Args:
        batches: See `multitok.train.train_kmeans_stream`.
        codebook_size: V, for the size of a block.
        metric: "cosine" scales each vector to length 1; zero stays zero.
        rows: Vectors in a block; None takes a size that suits D and V.

    Raises:
        SpecError: `batches` is an iterator, which gives one pass only, or the metric is unknown.
    """

    def __init__(self, batches: Batches, codebook_size: int, *, metric: str = "l2", rows: int | None = None) -> None:
        if metric not in ("l2", "cosine"):
            raise SpecError(f'metric={metric!r}: k-means has "l2" and "cosine"')
        if not callable(batches) and not isinstance(batches, Sequence):
            raise SpecError(
                f"batches given as {type(batches).__name__}: give a list of arrays or files, or a function that "
                "returns a new iterator for each pass"
            )
        self._batches, self._size, self._unit, self._rows = batches, codebook_size, metric == "cosine", rows
        self._kind: tuple[int, np.dtype[Any]] | None = None
        # Only a function might give other vectors on a later pass.
        self._may_change = callable(batches)

    def __iter__(self) -> Iterator[Floats]:
        gathered, filled = None, 0
        for batch in self._checked():
            start, rows = 0, self._block_rows()
            while start < len(batch):
                if filled == 0 and len(batch) - start >= rows:
                    yield self._scaled(batch[start : start + rows])
                    start += rows
                    continue
                if gathered is None:
                    gathered = np.empty((rows, batch.shape[1]), batch.dtype)
                taken = min(rows - filled, len(batch) - start)
                gathered[filled : filled + taken] = batch[start : start + taken]
                filled, start = filled + taken, start + taken
                if filled == rows:
                    yield self._scaled(gathered)
                    filled = 0
        if gathered is not None and filled:
            yield self._scaled(gathered[:filled])

    def again(self, num_vectors: int, largest: float) -> Iterator[Floats]:
        """A later pass.

        Args:
            num_vectors: N on the first pass.
            largest: Largest magnitude of a value on the first pass.

        Raises:
            InputError: The vectors are more, fewer or larger than on the first pass.
        """
        seen = 0
        changed = InputError(
            f"a later pass gave other vectors than the first one, which gave {num_vectors} of magnitudes up to "
            f"{largest:g}: the batches must be the same on every pass"
        )
        for block in self:
            seen += len(block)
            if seen > num_vectors or (self._may_change and largest_magnitude(block, seen - len(block)) > largest):
                raise changed
            yield block
        if seen < num_vectors:
            raise changed

    def _checked(self) -> Iterator[Floats]:
        """The batches of one pass, native byte order, values of a row side by side."""
        given = self._batches() if callable(self._batches) else self._batches
        for item in given:
            for batch in _opened(item) if isinstance(item, str | os.PathLike) else (item,):
                dtype = batch.dtype.newbyteorder("=") if isinstance(batch, np.ndarray) else None
                if dtype not in _MAGNITUDE_BITS or batch.ndim != 2 or batch.shape[1] == 0:
                    shown = f"{batch.dtype} {list(batch.shape)}" if dtype is not None else type(batch).__name__
                    raise ShapeError(f"vectors are {shown}: give float16, float32 or float64 [N, D] with D >= 1")
                assert dtype is not None
                if self._kind is None:
                    self._kind = batch.shape[1], dtype
                if self._kind != (batch.shape[1], dtype):
                    raise ShapeError(
                        f"a batch is {dtype} with D = {batch.shape[1]}, the first one is {self._kind[1]} with "
                        f"D = {self._kind[0]}: all must be alike"
                    )
                yield batch

    def _block_rows(self) -> int:
        if self._rows is None:
            assert self._kind is not None
            dim, dtype = self._kind
            least, most = BLOCK_VECTORS
            fitting = max(least, min(most, BLOCK_BYTES // (dim * dtype.itemsize)))
            self._rows = max(fitting, BLOCK_VECTORS_PER_CODE * self._size)
        return self._rows

    def _scaled(self, block: Floats) -> Floats:
        block = np.ascontiguousarray(block, block.dtype.newbyteorder("="))
        return unit(block) if self._unit else block


def unit(vectors: Floats) -> Floats:
    """[N, D] each vector scaled to length 1, zero stays zero; float32, or float64 where `vectors` are.

    A vector that is not finite stays as it is.
    """
    wide = vectors.astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.where((largest > 0) & np.isfinite(largest), largest, 1)  # else the squares might overflow
    # accumulate, unlike sum, promises the order of its additions.
    lengths = np.sqrt(np.add.accumulate(np.square(wide), axis=1)[:, -1:])
    wide /= np.where((lengths > 0) & np.isfinite(lengths), lengths, 1)
    return wide.astype(np.float64 if vectors.dtype == np.float64 else np.float32)


def survey(blocks: Blocks, wanted: Callable[[int, np.dtype[Any]], int], rng: np.random.Generator) -> Survey:
    """Read all vectors once: count them, check them, draw a sample.

    Args:
        blocks: The vectors.
        wanted: How many vectors to draw, from D and the dtype.
        rng: Draws the sample.

    Raises:
        InputError: There are no vectors, or one is not finite (the message names its row) or too large.

    Source:
        Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """
    count, largest = 0, 0.0
    sample: Floats | None = None
    for block in blocks:
        if sample is None:
            sample = np.empty((max(wanted(block.shape[1], block.dtype), USUAL_VECTORS), block.shape[1]), block.dtype)
        largest = max(largest, largest_magnitude(block, count))
        # Vector number i replaces one of the sample with probability len(sample) / (i + 1).
        place = count + np.arange(len(block))
        drawn = (rng.random(len(block)) * (place + 1)).astype(np.int64)
        place = np.where(place < len(sample), place, drawn)
        kept = place < len(sample)
        sample[place[kept]] = block[kept]  # where a place comes twice, the later vector stays
        count += len(block)
    if sample is None:
        raise InputError("no vectors given: k-means needs at least one")
    dtype = np.dtype(np.float64 if sample.dtype == np.float64 else np.float32)
    sample = sample[: min(count, len(sample))]
    values = np.abs(sample[:USUAL_VECTORS].astype(np.float64))
    values = np.sort(values[values > 0])
    usual = float(values[len(values) // 2]) if len(values) else 0.0
    return Survey(count, sample.shape[1], largest, usual, dtype, sample)


def largest_magnitude(block: Floats, first_row: int = 0) -> float:
    """Largest magnitude of a value.

    Args:
        block: [N, D], N >= 1.
        first_row: Row number of the first vector, for the message.

    Raises:
        InputError: A value is NaN, infinite or above `LARGEST_MAGNITUDE`.
    """
    bits, mask = _MAGNITUDE_BITS[block.dtype]
    largest = float((block.view(bits) & mask).max().view(block.dtype))
    if not largest <= LARGEST_MAGNITUDE:
        row, column = np.argwhere(~(np.abs(block.astype(np.float64)) <= LARGEST_MAGNITUDE))[0].tolist()
        raise InputError(
            f"vectors[{first_row + row}, {column}] is {block[row, column]}: k-means takes finite values of magnitudes "
            "up to 2^500; a NaN or an infinity usually comes from the model or the data in front of it"
        )
    return largest


def _opened(path: str | os.PathLike[str]) -> Iterator[Floats]:
    """The vectors of a .npy file, mapped, or of the one tensor of a .safetensors file."""
    path = Path(path)
    if path.suffix == ".npy":
        try:
            yield np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InputError(f"{path}: not a .npy file of numbers ({error})") from error
    elif path.suffix == ".safetensors":
        yield from _safetensors(path)
    else:
        raise SpecError(f"{path}: give .npy or .safetensors files")


def _safetensors(path: Path) -> Iterator[Floats]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            if len(names) != 1:
                raise InputError(f"{path} holds {len(names)} tensors: give files of one tensor [N, D]")
            tensor = file.get_slice(names[0])
            if len(tensor.get_shape()) != 2 or tensor.get_dtype() not in ("F16", "F32", "F64"):
                raise ShapeError(
                    f"{path}: tensor {names[0]!r} is {tensor.get_dtype()} {tensor.get_shape()}: give F16, F32 or F64 "
                    "[N, D]"
                )
            count = tensor.get_shape()[0]
            for start in range(0, count, FILE_VECTORS):
                yield tensor[start : min(start + FILE_VECTORS, count)]  # safetensors does not cut a slice short
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file ({error})") from error
