"""How IDs are laid out, extended and refused."""

from __future__ import annotations

import numpy as np
import pytest

from multitok.errors import CheckpointError, VocabularyError
from multitok.protocol import Modality
from multitok.vocabulary import DEFAULT_SPECIAL_TOKENS, Block, TokenizerEntry, Vocabulary
from tests.vocabulary.toy import Letters, entry

TEXT = entry("text", (10,))
IMAGE = entry("image", (4, 6), Modality.IMAGE)


def starts(vocabulary: Vocabulary) -> list[tuple[str, int, int | None, int]]:
    return [(block.name, block.codebook, block.start, block.size) for block in vocabulary.blocks]


def test_specials_first() -> None:
    v = Vocabulary.build([TEXT, IMAGE], special_tokens=["<a>", "<b>"], reserved=3, pad_to_multiple=16)
    assert v.specials == {"<a>": 0, "<b>": 1}
    assert starts(v) == [("text", 0, 5, 10), ("image", 0, 15, 4), ("image", 1, 19, 6)]
    assert v.vocab_size == 32
    assert v.reserved == ((2, 5), (25, 32))


def test_specials_last() -> None:
    v = Vocabulary.build([TEXT, IMAGE], special_tokens=["<a>", "<b>"], special_position="last", reserved=3)
    assert starts(v) == [("text", 0, 0, 10), ("image", 0, 10, 4), ("image", 1, 14, 6)]
    assert v.specials == {"<a>": 20, "<b>": 21}
    assert (v.vocab_size, v.reserved) == (25, ((22, 25),))


def test_default_special_tokens_serve_every_modality() -> None:
    v = Vocabulary.build([TEXT])
    assert list(v.specials) == list(DEFAULT_SPECIAL_TOKENS)
    for modality in Modality:
        assert v.id_of(f"<|/{modality}|>") == v.id_of(f"<|{modality}|>") + 1
    assert [v.id_of(token) for token in ("<|pad|>", "<|bos|>", "<|eos|>", "<|empty|>")] == [0, 1, 2, 3]


def test_the_default_layout_is_pinned() -> None:
    """The order of the default special tokens is part of every vocabulary built with them."""
    assert (
        Vocabulary.build([TEXT, IMAGE], reserved=2, pad_to_multiple=16).fingerprint
        == "853e66236cc554c6f26fe8829db0c3610edcd2be23f727e5b084335438bbebf1"
    )


def test_the_size_decides_how_ids_are_stored() -> None:
    def dtype(size: int) -> np.dtype[np.generic]:
        return Vocabulary.build([entry("text", (size,))], special_tokens=[]).dtype

    assert dtype(65_499) == np.uint16
    assert dtype(65_500) == np.int32


def test_padding_and_input_only_ids_are_never_predicted() -> None:
    scattered = Block("codes", 0, 3, lookup=(9, 2, 5), input_only=True)
    v = Vocabulary({"codes": entry("codes", (3,))}, {"<a>": 0}, (scattered,), 11)
    assert np.flatnonzero(v.predictable).tolist() == [0]
    built = Vocabulary.build([TEXT, IMAGE], special_tokens=["<a>"], pad_to_multiple=8, input_only=["image"])
    assert np.flatnonzero(built.predictable).tolist() == list(range(11))


def test_what_is_in_it() -> None:
    v = Vocabulary.build([TEXT, IMAGE, entry("bytes", (256,))], special_tokens=["<a>"])
    assert v.names_by_modality("text") == ("text", "bytes")
    assert v.names_by_modality(Modality.AUDIO) == ()
    assert v.spec("image") == IMAGE.spec
    assert [b.codebook for b in v.blocks_of("image")] == [0, 1]
    assert v.id_of("image:1:5") == 1 + 10 + 4 + 5
    assert v.describe(0) == "special token '<a>'"
    assert v.describe(20) == "code 5 of codebook 1 of 'image'"
    with pytest.raises(VocabularyError, match="no tokenizer 'audio' in this vocabulary; it has text, image, bytes"):
        v.spec("audio")
    with pytest.raises(VocabularyError, match="no special token '<b>'"):
        v.id_of("<b>")


def test_extending_moves_no_id() -> None:
    old = Vocabulary.build([TEXT, IMAGE], special_tokens=["<a>", "<b>"], reserved=3, pad_to_multiple=16)
    new = old.extend([entry("audio", (7,), Modality.AUDIO)], special_tokens=["<c>"], reserved=2, pad_to_multiple=64)
    ids = np.arange(old.vocab_size)
    for before, after in zip(old.locate(ids), new.locate(ids), strict=True):
        np.testing.assert_array_equal(before, after)
    assert new.specials == {"<a>": 0, "<b>": 1, "<c>": 32}
    assert starts(new)[-1] == ("audio", 0, 35, 7)
    assert (new.vocab_size, new.reserved) == (64, ((2, 5), (25, 32), (33, 35), (42, 64)))
    assert old.fingerprint != new.fingerprint
    with pytest.raises(VocabularyError, match="two tokenizers named 'text'"):
        old.extend([TEXT])
    with pytest.raises(VocabularyError, match="'<a>' is given twice"):
        old.extend(special_tokens=["<a>"])


def test_reserved_ids_become_special_tokens_in_place() -> None:
    old = Vocabulary.build([TEXT], special_tokens=["<a>"], reserved=1, pad_to_multiple=4)
    assert old.reserved == ((1, 2),)
    new = old.name_reserved(["<tool>"])
    assert (new.id_of("<tool>"), new.vocab_size, new.reserved) == (1, old.vocab_size, ())
    with pytest.raises(VocabularyError, match="2 tokens for 1 reserved IDs: use extend"):
        old.name_reserved(["<x>", "<y>"])
    with pytest.raises(VocabularyError, match="'<a>' is in use already, with ID 0"):
        old.name_reserved(["<a>"])


def test_tokenizers_and_names_may_be_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("multitok.registry").registry.KINDS, "letters", Letters.registered())
    v = Vocabulary.build(["letters", Letters(shift=3, name="other"), TEXT], special_tokens=[])
    assert list(v.entries) == ["letters", "other", "text"]
    assert v.entries["letters"].source == "letters"
    assert v.entries["other"].source is None
    assert v.entries["letters"].fingerprint != v.entries["other"].fingerprint
    assert TokenizerEntry.of("letters", name="again").name == "again"
    with pytest.raises(CheckpointError, match="no checkpoint 'nothing'"):
        Vocabulary.build(["nothing"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenizers": [TEXT, TEXT]}, "two tokenizers named 'text': give one another name"),
        ({"special_tokens": ["<a>", "<a>"]}, "special token '<a>' is given twice"),
        ({"special_tokens": ["", "<a>"]}, "special token '' with ID 0: give a name"),
        ({"special_tokens": "<a>"}, "are lists; put the one name into a list"),
        ({"special_position": "middle"}, "special_position='middle': give 'first' or 'last'"),
        ({"reserved": -1}, "reserved=-1, pad_to_multiple=1: give at least 0 slots"),
        ({"pad_to_multiple": 0}, "reserved=0, pad_to_multiple=0: give at least 0 slots and a multiple of 1"),
        ({"input_only": ["image"]}, "input_only names image: not among the tokenizers"),
        ({"tokenizers": [], "special_tokens": []}, "vocab_size=0: give 1 to 2147483647"),
        ({"tokenizers": [entry("big", (2**31 - 1, 2))]}, "give 1 to 2147483647, IDs are int32"),
    ],
)
def test_layouts_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.build(**{"tokenizers": [TEXT], **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("specials", "blocks", "message"),
    [
        ({}, [Block("text", 0, 10, start=0), Block("text", 0, 10, start=10)], "two blocks for codebook 0 of 'text'"),
        ({}, [Block("text", 0, 9, start=0)], "codebook 0 of 'text' has 10 codes but a block of 9: give it 10 IDs"),
        ({}, [], "codebook 0 of 'text' has 10 codes but no block"),
        (
            {},
            [Block("text", 0, 10, start=0), Block("other", 0, 2, start=10)],
            "blocks of codebooks that no tokenizer has: other",
        ),
        ({}, [Block("text", 0, 10, start=15)], "codebook 0 of 'text' reaches ID 24, but vocab_size is 20"),
        (
            {"<a>": 4},
            [Block("text", 0, 10, start=0)],
            "ID 4 belongs to codebook 0 of 'text' and to special token '<a>'",
        ),
        (
            {"<a>": 12},
            [Block("text", 0, 10, lookup=(0, 2, 4, 6, 8, 10, 12, 14, 16, 18))],
            "ID 12 belongs to special token '<a>' and to codebook 0 of 'text'",
        ),
        (
            {"<a>": 15, "<b>": 15},
            [Block("text", 0, 10, start=0)],
            "ID 15 belongs to special token '<a>' and to special",
        ),
    ],
)
def test_finished_layouts_are_checked(specials: dict[str, int], blocks: list[Block], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary({"text": TEXT}, specials, tuple(blocks), 20)


def test_an_id_inside_a_gap_of_a_lookup_is_free_for_others() -> None:
    even = Block("text", 0, 10, lookup=tuple(range(0, 20, 2)))
    odd = Block("odd", 0, 10, lookup=tuple(range(19, 0, -2)))
    v = Vocabulary({"text": TEXT, "odd": entry("odd", (10,))}, {}, (even, odd), 20)
    owners, codes = v.locate(np.arange(20))
    assert owners.tolist() == [0, 1] * 10
    assert codes.tolist() == [code for pair in zip(range(10), range(9, -1, -1), strict=True) for code in pair]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either the first ID"),
        ({"start": 0, "lookup": (1, 2)}, "give either the first ID"),
        ({"start": -1}, "starts at -1"),
        ({"lookup": (1,)}, "lookup has 1 IDs; give 2"),
        ({"lookup": (1, 1)}, "gives one ID to two codes"),
        ({"lookup": (1, -2)}, "give 2, each >= 0"),
        ({"start": 0, "size": 0}, "has 0 codes"),
    ],
)
def test_blocks_that_cannot_be(fields: dict[str, object], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Block(**{"name": "text", "codebook": 0, "size": 2, **fields})  # type: ignore[arg-type]
