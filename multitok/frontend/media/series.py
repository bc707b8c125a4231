"""Tables of numbers: `.csv` and `.tsv` -> float32 [N, C].

A first column without any number (dates, labels) is dropped; a column of numbers that happens to be a time stays. A
first row with a word in another column is the header. Empty cells and NA, NaN, null, None are missing: NaN.
Columns are split at commas; at semicolons where the first row has more of them; at tabs in a `.tsv`.

Shape letters: N rows, C channels (columns).
"""

from __future__ import annotations

import csv
import io
import math

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.kinds import extension_of
from multitok.frontend.media.source import Source

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})


def decode_table(source: Source) -> NDArray[np.float32]:
    """The numbers of a table.

    Args:
        source: Where the bytes are.

    Returns:
        [N, C] float32, NaN where a cell is missing.

    Raises:
        InputError: No numbers, or one that is infinite or too large for float32.
        MediaError: Not UTF-8, rows of different lengths, or a cell that is no number.
    """
    text = source.read_text().removeprefix("\ufeff")
    rows = _rows(source, text)
    values = [[_number(cell) for cell in row] for _, row in rows]
    drops_first = _holds_words(values)
    if rows and None in values[0][drops_first:]:
        rows, values = rows[1:], values[1:]
    if not rows:
        raise InputError(f"{source.name}: the table has no rows of numbers")
    if drops_first and len(values[0]) == 1:
        raise MediaError(f"{source.name}: the table has one column, and it holds no numbers ({rows[0][1][0]!r})")
    table = np.empty((len(rows), len(values[0]) - drops_first))
    for n, ((line, cells), row) in enumerate(zip(rows, values, strict=True)):
        for column, value in enumerate(row[drops_first:], start=drops_first):
            if value is None:
                raise MediaError(
                    f"{source.name}: line {line}, column {column + 1}: {cells[column]!r} is not a number; only the "
                    "first row (names) and the first column (times) may hold words"
                )
            table[n, column - drops_first] = value
    return as_series(source.name, table)


def as_series(name: str, values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Any real array with one or two axes as a float32 series.

    Args:
        name: The file's name.
        values: [N, C], or [N] for one channel.

    Returns:
        [N, C] float32, contiguous; NaN stays.

    Raises:
        InputError: A value is infinite or too large for float32; or there is none.
    """
    values = values[:, None] if values.ndim == 1 else values
    if values.size == 0:
        raise InputError(f"{name}: a series of shape {list(values.shape)} has no values")
    with np.errstate(over="ignore", invalid="ignore"):
        series = np.array(values, dtype=np.float32, order="C")
    infinite = np.isinf(series)
    if infinite.any():
        row, channel = np.argwhere(infinite)[0]
        raise InputError(f"{name}: row {row}, channel {channel} is {values[row, channel]}, not a finite float32")
    return series


def _rows(source: Source, text: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank, all of one length."""
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if extension_of(source.name) == "tsv" else delimiter
    )
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if len(cells) > 1 or "".join(cells).strip():
                rows.append((reader.line_num, cells))  # noqa: PERF401  # line_num is that of this very step
    except csv.Error as error:
        raise MediaError(f"{source.name}: line {reader.line_num}: {error}") from error
    for line, cells in rows:
        if len(cells) != len(rows[0][1]):
            raise MediaError(
                f"{source.name}: line {line} has {len(cells)} cells, the first row {len(rows[0][1])}; "
                "a series has the same channels in every row"
            )
    return rows


def _holds_words(values: list[list[float | None]]) -> bool:
    """True where the first column is to be dropped: no row below the first has a number in it."""
    if len(values) > 1:
        return all(row[0] is None for row in values[1:])
    # Of one row alone, a word before numbers is a label, and words only are a header without rows.
    return bool(values) and len(values[0]) > 1 and values[0][0] is None and None not in values[0][1:]


def _number(cell: str) -> float | None:
    word = cell.strip()
    if word.lower() in _MISSING:
        return math.nan
    try:
        # Python's own extras ("1_000") are not numbers in a table.
        return None if "_" in word else float(word)
    except ValueError:
        return None
