"""Tables and FASTA: what is a header, what is a label, what is missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitok.frontend.media import read, records

NAN = math.nan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n3,4", [[1, 2], [3, 4]]),
        ("value\n1\n2\n", [[1], [2]]),
        ("1\n2\n", [[1], [2]]),
        ("time,a\n2020-01-01,1\n2020-01-02,2\n", [[1], [2]]),
        ("2020-01-01,1\n2020-01-02,2\n", [[1], [2]]),
        ("2020-01-01,1,2\n", [[1, 2]]),
        ("t,a\n0.1,1\n0.2,2\n", [[0.1, 1], [0.2, 2]]),
        ("a,b\n1,\n,2\nNA,nan\nnull,None\n", [[1, NAN], [NAN, 2], [NAN, NAN], [NAN, NAN]]),
        ("\n\na,b\n\n1,2\n\n", [[1, 2]]),
        (",\n1,2\n", [[NAN, NAN], [1, 2]]),
        ("a;b\n1;2\n", [[1, 2]]),
        ("\ufeffa,b\r\n1,2\r\n", [[1, 2]]),
        ('"a","b"\n"1"," 2 "\n', [[1, 2]]),
        ("a,b\n1e3,-.5\n", [[1000, -0.5]]),
    ],
)
def test_tables(text: str, expected: list[list[float]]) -> None:
    series = read(text.encode(), "a.csv")
    assert series.dtype == np.float32
    np.testing.assert_array_equal(series, np.array(expected, np.float32))


def test_tabs() -> None:
    assert read(b"a\tb\n1\t2\n", "a.tsv").tolist() == [[1.0, 2.0]]


@given(st.lists(st.lists(st.floats(width=32, allow_infinity=False), min_size=2, max_size=2), min_size=1, max_size=9))
def test_every_float32_survives_as_text(rows: list[list[float]]) -> None:
    text = "\n".join(",".join(repr(value) for value in row) for row in rows)
    np.testing.assert_array_equal(read(text.encode(), "a.csv"), np.array(rows, np.float32))


def test_fasta() -> None:
    text = ">a description here\r\nAC GT\r\nNNnn\r\n\r\n>b\nMK*\n>\nT\n"
    assert list(records(text.encode(), "a.fasta")) == [("a", "ACGTNNnn"), ("b", "MK*"), ("", "T")]


def test_bare_letters() -> None:
    assert list(records(b"ACGT\nTT\n", "a.fa")) == [("", "ACGTTT")]


def test_letters_before_the_first_title_are_a_record() -> None:
    assert list(records(b"ACGT\n>b\nT\n", "a.fa")) == [("", "ACGT"), ("b", "T")]


@given(st.lists(st.tuples(st.text("abz019", min_size=1), st.text("ACGTNacgtn*-", min_size=1)), min_size=1))
def test_fasta_round_trip(items: list[tuple[str, str]]) -> None:
    text = "".join(
        f">{name} x\n" + "".join(letters[i : i + 7] + "\n" for i in range(0, len(letters), 7))
        for name, letters in items
    )
    assert list(records(text.encode(), "a.fa")) == items
