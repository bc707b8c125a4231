"""The loader again, slow and obvious: token by token, document by document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from multitok.interleave import TokenSequence
from multitok.loader import MODALITY_IDS


class Token(NamedTuple):
    """One token of a row: which document, where in it, and in which stretch where documents are shuffled in parts."""

    document: int
    at: int
    stretch: int = 0


Row = list[Token]


def rows_of_epoch(order: Sequence[int], lengths: Sequence[int], size: int, packing: str, window: int) -> list[Row]:
    """The rows of one epoch whose documents come in `order`; a row may be short, never longer than `size`."""
    if packing == "concat_split":
        stream = [Token(document, at) for document in order for at in range(lengths[document])]
        return [stream[start : start + size] for start in range(0, len(stream), size)]
    rows = []
    for start in range(0, len(order), window):
        pieces = []
        for document in order[start : start + window]:
            tokens = [Token(document, at) for at in range(lengths[document])]
            pieces += [tokens[cut : cut + size] for cut in range(0, len(tokens), size)]
        rows += _first_fit(pieces, size) if packing == "first_fit" else _best_fit(pieces, size)
    return rows


def _first_fit(pieces: list[Row], size: int) -> list[Row]:
    rows: list[Row] = []
    for piece in pieces:
        for row in rows:
            if len(row) + len(piece) <= size:
                row += piece
                break
        else:
            rows.append(list(piece))
    return rows


def _best_fit(pieces: list[Row], size: int) -> list[Row]:
    """Longest first, into the fullest row that has room, of equals the one filled last."""
    rows: list[Row] = []
    touched: list[int] = []
    openers: list[int] = []
    by_length = sorted(range(len(pieces)), key=lambda piece: -len(pieces[piece]))
    for step, piece in enumerate(by_length):
        fitting = [row for row in range(len(rows)) if len(rows[row]) + len(pieces[piece]) <= size]
        if fitting:
            row = max(fitting, key=lambda row: (len(rows[row]), touched[row]))
            rows[row] += [*pieces[piece]]
            touched[row] = step
        else:
            rows.append(list(pieces[piece]))
            touched.append(step)
            openers.append(piece)
    # Rows come in the order in which their first pieces lie in the data; inside a row, so do the pieces.
    rank = {token: number for number, piece in enumerate(pieces) for token in piece}
    in_order = [sorted(row, key=lambda token: (rank[token], token.at)) for row in rows]
    return [row for _, row in sorted(zip(openers, in_order, strict=True), key=lambda pair: pair[0])]


def fields_of_row(
    row: Row, size: int, documents: Sequence[TokenSequence], weights: dict[str, float], pad_id: int
) -> dict[str, list[Any]]:
    """What the loader must emit for one row."""
    fields: dict[str, list[Any]] = {
        name: []
        for name in ("input_ids", "labels", "position_ids", "document_ids", "modality_ids", "loss_weights", "bounds")
    }
    position = 0
    for number, token in enumerate(row):
        document = documents[token.document]
        before = row[number - 1]
        is_start = number == 0 or (before.document, before.stretch) != (token.document, token.stretch)
        position = 0 if is_start else position + 1
        has_next = token.at + 1 < len(document)
        following = modality(document, token.at + 1) if has_next else "structure"
        fields["input_ids"].append(int(document.ids[token.at]))
        fields["labels"].append(int(document.ids[token.at + 1]) if has_next else -100)
        fields["position_ids"].append(position)
        fields["document_ids"].append(token.document)
        fields["modality_ids"].append(MODALITY_IDS[modality(document, token.at)])
        fields["loss_weights"].append(weights.get(following, 1.0) if has_next else 0.0)
        if is_start:
            fields["bounds"].append(number)
    for number in range(size - len(row)):
        fields["input_ids"].append(pad_id)
        fields["labels"].append(-100)
        fields["position_ids"].append(number)
        fields["document_ids"].append(-1)
        fields["modality_ids"].append(0)
        fields["loss_weights"].append(0.0)
        if number == 0:
            fields["bounds"].append(len(row))
    fields["bounds"].append(size)
    return fields


def modality(document: TokenSequence, at: int) -> str:
    """The modality of one token, "structure" outside all spans."""
    for span in document.spans:
        if span.start <= at < span.stop:
            return str(span.modality)
    return "structure"
