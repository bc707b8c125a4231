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
from array import array
from collections.abc import Iterator

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
    rows = _rows(source)
    top = [_number(cell) for cell in next(rows, (0, []))[1]]
    numbers = array("d")  # of all rows below the top one, flat: a list of lists would take ten times the memory
    num_rows = num_labels = 0
    first_label = (0, "")
    for line, cells in rows:
        if len(cells) != len(top):
            raise MediaError(
                f"{source.name}: line {line} has {len(cells)} cells, the first row {len(top)}; "
                "a series has the same channels in every row"
            )
        for column, cell in enumerate(cells):
            value = _number(cell)
            if value is None and column:
                raise _not_a_number(source, line, column, cell)
            if value is None:
                first_label = first_label if num_labels else (line, cell)
                num_labels += 1
            numbers.append(math.nan if value is None else value)
        num_rows += 1
    # Of one row alone, a word before numbers is a label, and words only are a header without rows.
    is_labelled = num_labels == num_rows if num_rows else len(top) > 1 and top[0] is None and None not in top[1:]
    if num_labels and not is_labelled:
        raise _not_a_number(source, first_label[0], 0, first_label[1])
    if is_labelled and num_rows and len(top) == 1:
        raise MediaError(f"{source.name}: the table has one column, and it holds no numbers ({first_label[1]!r})")
    table = np.array(numbers, dtype=np.float64).reshape(num_rows, len(top))
    if top and None not in top[is_labelled:]:
        table = np.concatenate([np.array([top], dtype=np.float64), table])
    if not len(table):
        raise InputError(f"{source.name}: the table has no rows of numbers")
    return as_series(source.name, table[:, is_labelled:])


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


def _rows(source: Source) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank."""
    text = source.read_text().removeprefix("\ufeff")
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    if extension_of(source.name) == "tsv":
        delimiter = "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            if len(cells) > 1 or "".join(cells).strip():
                yield reader.line_num, cells
    except csv.Error as error:
        raise MediaError(f"{source.name}: line {reader.line_num}: {error}") from error


def _not_a_number(source: Source, line: int, column: int, cell: str) -> MediaError:
    return MediaError(
        f"{source.name}: line {line}, column {column + 1}: {cell!r} is not a number; only the first row (names) and "
        "the first column (times) may hold words"
    )


def _number(cell: str) -> float | None:
    try:
        # Python's own extras ("1_000") are not numbers in a table.
        return None if "_" in cell else float(cell)
    except ValueError:
        return math.nan if cell.strip().lower() in _MISSING else None
