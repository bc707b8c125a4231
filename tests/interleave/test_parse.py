"""Documents read from bare IDs, as a model puts them out, and streams that break the template."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import CodeRangeError, MultitokError, PatternError
from multitok.interleave import Document, Interleaver, Segment, SegmentTemplate, Template
from multitok.protocol import Codes
from tests.interleave.documents import SEPARATED, SIZED, TEMPLATES, VOCABULARY, documents, segment

ID = VOCABULARY.id_of
BEGIN, END, PAD = ID("<|bos|>"), ID("<|eos|>"), ID("<|pad|>")


def merged(document: Document) -> tuple[Segment, ...]:
    """What can be read of a document: unmarked neighbours of one tokenizer joined, empty ones gone."""
    segments: list[Segment] = []
    for each in document.segments:
        unmarked = each.name in ("text", "bytes")
        if unmarked and each.codes.num_tokens == 0:
            continue
        if unmarked and segments and segments[-1].name == each.name:
            values = np.concatenate([segments[-1].codes.values, each.codes.values], axis=1)
            segments[-1] = Segment(each.name, Codes(values, (values.shape[1],)))
        else:
            segments.append(each)
    return tuple(segments)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@given(document=documents(least=1, full=True), padding=st.integers(0, 3), bare=st.booleans())
@settings(max_examples=150, deadline=None)
def test_bare_ids_are_enough(template: str, document: Document, padding: int, bare: bool) -> None:
    interleaver = Interleaver(VOCABULARY, TEMPLATES[template])
    ids = np.concatenate([interleaver.encode(document).ids[int(bare) :], np.full(padding, PAD)])
    assert interleaver.parse(ids).segments == merged(document)
    assert interleaver.parse(ids.astype(VOCABULARY.dtype), allow_truncated=True).segments == merged(document)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@given(document=documents(least=1, full=True), data=st.data())
@settings(max_examples=150, deadline=None)
def test_truncated_output(template: str, document: Document, data: st.DataObject) -> None:
    interleaver = Interleaver(VOCABULARY, TEMPLATES[template])
    ids = interleaver.encode(document).ids
    cut = data.draw(st.integers(0, len(ids) - 1))
    with pytest.raises(PatternError):
        interleaver.parse(ids[:cut])
    whole = merged(document)
    found = interleaver.parse(ids[:cut], allow_truncated=True).segments
    if found:
        assert found[:-1] == whole[: len(found) - 1]
        last = whole[len(found) - 1]
        values = found[-1].codes.values
        assert found[-1].name == last.name
        np.testing.assert_array_equal(values, last.codes.values[tuple(slice(n) for n in values.shape)])
        # Only what has no end token and no written size can be cut and still be whole.
        assert found[-1] == last or last.name in ("text", "bytes", "series")


@given(document=documents(least=1, full=True), data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_output_never_passes_silently_nor_crashes(document: Document, data: st.DataObject) -> None:
    interleaver = Interleaver(VOCABULARY, SEPARATED)
    ids = interleaver.encode(document).ids.copy()
    place = data.draw(st.integers(0, len(ids) - 1))
    ids[place] = data.draw(st.integers(0, VOCABULARY.vocab_size - 1))
    try:
        back = interleaver.parse(ids)
    except MultitokError:
        return
    # What is accepted is a document of the template: its own encoding differs at most in the begin token.
    again = interleaver.encode(back).ids
    assert again[1:].tolist() == ids[int(ids[0] == BEGIN) :].tolist()


def test_empty_documents_and_segments() -> None:
    interleaver = Interleaver(VOCABULARY)
    for ids in ([BEGIN, END], [END], [END, PAD, PAD]):
        assert interleaver.parse(np.asarray(ids)) == Document(())
    empty = Document((segment("audio", (0,)), segment("image", (0, 3)), segment("image", (0, 0))))
    assert interleaver.parse(interleaver.encode(empty).ids) == empty


def test_extents_that_the_template_writes_come_back() -> None:
    interleaver = Interleaver(VOCABULARY, SEPARATED)
    cropped = Document((segment("volume", (2, 1, 3), extent=(7, 2, 9)),))
    assert interleaver.parse(interleaver.encode(cropped).ids) == cropped


def test_several_tokenizers_behind_one_begin_token() -> None:
    interleaver = Interleaver(VOCABULARY)
    document = Document((segment("protein", (3,)), segment("dna", (2,))))
    assert interleaver.parse(interleaver.encode(document).ids) == document
    with pytest.raises(PatternError, match="empty segment at token 1: it may be of 'dna', 'protein'"):
        interleaver.parse(interleaver.encode(Document((segment("dna", (0,)),))).ids)


IMAGE = [ID("<|image|>"), ID("<|1|>"), ID("<|x|>"), ID("<|2|>")]
CODES = [ID(f"image:{k}:{k}") for k in (0, 1, 0, 1)]
TEXT = ID("text:0:0")
CLOSE = ID("<|/image|>")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "the document is cut short after 0 tokens: special token '<|eos|>' is due; allow_truncated=True"),
        ([TEXT], "the document is cut short after 1 tokens"),
        ([TEXT, PAD], "the document is cut short after 1 tokens"),
        ([END, TEXT], "token 1 is code 0 of codebook 0 of 'text' after the end of the document: only padding"),
        ([TEXT, PAD, TEXT, END], "token 2 is code 0 of codebook 0 of 'text' after the end"),
        ([BEGIN, BEGIN, END], "token 1 is special token '<|bos|>': by the template no segment starts with it"),
        ([CODES[0], END], "token 0 is code 0 of codebook 0 of 'image': by the template no segment starts with it"),
        ([TEXT, VOCABULARY.vocab_size - 1, END], "token 1 is reserved: by the template no segment starts with it"),
        (
            [*IMAGE, *CODES],
            "the segment begun at token 0 is cut short after 8 tokens: special token '<|/image|>' is due",
        ),
        (IMAGE[:2], "the segment begun at token 0 is cut short after 2 tokens: its size is due"),
        ([*IMAGE, *CODES[:3], CLOSE, END], "segment of 'image' at token 0: a stream of 3 tokens for raster with 2"),
        ([IMAGE[0], *CODES, CLOSE, END], "token 1 is code 0 of codebook 0 of 'image' where a size is due"),
        (
            [*IMAGE[:3], *CODES, CLOSE, END],
            "segment at token 0: token 3 is code 0 of codebook 0 of 'image' where a size",
        ),
        ([*IMAGE[:2], *CODES, CLOSE, END], "a size of 1 numbers, 'image' has the axes ('h', 'w')"),
        ([IMAGE[0], *IMAGE[1:2] * 10, CLOSE, END], "one number of 1 to 9 digits per axis"),
        (
            [*IMAGE, TEXT, TEXT, TEXT, TEXT, CLOSE, END],
            "token 4 is code 0 of codebook 0 of 'text' where codes of 'image'",
        ),
        (
            [*IMAGE, *CODES[:2], TEXT, CODES[1], CLOSE, END],
            f"segment of 'image' at token 0: ID {TEXT} where codebook 0",
        ),
    ],
)
def test_streams_that_break_the_template(ids: list[int], message: str) -> None:
    with pytest.raises((PatternError, CodeRangeError), match=re.escape(message)):
        Interleaver(VOCABULARY, SIZED).parse(np.asarray(ids, np.int64))


def test_unknown_ids_and_misplaced_separators() -> None:
    with pytest.raises(CodeRangeError, match=f"ID {VOCABULARY.vocab_size} at position 1: this vocabulary has"):
        Interleaver(VOCABULARY).parse(np.asarray([TEXT, VOCABULARY.vocab_size]))
    interleaver = Interleaver(VOCABULARY, SEPARATED)
    ids = interleaver.encode(Document((segment("video", (1, 2, 2)),))).ids.copy()
    row = int(np.flatnonzero(ids == ID("<|row|>"))[0])
    ids[[row, row - 1]] = ids[[row - 1, row]]
    with pytest.raises(
        PatternError, match=r"segment of 'video' at token 1: .* where the row token 18 is due, at token 2"
    ):
        interleaver.parse(ids)


def test_a_size_must_be_closed_by_its_token() -> None:
    interleaver = Interleaver(VOCABULARY, SEPARATED)
    ids = interleaver.encode(Document((segment("volume", (1, 1, 1)),))).ids
    place = int(np.flatnonzero(ids == ID("<|/text|>"))[0])
    with pytest.raises(
        PatternError, match=r"segment at token 1: token 7 is code . of codebook 0 .* '<\|/text\|>' is due"
    ):
        interleaver.parse(np.delete(ids, place))


def test_grids_that_nothing_tells() -> None:
    silent = Template(segments={**SIZED.segments, "image": SegmentTemplate(begin="<|image|>", end="<|/image|>")})
    interleaver = Interleaver(VOCABULARY, silent)
    sequence = interleaver.encode(Document((segment("image", (2, 3)),)))
    with pytest.raises(PatternError, match="raster does not tell the size of a grid of 2 axes: use spans"):
        interleaver.parse(sequence.ids)
    assert interleaver.decode(sequence).segments[0].codes.grid == (2, 3)
    fixed = Template(segments={**SIZED.segments, "image": SegmentTemplate(grid=(2, 3))})
    unmarked = Interleaver(VOCABULARY, fixed)
    document = Document((segment("image", (2, 3)), segment("image", (2, 3), seed=1)))
    assert unmarked.parse(unmarked.encode(document).ids) == document
    with pytest.raises(PatternError, match=r"cut short after 5 tokens: 8 tokens of the grid \(2, 3\) is due"):
        unmarked.parse(unmarked.encode(document).ids[:5])
