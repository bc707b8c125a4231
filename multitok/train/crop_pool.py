"""An endless stream of training crops that depends on seed, step and rank alone, in bounded memory.

    items    shuffled anew each time round: visit 0, 1, 2, ... (each rank takes every world-th)
    visit    one item decoded, up to 16 crops of it
    pool     the crops of the visits [s * batch / 16, ... + WINDOW) at step s; the batch is drawn from them

The pool at a step follows from its number, so a resumed run builds it again, and reading ahead in threads changes
nothing. A large data set streams by, each crop used about once; a small one stays decoded on the shelf.
An item that cannot be read is reported once and gives no crops.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.nets.autoencoder_config import Sizes
from multitok.train.crops import MOST_CROPS, CropReader, turned
from multitok.train.items import Items
from multitok.train.presets import Preset

# Visits whose crops make the pool, and visits read ahead of it.
WINDOW, AHEAD = 64, 16
SHELF_BYTES = 1 << 30
# The start sees each value about this many times at most: a small data set needs no more crops.
START_PASSES = 4
# Domains of the random numbers.
_ORDER, _VISIT, _STEP, _START, _HELD_OUT = range(5)
# Held-out items are measured up to this size: middles of pictures, first frames of clips.
MOST_IMAGE, MOST_CLIP, MOST_VOLUME = (1, 768, 768), (32, 288, 352), (96, 96, 96)


class BadItem(NamedTuple):
    """An item that could not be used: a line of the quarantine file."""

    item: str
    error: str
    message: str


class HeldOut(NamedTuple):
    """An item that is not trained on: its name and its levels [T, H, W, C]."""

    name: str
    levels: NDArray[np.int8]


class CropPool:
    """Training crops by step.

    Args:
        items: What to read.
        preset: Crop and scales.
        batch: Crops a step, of this rank.
        seed: Fixes every draw.
        rank: Number of this process.
        world: How many processes there are.
        workers: Threads that read ahead; 0 reads when asked.
        report: Called with each bad item, once.
    """

    def __init__(
        self,
        items: Items,
        preset: Preset,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        report: Callable[[BadItem], None] = lambda _: None,
    ) -> None:
        self._items, self._preset, self._batch, self._seed = items, preset, batch, seed
        self._rank, self._world, self._report = rank, world, report
        self._reader = CropReader(items, preset, SHELF_BYTES)
        self._training = np.arange(len(items))
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._bad: set[int] = set()
        self._visits: dict[int, Future[NDArray[np.int8]] | NDArray[np.int8]] = {}
        self._threads = ThreadPoolExecutor(workers) if workers else None

    def __enter__(self) -> CropPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def hold_out(self, count: int) -> list[HeldOut]:
        """Choose items to measure on; they are not trained on from now on.

        Args:
            count: How many, where so many can be read; at least one stays for training.

        Returns:
            Their levels, whole or the middle of them.
        """
        most = held_out_size(self._preset)
        order = self._rng(_HELD_OUT).permutation(len(self._items))
        held: list[HeldOut] = []
        chosen: list[int] = []
        for index in (int(each) for each in order):
            if len(held) == min(count, len(self._items) - 1):
                break
            try:
                held.append(HeldOut(self._items.name(index), self._reader.whole(index, most)))
            except (InputError, OSError) as error:
                self._reject(index, error)
                continue
            chosen.append(index)
        self._training = np.setdiff1d(self._training, chosen)
        return held

    def whole(self) -> list[HeldOut]:
        """All items, to measure on them."""
        most, found = held_out_size(self._preset), []
        for index in range(len(self._items)):
            try:
                found.append(HeldOut(self._items.name(index), self._reader.whole(index, most)))
            except (InputError, OSError) as error:
                self._reject(index, error)
        return found

    def start(self, count: int) -> NDArray[np.int8]:
        """Crops to fit the start to.

        Args:
            count: How many at most; fewer where the data are few.

        Returns:
            [N, T, H, W, C] levels.

        Raises:
            InputError: No item can be read.
        """
        found: list[NDArray[np.int8]] = []
        total = visit = seen = 0
        num_items = len(self._training)
        while total < count:
            if visit >= num_items and (not total or total >= START_PASSES * seen):
                break
            index, crops = self._item(visit, _START), self._visit(visit, _START)
            found.append(turned(crops, self._preset.modality, self._rng(_START, visit, 1)))
            total += len(crops)
            # A visit has two crops for each time that a crop's side goes into the item's.
            seen += max(len(crops) ** 2 // 4, 1) if visit < num_items and index not in self._bad else 0
            visit += 1
        if not total:
            raise InputError(f"none of {num_items:,} items can be read: the quarantine file says why")
        return np.concatenate(found)[:count]

    def batch(self, step: int) -> NDArray[np.float32]:
        """The crops of one step.

        Args:
            step: From 0; going on is cheap, jumping fills the pool anew.

        Returns:
            [B, T, H, W, C] levels.

        Raises:
            InputError: No item of the pool can be read.
        """
        first = step * self._batch // MOST_CROPS
        self._visits = {key: crops for key, crops in self._visits.items() if key >= first}
        for visit in range(first, first + WINDOW + (AHEAD if self._threads else 0)):
            if visit not in self._visits:
                self._visits[visit] = self._begin(visit)
        pool = [self._finish(visit) for visit in range(first, first + WINDOW)]
        counts = np.cumsum([0, *map(len, pool)])
        if not counts[-1]:
            raise InputError(f"none of the last {WINDOW} items can be read: the quarantine file says why")
        rng = self._rng(_STEP, step, self._rank)
        crops = np.empty((self._batch, *self._preset.crop, self._preset.autoencoder.channels), np.int8)
        for each, number in zip(crops, rng.integers(0, counts[-1], self._batch), strict=True):
            visit = int(np.searchsorted(counts, number, "right")) - 1
            each[:] = pool[visit][number - counts[visit]]
        return turned(crops, self._preset.modality, rng).astype(np.float32)

    def _begin(self, visit: int) -> Future[NDArray[np.int8]] | NDArray[np.int8]:
        number = visit * self._world + self._rank
        return self._threads.submit(self._visit, number) if self._threads else self._visit(number)

    def _finish(self, visit: int) -> NDArray[np.int8]:
        crops = self._visits[visit]
        if isinstance(crops, Future):
            crops = self._visits[visit] = crops.result()
        return crops

    def _visit(self, number: int, domain: int = _VISIT) -> NDArray[np.int8]:
        index = self._item(number, domain)
        if index not in self._bad:
            try:
                return self._reader.visit(index, self._rng(domain, number))
            except (InputError, OSError) as error:
                self._reject(index, error)
        return np.empty((0, *self._preset.crop, self._preset.autoencoder.channels), np.int8)

    def _item(self, number: int, domain: int) -> int:
        """The item of a visit: each comes once in every time round."""
        time_round, place = divmod(number, len(self._training))
        key = time_round * 2 + (domain == _START)
        order = self._orders.get(key)
        if order is None:
            order = self._rng(_ORDER, key).permutation(self._training)
            # Two at a time: a window reaches from one into the next. Other threads may still hold an older one.
            self._orders = {**dict(list(self._orders.items())[-1:]), key: order}
        return int(order[place])

    def _reject(self, index: int, error: Exception) -> None:
        if index not in self._bad:
            self._bad.add(index)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._report(BadItem(self._items.name(index), type(error).__name__, reason))

    def _rng(self, *of: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *of])


def held_out_size(preset: Preset) -> Sizes:
    """(T, H, W) up to which items of a preset's modality are measured."""
    return {"image": MOST_IMAGE, "video": MOST_CLIP, "volume": MOST_VOLUME}[preset.modality.value]
