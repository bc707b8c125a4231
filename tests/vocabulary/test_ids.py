"""Codes to IDs and back, and streams of IDs, against a slow dictionary of every ID."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import CodeRangeError, ShapeError, VocabularyError
from multitok.protocol import Codes, Modality
from multitok.vocabulary import Block, Run, Vocabulary
from tests.vocabulary.toy import entry


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Up to three tokenizers of up to three codebooks, as ranges or scattered by lookup."""
    sizes = draw(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=3))
    entries = [entry(f"t{i}", tuple(each)) for i, each in enumerate(sizes)]
    if draw(st.booleans()):
        tokens = [f"<{i}>" for i in range(draw(st.integers(0, 3)))]
        return Vocabulary.build(
            entries,
            special_tokens=tokens,
            special_position=draw(st.sampled_from(["first", "last"])),
            reserved=draw(st.integers(0, 3)),
            pad_to_multiple=draw(st.integers(1, 8)),
        )
    total = sum(map(sum, sizes))
    size = total + draw(st.integers(1, 6))
    ids = draw(st.permutations(range(size)))
    specials = {"<a>": ids[-1]}
    blocks, at = [], 0
    for each in entries:
        for codebook, count in enumerate(each.spec.codebook_sizes):
            blocks.append(Block(each.name, codebook, count, lookup=tuple(ids[at : at + count])))
            at += count
    return Vocabulary({each.name: each for each in entries}, specials, tuple(blocks), size)


def meanings(v: Vocabulary) -> dict[int, tuple[Any, ...]]:
    """What each ID means, one by one."""
    found: dict[int, tuple[Any, ...]] = dict.fromkeys(range(v.vocab_size), ("reserved",))
    found |= {i: ("special", token) for token, i in v.specials.items()}
    for index, block in enumerate(v.blocks):
        for code in range(block.size):
            i = block.lookup[code] if block.lookup is not None else (block.start or 0) + code
            found[i] = ("codes", block.name, block.codebook, code, index)
    return found


@given(vocabularies())
@settings(max_examples=150, deadline=None)
def test_every_id_means_one_thing(v: Vocabulary) -> None:
    expected = meanings(v)
    owners, local = v.locate(np.arange(v.vocab_size))
    rank = 0
    for i, meaning in expected.items():
        if meaning[0] == "codes":
            assert (owners[i], local[i]) == (meaning[4], meaning[3])
            assert v.id_of(f"{meaning[1]}:{meaning[2]}:{meaning[3]}") == i
        else:
            assert (owners[i], local[i]) == (-1 if meaning[0] == "special" else -2, rank)
            rank += 1
    assert {i for a, b in v.reserved for i in range(a, b)} == {i for i, m in expected.items() if m[0] == "reserved"}


@given(vocabularies(), st.data())
@settings(max_examples=100, deadline=None)
def test_codes_come_back(v: Vocabulary, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(v.entries)))
    sizes = v.spec(name).codebook_sizes
    length = data.draw(st.integers(0, 6))
    rows = [data.draw(st.lists(st.integers(0, n - 1), min_size=length, max_size=length)) for n in sizes]
    codes = Codes(np.asarray(rows, np.int32).reshape(len(sizes), length), (length,))
    ids = v.to_ids(name, codes)
    assert ids.dtype == np.int32
    table = meanings(v)
    for k, row in enumerate(rows):
        assert [table[int(i)][:4] for i in ids[k]] == [("codes", name, k, code) for code in row]
    for dtype in (np.int32, np.int64, np.uint16):
        assert v.to_codes(name, ids.astype(dtype)) == codes


@given(vocabularies(), st.data())
@settings(max_examples=100, deadline=None)
def test_split_cuts_where_the_owner_changes(v: Vocabulary, data: st.DataObject) -> None:
    ids = np.asarray(data.draw(st.lists(st.integers(0, v.vocab_size - 1), max_size=30)), np.int64)
    table = meanings(v)
    for per_codebook in (False, True):
        expected: list[Run] = []
        for at, i in enumerate(ids.tolist()):
            kind, *rest = table[i]
            run = Run(kind, rest[0] if rest else "", rest[1] if kind == "codes" and per_codebook else None, at, 1)
            last = expected[-1] if expected else None
            if (
                kind != "special"
                and last
                and (last.kind, last.name, last.codebook) == (run.kind, run.name, run.codebook)
            ):
                expected[-1] = Run(last.kind, last.name, last.codebook, last.start, last.length + 1)
            else:
                expected.append(run)
        assert v.split(ids, per_codebook=per_codebook) == expected


@given(vocabularies())
@settings(max_examples=100, deadline=None)
def test_the_non_unified_view_is_a_bijection(v: Vocabulary) -> None:
    ids = np.arange(v.vocab_size)
    tables, rows = v.local(ids)
    np.testing.assert_array_equal(v.from_local(tables, rows), ids)
    for number, (_, _, size) in enumerate(v.tables):
        assert sorted(rows[tables == number].tolist()) == list(range(size))


@given(vocabularies())
@settings(max_examples=50, deadline=None)
def test_json_round_trip(v: Vocabulary) -> None:
    back = Vocabulary.from_json(v.to_json())
    assert back == v
    assert back.to_json() == v.to_json()


V = Vocabulary.build(
    [entry("text", (10,)), entry("image", (4, 6), Modality.IMAGE, stride=8)], special_tokens=["<a>"], pad_to_multiple=8
)


def test_shapes_and_extents() -> None:
    codes = Codes(np.zeros((2, 3, 4), np.int32), (20, 30))
    ids = V.to_ids("image", codes)
    assert ids.tolist() == [[[11] * 4] * 3, [[15] * 4] * 3]
    assert V.to_codes("image", ids).extent == (24, 32)
    assert V.to_codes("image", ids, (20, 30)) == codes
    with pytest.raises(ShapeError, match=r"codes of shape \[1, 3\] given to 'toy-image'"):
        V.to_ids("image", Codes(np.zeros((1, 3), np.int32), (3,)))
    with pytest.raises(
        ShapeError, match=r"IDs of shape \[2, 12\] and dtype int32 for 'image': give integers \[2, h, w\]"
    ):
        V.to_codes("image", ids.reshape(2, 12))
    with pytest.raises(ShapeError, match="dtype float64"):
        V.to_codes("image", ids.astype(np.float64))


@pytest.mark.parametrize("code", [-1, 6])
def test_codes_out_of_range(code: int) -> None:
    values = np.zeros((2, 1, 1), np.int32)
    values[1] = code
    with pytest.raises(CodeRangeError, match=f"code {code} in codebook 1 of 'toy-image': allowed are 0 to 5"):
        V.to_ids("image", Codes(values, (8, 8)))


@pytest.mark.parametrize(
    ("bad", "meaning"),
    [
        (0, "special token '<a>'"),
        (10, "code 9 of codebook 0 of 'text'"),
        (15, "code 0 of codebook 1 of 'image'"),
        (21, "reserved"),
        (24, "outside the vocabulary of 24 IDs"),
        (-1, "outside the vocabulary of 24 IDs"),
    ],
)
def test_ids_that_are_no_codes_of_the_tokenizer(bad: int, meaning: str) -> None:
    ids = np.asarray([[[11, bad]], [[16, 17]]])
    expected = f"ID {bad} where codebook 0 of 'image' is due: in this vocabulary it is {meaning}"
    with pytest.raises(CodeRangeError, match=expected):
        V.to_codes("image", ids)
    scattered = Vocabulary({"text": entry("text", (2,))}, {"<a>": 1}, (Block("text", 0, 2, lookup=(2, 0)),), 5)
    for wrong, text in ((1, "special token '<a>'"), (3, "reserved")):
        with pytest.raises(CodeRangeError, match=f"ID {wrong} where codebook 0 of 'text' is due.*{text}"):
            scattered.to_codes("text", np.asarray([[0, wrong]]))
    with pytest.raises(CodeRangeError, match="ID 5 at position 1: this vocabulary has the IDs 0 to 4"):
        scattered.to_codes("text", np.asarray([[0, 5]]))


def test_unknown_ids_in_a_stream() -> None:
    for bad in (24, -1):
        with pytest.raises(CodeRangeError, match=f"ID {bad} at position 2: this vocabulary has the IDs 0 to 23"):
            V.split(np.asarray([0, 1, bad]))
    assert V.split(np.zeros(0, np.int32)) == []
    with pytest.raises(CodeRangeError, match=r"rows up to 4 in table 2 \(codebook 0 of 'image'\): it has 4"):
        V.from_local(np.asarray([2]), np.asarray([4]))
    with pytest.raises(CodeRangeError, match="table 9: this vocabulary has the tables 0 to 3"):
        V.from_local(np.asarray([9]), np.asarray([0]))
    with pytest.raises(CodeRangeError, match="'text:0:10': the codebooks of 'text' have"):
        V.id_of("text:0:10")
    with pytest.raises(VocabularyError, match="no special token 'audio:0:1'"):
        V.id_of("audio:0:1")
