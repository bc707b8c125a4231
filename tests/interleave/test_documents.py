"""Documents to token sequences and back by spans; counts without encoding."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import CodeRangeError, PatternError, ShapeError, SpecError, VocabularyError
from multitok.interleave import (
    Document,
    Interleaver,
    Segment,
    SegmentShape,
    SegmentTemplate,
    Span,
    Template,
    TokenSequence,
)
from multitok.protocol import Codes, Modality
from tests.interleave.documents import SEPARATED, SIZED, TEMPLATES, VOCABULARY, documents, random_codes, segment

ID = VOCABULARY.id_of


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@given(document=documents())
@settings(max_examples=100, deadline=None)
def test_documents_come_back_exactly(template: str, document: Document) -> None:
    interleaver = Interleaver(VOCABULARY, TEMPLATES[template])
    sequence = interleaver.encode(document)
    assert sequence.ids.dtype == np.int32
    assert interleaver.decode(sequence) == document
    assert interleaver.count(document) == len(sequence)
    assert interleaver.count(segment.shape for segment in document.segments) == len(sequence)
    # Another interleaver of the same vocabulary needs no more than the spans, unless they hold separators.
    stored = TokenSequence(sequence.ids.astype(VOCABULARY.dtype), sequence.spans, sequence.id)
    assert interleaver.decode(stored) == document


@given(document=documents())
@settings(max_examples=50, deadline=None)
def test_structure_tokens_lie_outside_the_spans(document: Document) -> None:
    sequence = Interleaver(VOCABULARY, SIZED).encode(document)
    covered = np.zeros(len(sequence), bool)
    for span, each in zip(sequence.spans, document.segments, strict=True):
        assert (span.name, span.grid, span.extent) == (each.name, each.codes.grid, each.codes.extent)
        assert span.modality is VOCABULARY.spec(each.name).modality
        assert not covered[span.start : span.stop].any()
        covered[span.start : span.stop] = True
    owners, _ = VOCABULARY.locate(sequence.ids)
    np.testing.assert_array_equal(covered, owners >= 0)


def test_every_token_of_a_small_document() -> None:
    document = Document(
        (
            Segment("text", Codes(np.asarray([[7, 8]], np.int32), (2,))),
            Segment("image", Codes(np.asarray([[[0, 1, 2]], [[3, 4, 5]]], np.int32), (8, 20))),
            Segment("text", Codes(np.zeros((1, 0), np.int32), (0,))),
            Segment("audio", Codes(np.asarray([[1, 2], [3, 4], [5, 6]], np.int32), (640,))),
        ),
        id="a",
    )
    t, i0, i1 = ID("text:0:0"), ID("image:0:0"), ID("image:1:0")
    a = [ID(f"audio:{k}:0") for k in range(3)]
    begin, end, image, _image = (ID(f"<|{name}|>") for name in ("bos", "eos", "image", "/image"))
    audio, _audio, by, one, three = (ID(f"<|{name}|>") for name in ("audio", "/audio", "x", "1", "3"))
    sequence = Interleaver(VOCABULARY).encode(document)
    assert sequence.ids.tolist() == [
        *(begin, t + 7, t + 8),
        *(image, one, by, three, i0, i1 + 3, i0 + 1, i1 + 4, i0 + 2, i1 + 5, _image),
        *(audio, a[0] + 1, a[1] + 3, a[2] + 5, a[0] + 2, a[1] + 4, a[2] + 6, _audio, end),
    ]
    assert sequence.spans[1] == Span("image", Modality.IMAGE, 7, 6, (1, 3), (8, 20), 2, "raster")
    assert sequence.spans[2] == Span("text", Modality.TEXT, 14, 0, (0,), (0,), 1, "raster")
    assert sequence.id == "a"

    separated = Interleaver(VOCABULARY, SEPARATED).encode(document)
    row, empty = ID("<|row|>"), ID("<|empty|>")
    assert separated.ids.tolist() == [
        *(begin, t + 7, t + 8),
        # column+coarse-first+row: three columns of one position, codebook 0, then codebook 1
        *(image, i0, row, i0 + 1, row, i0 + 2, row, i1 + 3, row, i1 + 4, row, i1 + 5, row, _image),
        # delay:0,1,3: five steps
        *(audio, a[0] + 1, empty, empty, a[0] + 2, a[1] + 3, empty, empty, a[1] + 4, empty),
        *(empty, empty, a[2] + 5, empty, empty, a[2] + 6, _audio, end),
    ]
    assert separated.spans[3].pattern == "delay:0,1,3"
    span = separated.spans[3]
    assert span.plan.streams(separated.ids[span.start : span.stop]).tolist() == [
        [a[0] + 1, a[0] + 2, empty, empty, empty],
        [empty, a[1] + 3, a[1] + 4, empty, empty],
        [empty, empty, empty, a[2] + 5, a[2] + 6],
    ]
    assert separated.spans[1].pattern == "column+coarse-first:1,1+row"


def test_counts_from_raw_sizes() -> None:
    interleaver = Interleaver(VOCABULARY, SEPARATED)
    image, audio = VOCABULARY.spec("image"), VOCABULARY.spec("audio")
    shapes = [SegmentShape.of_extent(image, (17, 33)), SegmentShape.of_extent(audio, (321,))]
    assert [shape.grid for shape in shapes] == [(3, 5), (2,)]
    codes = [random_codes(VOCABULARY.spec(s.name), s.grid, s.extent, 0) for s in shapes]
    document = Document(tuple(Segment(s.name, c) for s, c in zip(shapes, codes, strict=True)))
    assert interleaver.count(shapes) == len(interleaver.encode(document)) == 2 + (2 + 30 + 2 * 5) + (2 + 15)
    assert interleaver.count([]) == 2
    with pytest.raises(ShapeError, match=r"extent \(17,\): 'image' counts along the axes \('h', 'w'\)"):
        SegmentShape.of_extent(image, (17,))
    with pytest.raises(SpecError, match="how many tokens 'image' makes depends on the content"):
        SegmentShape.of_extent(replace(image, stride=(0, 0)), (17, 33))
    with pytest.raises(VocabularyError, match="no tokenizer 'taste' in this vocabulary"):
        interleaver.count([SegmentShape("taste", (1,), (1,))])


def test_documents_the_vocabulary_cannot_hold() -> None:
    interleaver = Interleaver(VOCABULARY)
    with pytest.raises(VocabularyError, match="no tokenizer 'taste' in this vocabulary"):
        interleaver.encode(Document((Segment("taste", Codes(np.zeros((1, 1), np.int32), (1,))),)))
    with pytest.raises(CodeRangeError, match="code 300 in codebook 0 of 'toy-text': allowed are 0 to 299"):
        interleaver.encode(Document((Segment("text", Codes(np.full((1, 1), 300, np.int32), (1,))),)))
    with pytest.raises(ShapeError, match=r"codes of shape \[1, 2, 2\] given to 'toy-text'"):
        interleaver.encode(Document((Segment("text", Codes(np.zeros((1, 2, 2), np.int32), (2, 2))),)))


def test_a_fixed_grid_and_a_grid_that_extents_do_not_give() -> None:
    fixed = Template(segments={**SIZED.segments, "image": SegmentTemplate(grid=(2, 2))})
    interleaver = Interleaver(VOCABULARY, fixed)
    assert len(interleaver.encode(Document((segment("image", (2, 2)),)))) == 2 + 8
    with pytest.raises(PatternError, match=r"'image' with the grid \(2, 3\): the template fixes \(2, 2\)"):
        interleaver.encode(Document((segment("image", (2, 3)),)))
    odd = segment("volume", (2, 2, 2), extent=(9, 8, 8))
    with pytest.raises(PatternError, match=r"extent \(9, 8, 8\) has the grid \(2, 2, 2\): its grid does not follow"):
        Interleaver(VOCABULARY, SEPARATED).encode(Document((odd,)))


def test_spans_that_do_not_fit() -> None:
    interleaver = Interleaver(VOCABULARY)
    sequence = interleaver.encode(Document((segment("image", (2, 3)), segment("text", (4,)))))
    span = sequence.spans[0]

    def decode(**changes: object) -> None:
        changed = TokenSequence(sequence.ids, (replace(span, **changes),))  # type: ignore[arg-type]
        interleaver.decode(changed)

    decode()
    wrong = [
        ({"start": 99}, PatternError, f"span of 'image' from 99 to 111 in {len(sequence)} tokens"),
        ({"length": -1}, PatternError, "span of 'image' from"),
        ({"grid": (2, 2)}, PatternError, "a stream of 12 tokens for raster with 2 codebooks over the grid (2, 2)"),
        ({"grid": (3,)}, PatternError, "in the vocabulary it is image, 2 codebooks over ('h', 'w')"),
        ({"modality": Modality.TEXT}, PatternError, "span of 'image': text, 2 codebooks"),
        ({"pattern": "zigzag"}, PatternError, "'zigzag' is none of raster"),
        ({"name": "taste"}, VocabularyError, "no tokenizer 'taste'"),
        (
            {"start": span.start - 1},
            CodeRangeError,
            "where codebook 0 of 'image' is due: in this vocabulary it is special",
        ),
    ]
    for changes, error, message in wrong:
        with pytest.raises(error, match=re.escape(message)):
            decode(**changes)


def test_sequences_are_flat_integers_and_read_only() -> None:
    sequence = Interleaver(VOCABULARY).encode(Document((segment("text", (4,)),)))
    with pytest.raises(ValueError, match="read-only"):
        sequence.ids[0] = 1
    for bad in (np.zeros((2, 2), np.int32), np.zeros(2)):
        with pytest.raises(ShapeError, match="give a flat array of integers"):
            TokenSequence(bad, ())
    assert sequence == TokenSequence(sequence.ids.copy(), sequence.spans)
    assert sequence != TokenSequence(sequence.ids, (), sequence.id)
    assert sequence != "ids"
    assert Document(()) != Document((), "x")
    assert segment("text", (4,)) != segment("text", (4,), seed=1)


def test_threads_share_an_interleaver() -> None:
    interleaver = Interleaver(VOCABULARY, SEPARATED)
    made = [Document((segment("image", (n, 3)), segment("audio", (n,), seed=n)), str(n)) for n in range(20)]
    expected = [interleaver.encode(document) for document in made]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(interleaver.encode, made * 5)) == expected * 5


@given(st.integers(0, 2000))
@settings(max_examples=30, deadline=None)
def test_sizes_are_written_in_decimal(height: int) -> None:
    document = Document((segment("image", (height, 0)),))
    ids = Interleaver(VOCABULARY).encode(document).ids
    digits = [ID(f"<|{digit}|>") for digit in f"{height}"]
    assert ids.tolist() == [1, ID("<|image|>"), *digits, ID("<|x|>"), ID("<|0|>"), ID("<|/image|>"), 2]
