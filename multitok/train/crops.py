"""From an item to training crops: decode a stretch of it, scale, cut, turn. All draws come from the caller.

    picture   one of the short sides that it is large enough for, then crops anywhere
    clip      a stretch of a few crops' frames anywhere, of a long clip decoded alone; scaled likewise; crops in it
    volume    blocks anywhere

Crops are levels as the autoencoder has them, values minus 128, [T, H, W, C] int8. What is smaller than a crop is
mirrored at its edges. Cost: a decoding per visit, where the `Shelf` does not have the item any more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend import media
from multitok.nets.autoencoder_config import Sizes
from multitok.protocol import Modality
from multitok.tokenizers._nd_levels import WindowLevels
from multitok.train.items import Items, Piece
from multitok.train.presets import Preset

# A picture counts as large enough for a short side from here: it is then enlarged a little.
ENLARGED = 0.9
# Frames that a visit to a clip decodes, in crops.
STRETCH_CROPS = 2
# Clips up to here are decoded once and kept on the shelf; of larger ones each visit decodes its stretch.
SMALL_CLIP_BYTES = 1 << 26
# Crops that one visit gives at most; how many follows from the size, so that each pixel's chance falls with the
# square root of its picture's area: large pictures do not drown small ones.
MOST_CROPS = 16
_STILL = media.ReadOptions(frame=0)


class Shelf:
    """Decoded arrays that were used last, within a number of bytes; for several threads.

    Args:
        num_bytes: How much it holds at most.
    """

    def __init__(self, num_bytes: int) -> None:
        self._most, self._room = num_bytes, num_bytes
        self._held: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """What was put there, unless it had to make room."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def put(self, key: Hashable, array: NDArray[Any]) -> None:
        """Keep an array, at the cost of those that were not used for longest."""
        with self._lock:
            if key in self._held or array.nbytes > self._most:
                return
            self._held[key] = array
            self._room -= array.nbytes
            while self._room < 0:
                self._room += self._held.popitem(last=False)[1].nbytes


class CropReader:
    """Cuts crops from items.

    Args:
        items: What to read.
        preset: Modality, crop and scales.
        shelf_bytes: Decoded items that are kept for their next visit.
    """

    def __init__(self, items: Items, preset: Preset, shelf_bytes: int) -> None:
        self._items, self._preset = items, preset
        self._shelf = Shelf(shelf_bytes)
        self._extents: dict[tuple[int, int], tuple[int, ...]] = {}

    def visit(self, index: int, rng: np.random.Generator) -> NDArray[np.int8]:
        """Crops of one item.

        Args:
            index: Which item.
            rng: Draws piece, stretch, scale and places.

        Returns:
            [n, T, H, W, C] levels, 1 <= n <= MOST_CROPS.

        Raises:
            InputError: The item cannot be used.
            OSError: It cannot be read.
            MissingExtraError: Its format needs a package.
        """
        pieces = self._items.pieces(index)
        if not pieces:
            raise InputError(f"{self._items.name(index)}: holds no {self._preset.modality}")
        chosen = int(rng.integers(len(pieces)))
        values = self._stretch((index, chosen), pieces[chosen], rng)
        crop = self._preset.crop
        axes = range(3) if self._preset.modality is Modality.VOLUME else (1, 2)
        ratio = float(np.prod([values.shape[axis] / crop[axis] for axis in axes])) ** (1 / len(axes))
        count = int(np.clip(round(2 * ratio), 1, MOST_CROPS))
        padded = _at_least(values, crop)
        crops = np.empty((count, *crop, padded.shape[-1]), np.int8)
        for each in crops:
            t, h, w = (int(rng.integers(size - side + 1)) for size, side in zip(padded.shape, crop, strict=False))
            each[:] = padded[t : t + crop[0], h : h + crop[1], w : w + crop[2]]
        return crops

    def whole(self, index: int, most: Sizes) -> NDArray[np.int8]:
        """The middle of an item, unscaled, to measure on.

        Args:
            index: Which item.
            most: (T, H, W) at most.

        Returns:
            [T, H, W, C] levels, each side a multiple of the patch.

        Raises:
            InputError: The item cannot be used.
            OSError: It cannot be read.
        """
        pieces = self._items.pieces(index)
        if not pieces:
            raise InputError(f"{self._items.name(index)}: holds no {self._preset.modality}")
        if self._preset.modality is Modality.VIDEO:
            values = _clip(pieces[0], 0, most[0])
        else:
            values = _decoded(pieces[0], self._preset.modality)
        patch = self._preset.autoencoder.patch
        values = _at_least(values, patch)
        cut = []
        for size, limit, step in zip(values.shape, most, patch, strict=False):
            side = max(min(size, limit) // step, 1) * step
            cut.append(slice((size - side) // 2, (size - side) // 2 + side))
        return np.ascontiguousarray(values[tuple(cut)])

    def _stretch(self, key: tuple[int, int], piece: Piece, rng: np.random.Generator) -> NDArray[np.int8]:
        """What one visit cuts its crops from."""
        if self._preset.modality is Modality.VIDEO:
            if key not in self._extents:
                self._extents[key] = media.probe(piece.data, piece.name, modality=Modality.VIDEO).extent
            extent = self._extents[key]
            count = min(STRETCH_CROPS * self._preset.crop[0], extent[0])
            first = int(rng.integers(extent[0] - count + 1))
            if 3 * extent[0] * extent[1] * extent[2] > SMALL_CLIP_BYTES:
                values = _clip(piece, first, count)
            else:
                clip = self._shelf.get(key)
                if clip is None:
                    clip = _clip(piece, 0, extent[0])
                    self._shelf.put(key, clip)
                values = clip[first : first + count]
            return _scaled(values, self._side(values.shape[1:3], rng))
        if key not in self._extents:
            values = _decoded(piece, self._preset.modality)
            self._extents[key] = values.shape[:3]
            side = self._side(values.shape[1:3], rng)
        else:
            side = self._side(self._extents[key][1:], rng)
            known = self._shelf.get((key, side))
            if known is not None:
                return known
            values = _decoded(piece, self._preset.modality)
        values = _scaled(values, side)
        self._shelf.put((key, side), values)
        return values

    def _side(self, extent: tuple[int, ...], rng: np.random.Generator) -> int | None:
        fits = [side for side in self._preset.short_sides if min(extent) >= ENLARGED * side]
        return fits[int(rng.integers(len(fits)))] if fits else None


def turned(crops: NDArray[np.int8], modality: Modality, rng: np.random.Generator) -> NDArray[np.int8]:
    """Crops mirrored and turned at random, each by itself; time never runs backwards.

    Args:
        crops: [B, T, H, W, C], changed in place.
        modality: A volume is mirrored along depth, too.
        rng: Draws.

    Returns:
        The same array.
    """
    square = crops.shape[2] == crops.shape[3]
    for crop in crops:
        draws = rng.random(4) < 0.5
        turn = crop
        if draws[0]:
            turn = turn[:, :, ::-1]
        if draws[1]:
            turn = turn[:, ::-1]
        if draws[2] and square:
            turn = turn.swapaxes(1, 2)
        if draws[3] and modality is Modality.VOLUME:
            turn = turn[::-1]
        crop[:] = turn.copy()
    return crops


def _decoded(piece: Piece, modality: Modality) -> NDArray[np.int8]:
    """A picture [1, H, W, 3] or a volume [Z, Y, X, 1]; of several in one file, the first."""
    found = media.read_records(piece.data, piece.name, modality=modality, options=_STILL)
    raw = next(found).raw
    if not isinstance(raw, np.ndarray) or 0 in raw.shape:
        raise InputError(f"{piece.name}: holds no {modality}")
    if modality is Modality.IMAGE:
        return _levels(raw)[None]
    return WindowLevels((0.0, 1.0)).encode(raw.astype(np.float32, copy=False)).astype(np.int8)[..., None]


def _clip(piece: Piece, first: int, count: int) -> NDArray[np.int8]:
    """[T, H, W, 3], `count` frames from a place on, or as many as there are."""
    if piece.name.lower().endswith((".npy", ".npz", ".npy.gz")):
        raw = media.read(piece.data, piece.name, modality=Modality.VIDEO)
        return _levels(np.asarray(raw)[first : first + count])
    return _levels(media.read_clip(piece.data, piece.name, frames=(first, first + count)).pixels)


def _levels(values: NDArray[Any]) -> NDArray[np.int8]:
    return (values.astype(np.uint8) ^ 128).view(np.int8)


def _scaled(values: NDArray[np.int8], side: int | None) -> NDArray[np.int8]:
    """[T, H, W, 3] with its short side of this length."""
    height, width = values.shape[1:3]
    if side is None or min(height, width) == side:
        return values
    from PIL import Image

    share = side / min(height, width)
    size = max(side, round(width * share)), max(side, round(height * share))
    frames = (Image.fromarray(frame.view(np.uint8) ^ 128).resize(size, Image.Resampling.LANCZOS) for frame in values)
    return np.stack([_levels(np.asarray(frame)) for frame in frames])


def _at_least(values: NDArray[np.int8], sides: Sizes) -> NDArray[np.int8]:
    missing = [max(side - size, 0) for side, size in zip(sides, values.shape, strict=False)]
    return np.pad(values, [*((0, more) for more in missing), (0, 0)], mode="symmetric") if any(missing) else values
