"""Filling rows of L tokens with documents: where each piece of each document goes.

    concat_split   documents end to end, cut every L tokens; no padding but in an epoch's last row
                   |aaaaaaab|bbbccccc|ccccdd..|
    first_fit      documents stay whole where they fit into L; each goes, in order of arrival, into the first row
                   of its window with enough room
                   |aaaaaaa.|bbbbdd..|
    best_fit       the same, longest document first, into the row that it fills best

Documents longer than L are cut: full rows first, then the rest like any other document. The fit packings look at one
window of documents at a time, about 256 rows' worth, so their memory does not grow with the data.

A plan needs lengths alone, no tokens. `Packer.plan` is a pure function of a place in the stream (epoch, position in
the epoch's order, carry): the same place gives the same rows, so a loader resumes at any row without replaying an
epoch. The carry is the number of tokens (concat_split) or of rows (fit) already taken from the place.

Source:
    Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (best-fit-decreasing packing of documents).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.loader.order import DocumentOrder

Packing = Literal["concat_split", "first_fit", "best_fit"]
PACKINGS: tuple[str, ...] = get_args(Packing)
_CHUNK_DOCUMENTS = 4096
_MAX_ROWS = 4096
"""Of one plan of concat_split, whose rows do not depend on where a plan ends: a document may hold millions."""
_WINDOW_ROWS = 256
_MIN_WINDOW_DOCUMENTS = 256


class Place(NamedTuple):
    """A place in the stream of rows.

    Args:
        epoch: From 0.
        position: Documents of the epoch's order that lie behind.
        carry: Tokens (concat_split) or rows (fit packings) already taken beyond `position`.
    """

    epoch: int
    position: int
    carry: int


START = Place(0, 0, 0)


@dataclass(frozen=True)
class RowPlan:
    """Consecutive rows, each a list of pieces of documents.

    Args:
        first_piece: [R + 1] first piece of each row.
        document: [P] number of the document.
        offset: [P] first token of the piece in its document.
        length: [P] tokens in the piece.
        after: The place after each row.
    """

    first_piece: NDArray[np.int64]
    document: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    after: list[Place]


class Lengths(Protocol):
    """What a packer asks of a corpus."""

    num_tokens: int

    def lengths(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n] tokens in each of the documents [n]."""


class Packer:
    """Plans rows of `sequence_length` tokens over a corpus in a given order.

    Args:
        corpus: Where the lengths come from.
        order: Which document comes when.
        sequence_length: L.
        packing: How rows are filled.

    Raises:
        SpecError: An unknown packing, or a length below 1.
    """

    def __init__(self, corpus: Lengths, order: DocumentOrder, sequence_length: int, packing: Packing) -> None:
        if packing not in PACKINGS:
            raise SpecError(f"packing={packing!r}: choose one of {', '.join(PACKINGS)}")
        if sequence_length < 1:
            raise SpecError(f"sequence_length={sequence_length}: give the tokens per row, at least 1")
        self._corpus, self._order, self._packing = corpus, order, packing
        self._row_tokens = sequence_length
        mean = max(1, corpus.num_tokens // order.num_documents)
        self._window = max(_MIN_WINDOW_DOCUMENTS, _WINDOW_ROWS * sequence_length // mean)

    def plan(self, place: Place) -> RowPlan:
        """The next rows from `place` on: at least one, never beyond the end of the epoch."""
        return self._concat_split(place) if self._packing == "concat_split" else self._fit(place)

    def _concat_split(self, place: Place) -> RowPlan:
        size = _CHUNK_DOCUMENTS
        while True:
            documents, lengths = self._take(place, size)
            lengths[0] -= place.carry
            ends = np.cumsum(lengths)
            is_last = place.position + len(documents) == self._order.num_documents
            num_rows = int(-(-ends[-1] // self._row_tokens) if is_last else ends[-1] // self._row_tokens)
            if num_rows:
                break
            size *= 2
        num_rows = min(num_rows, _MAX_ROWS)
        row_ends = np.arange(1, num_rows + 1) * self._row_tokens
        total = min(int(ends[-1]), int(row_ends[-1]))
        row_ends[-1] = total
        cuts = np.union1d(ends[ends < total], row_ends)
        starts = np.concatenate([[0], cuts[:-1]])
        owner = np.searchsorted(ends, starts, side="right")
        document_starts = ends - lengths
        document_starts[0] -= place.carry
        # A row that ends with its document leaves nothing to carry: the next place is the next document.
        next_document = np.searchsorted(ends, row_ends, side="right")
        carries = row_ends - np.append(document_starts, total)[next_document]
        after = [
            self._next(place.epoch, place.position + document, carry)
            for document, carry in zip(next_document.tolist(), carries.tolist(), strict=True)
        ]
        return RowPlan(
            np.concatenate([[0], np.searchsorted(cuts, row_ends, side="right")]),
            documents[owner],
            starts - document_starts[owner],
            cuts - starts,
            after,
        )

    def _fit(self, place: Place) -> RowPlan:
        documents, lengths = self._take(place, self._window)
        owner, offset, length = _cut_long(lengths, self._row_tokens)
        arrange = np.argsort(-length, kind="stable") if self._packing == "best_fit" else np.arange(len(length))
        fit = _best_fit if self._packing == "best_fit" else _first_fit
        placed = fit(length[arrange], self._row_tokens)
        row = np.empty(len(length), np.int64)
        row[arrange] = placed
        # Rows come in the order of the piece that opened them: best_fit would else begin with the longest documents.
        opener = arrange[np.unique(placed, return_index=True)[1]]
        rank = np.empty(len(opener), np.int64)
        rank[np.argsort(opener)] = np.arange(len(opener))
        row = rank[row]
        pieces = np.argsort(row, kind="stable")
        first_piece = np.searchsorted(row[pieces], np.arange(len(opener) + 1))
        pieces, first_piece = pieces[first_piece[place.carry] :], first_piece[place.carry :] - first_piece[place.carry]
        after = [Place(place.epoch, place.position, k) for k in range(place.carry + 1, len(opener))]
        after.append(self._next(place.epoch, place.position + len(documents), 0))
        return RowPlan(first_piece, documents[owner[pieces]], offset[pieces], length[pieces], after)

    def _take(self, place: Place, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        documents = self._order.take(place.epoch, place.position, place.position + count)
        return documents, self._corpus.lengths(documents)

    def _next(self, epoch: int, position: int, carry: int) -> Place:
        if position == self._order.num_documents:
            return Place(epoch + 1, 0, 0)
        return Place(epoch, position, carry)


def _cut_long(
    lengths: NDArray[np.int64], row_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut documents into pieces of at most a row: owner, offset and length of each piece, in order."""
    counts = -(-lengths // row_tokens)
    owner = np.repeat(np.arange(len(lengths)), counts)
    offset = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)) * row_tokens
    return owner, offset, np.minimum(lengths[owner] - offset, row_tokens)


def _first_fit(lengths: NDArray[np.int64], row_tokens: int) -> NDArray[np.int64]:
    """Row of each piece: the first one with room, or a new one."""
    room = np.zeros(len(lengths), np.int64)
    rows = np.empty(len(lengths), np.int64)
    used = full = 0  # rows below `full` have no room at all and are not looked at
    for piece, length in enumerate(lengths.tolist()):
        # A piece as long as a row needs one of its own: nothing to look for, and a long document has many of them.
        look = full < used and length < row_tokens
        row = full + int((room[full:used] >= length).argmax()) if look else used
        if row == used or room[row] < length:
            row = used
            room[row] = row_tokens
            used += 1
        room[row] -= length
        rows[piece] = row
        while full < used and room[full] == 0:
            full += 1
    return rows


def _best_fit(lengths: NDArray[np.int64], row_tokens: int) -> NDArray[np.int64]:
    """Row of each piece: the one with the least room that suffices (the latest of equals), or a new one."""
    rows = np.empty(len(lengths), np.int64)
    by_room: dict[int, list[int]] = {}
    rooms = 0  # bit r is set where some row has room for exactly r tokens
    used = 0
    for piece, length in enumerate(lengths.tolist()):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, row = row_tokens, used
            used += 1
        rows[piece] = row
        left = room - length
        if left:
            by_room.setdefault(left, []).append(row)
            rooms |= 1 << left
    return rows
