"""Packing against a slow reference, and plans that start anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.loader.order import DocumentOrder
from multitok.loader.packing import PACKINGS, START, Packer, Place, _first_fit
from tests.loader import reference


class _Lengths:
    """A corpus that knows lengths only, and counts how many it was asked for."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = np.array(lengths, np.int64)
        self.num_tokens = sum(lengths)
        self.asked = 0

    def lengths(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        self.asked += len(documents)
        return self._lengths[documents]


def _rows(packer: Packer, place: Place, epoch: int) -> list[tuple[reference.Row, Place]]:
    """All rows from a place to the end of its epoch, each with the place after it."""
    rows = []
    while place.epoch == epoch:
        plan = packer.plan(place)
        for row, after in enumerate(plan.after):
            pieces = range(int(plan.first_piece[row]), int(plan.first_piece[row + 1]))
            tokens = [
                reference.Token(int(plan.document[piece]), int(plan.offset[piece]) + at)
                for piece in pieces
                for at in range(int(plan.length[piece]))
            ]
            rows.append((tokens, after))
        place = plan.after[-1]
    return rows


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    size=st.integers(1, 30),
    packing=st.sampled_from(PACKINGS),
    window=st.integers(1, 12),
    epoch=st.integers(0, 2),
)
def test_equals_the_reference(lengths: list[int], size: int, packing: str, window: int, epoch: int) -> None:
    order = DocumentOrder(len(lengths), 3, shuffle=True)
    packer = Packer(_Lengths(lengths), order, size, packing)
    packer._window = window  # far smaller than the real one, so that few documents need several
    rows = _rows(packer, START._replace(epoch=epoch), epoch)
    in_order = order.take(epoch, 0, len(lengths)).tolist()
    assert [row for row, _ in rows] == reference.rows_of_epoch(in_order, lengths, size, packing, window)
    assert sorted(token for row, _ in rows for token in row) == [
        reference.Token(document, at) for document, length in enumerate(lengths) for at in range(length)
    ]
    assert rows[-1][1] == Place(epoch + 1, 0, 0)
    for k, (_, after) in enumerate(rows):  # resuming after any row gives the rest
        assert _rows(packer, after, epoch) == rows[k + 1 :]


@pytest.mark.parametrize("packing", PACKINGS)
def test_many_documents(packing: str) -> None:
    """More documents than one chunk or window, and rows longer than a whole chunk."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 4, 12_000).tolist()
    order = DocumentOrder(len(lengths), 0, shuffle=False)
    for size in (7, 10_000, 30_000):
        packer = Packer(_Lengths(lengths), order, size, packing)
        rows = _rows(packer, START, 0)
        in_order = list(range(len(lengths)))
        if packing == "concat_split":
            assert [row for row, _ in rows] == reference.rows_of_epoch(in_order, lengths, size, packing, 0)
        tokens = sorted(token for row, _ in rows for token in row)
        assert tokens == [
            reference.Token(document, at) for document, length in enumerate(lengths) for at in range(length)
        ]
        assert max(len(row) for row, _ in rows) <= size


@pytest.mark.parametrize("packing", PACKINGS)
def test_resuming_costs_the_same_everywhere(packing: str) -> None:
    """The next rows from a place late in a large epoch need one chunk or window of lengths, not the epoch."""
    corpus = _Lengths([700] * 300_000)
    packer = Packer(corpus, DocumentOrder(300_000, 0, shuffle=True), 4096, packing)
    asked = []
    for position in (0, 150_000, 290_000):
        corpus.asked = 0
        packer.plan(Place(0, position, 0))
        asked.append(corpus.asked)
    assert asked[0] == asked[1] == asked[2] <= 4096


def test_plans_of_concat_split_may_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [90, 3, 1, 41, 8, 64, 5]
    order = DocumentOrder(len(lengths), 3, shuffle=True)
    whole = _rows(Packer(_Lengths(lengths), order, 8, "concat_split"), START, 0)
    monkeypatch.setattr("multitok.loader.packing._MAX_ROWS", 2)
    packer = Packer(_Lengths(lengths), order, 8, "concat_split")
    assert len(packer.plan(START).after) == 2
    assert _rows(packer, START, 0) == whole


def test_a_huge_document_does_not_make_a_huge_plan() -> None:
    packer = Packer(_Lengths([2**31 - 1] * 3), DocumentOrder(3, 0, shuffle=True), 4096, "concat_split")
    plan = packer.plan(Place(0, 1, 2**31 - 2))
    assert len(plan.after) <= 4096
    assert plan.after[0] == Place(0, 2, 4095)


def test_first_fit_finds_the_room_before_many_full_rows() -> None:
    """One row with a token's room stays open; full rows behind it are as many as a long document has."""
    lengths = np.array([7, *[8] * 3_000, 1])
    assert np.array_equal(_first_fit(lengths, 8), [*range(3_001), 0])


def test_the_fit_packings_fill_well() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(6.5, 0.8, 20_000), 16, 20_000).astype(int).tolist()
    fill = {}
    for packing in PACKINGS:
        packer = Packer(_Lengths(lengths), DocumentOrder(len(lengths), 0, shuffle=True), 4096, packing)
        place, count = START, 0
        while place.epoch == 0:
            plan = packer.plan(place)
            place, count = plan.after[-1], count + len(plan.after)
        fill[packing] = sum(lengths) / (count * 4096)
    assert fill["concat_split"] > 0.999
    assert fill["best_fit"] > 0.99 > fill["first_fit"] > 0.97


def test_settings_that_cannot_be() -> None:
    order = DocumentOrder(1, 0, shuffle=True)
    with pytest.raises(SpecError, match="packing='worst': choose one of concat_split, first_fit, best_fit"):
        Packer(_Lengths([1]), order, 8, "worst")
    with pytest.raises(SpecError, match="sequence_length=0: give the tokens per row"):
        Packer(_Lengths([1]), order, 0, "first_fit")
