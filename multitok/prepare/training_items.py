"""Items to train on from everything that `prepare` reads: WebDataset tars, JSONL and Parquet documents, folders.

    items = open_items([Path("photos.tar"), Path("more/")], Modality.IMAGE)
    train_autoencoder(items, "runs/mine", preset="image-f8")

A source is planned once into one slice an item; 16 bytes an item are held, and each item is read when it is asked for.
A Parquet row costs its row group's decoding: prefer small row groups, or a tar.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from multitok.errors import InputError
from multitok.frontend.media import modalities_of
from multitok.prepare.routing import Routing
from multitok.prepare.sources import Findings, Item, Part, Slice, Source, open_sources
from multitok.protocol import Modality
from multitok.train.items import FileItems, Items, JoinedItems, Piece

CONTAINERS = (".tar", ".jsonl", ".ndjson", ".parquet")
# Not written: only folders need a listing, and they are read as files.
_NO_LISTING = Path()


class SourceItems:
    """The items of one tar, JSONL or Parquet file.

    Args:
        source: What to read.
        modality: Which parts of its items count.

    Raises:
        InputError: It holds no items.
        JobError: It cannot be used as a whole.
    """

    def __init__(self, source: Source, modality: Modality) -> None:
        self._source, self._modality = source, modality
        findings = Findings()
        slices = [(each.start, each.stop) for each in source.plan(1, _NO_LISTING, findings)]
        if not slices:
            raise InputError(f"{source.path} holds no items")
        self._slices = np.array(slices, np.int64)
        self._notes = frozenset(findings.notes)

    def __len__(self) -> int:
        return len(self._slices)

    def pieces(self, index: int) -> Sequence[Piece]:
        """See `Items`."""
        return [
            Piece(part.name, part.content)
            for part in self._item(index).parts
            if not isinstance(part.content, str) and self._counts(part)
        ]

    def name(self, index: int) -> str:
        """See `Items`."""
        try:
            return self._item(index).id
        except InputError:
            return f"{self._source.label}:{self._slices[index, 0]}"

    def digest(self) -> str:
        """See `Items`."""
        return self._source.identity()[1]

    def _item(self, index: int) -> Item:
        start, stop = (int(each) for each in self._slices[index])
        found = next(self._source.read(Slice(start, stop, 0), _NO_LISTING, self._notes), None)
        if found is None:
            raise InputError(f"{self._source.label}:{start}: an empty line")
        if not isinstance(found, Item):
            raise InputError(f"{found.id}: {found.message}")
        return found

    def _counts(self, part: Part) -> bool:
        return part.tokenizer == self._modality or (
            part.tokenizer is None and self._modality in modalities_of(part.name)[:2]
        )


def open_items(paths: Sequence[Path], modality: Modality) -> Items:
    """Everything of one modality in files, folders, tars and tables.

    Args:
        paths: At least one.
        modality: Image, video or volume.

    Returns:
        The items, in the order of the paths.

    Raises:
        InputError: Nothing of this modality is there.
        JobError: A source cannot be used as a whole.
    """
    routing = Routing({each.value: each for each in Modality}, {})
    parts: list[Items] = []
    for path in paths:
        if path.suffix.lower() in CONTAINERS:
            (source,) = open_sources([path], routing, group_by_stem=False)
            parts.append(SourceItems(source, modality))
        else:
            parts.append(FileItems([path], modality))
    return parts[0] if len(parts) == 1 else JoinedItems(parts)
