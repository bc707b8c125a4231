"""k-mers: exact round trip, the written ID layout, agreement with a reference that goes letter by letter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitok.errors import InputError, SpecError
from multitok.protocol import Codes
from multitok.tokenizers.sequence_kmer import ALPHABETS, SequenceKmer


def slow_encode(text: str, letters: str, unknown: str, others: str, k: int) -> list[int]:
    """The canonical form, one character after another."""
    singles = letters + unknown + others
    num_kmers = len(letters) ** k
    to_lower = num_kmers + 1 + len(singles)
    codes, lower, i = [], False, 0
    while i < len(text):
        if text[i].isalpha() and text[i].islower() != lower:
            lower = not lower
            codes.append(to_lower if lower else to_lower + 1)
        window = text[i : i + k]
        one_case = all(c.isalpha() and c.islower() == lower for c in window)
        if len(window) == k and one_case and all(c in letters for c in window.upper()):
            value = 0
            for c in window.upper():
                value = value * len(letters) + letters.index(c)
            codes.append(value)
            i += k
        elif len(window) == k and one_case and set(window.upper()) == {unknown}:
            codes.append(num_kmers)
            i += k
        else:
            codes.append(num_kmers + 1 + singles.index(text[i].upper()))
            i += 1
    return codes


def slow_decode(codes: list[int], letters: str, unknown: str, others: str, k: int) -> str:
    """The text of any codes, one after another."""
    singles = letters + unknown + others
    num_kmers = len(letters) ** k
    to_lower = num_kmers + 1 + len(singles)
    text, lower = "", False
    for code in codes:
        if code >= to_lower:
            lower = code == to_lower
            continue
        if code < num_kmers:
            part = "".join(letters[code // len(letters) ** (k - 1 - j) % len(letters)] for j in range(k))
        elif code == num_kmers:
            part = unknown * k
        else:
            part = singles[code - num_kmers - 1]
        text += part.lower() if lower else part
    return text


def sequences(preset: str) -> st.SearchStrategy[str]:
    """Stretches of letters, of the unknown letter and of others, in either case, as chromosomes have them."""
    letters, unknown, others = ALPHABETS[preset]
    stretch = st.one_of(
        st.text(letters, max_size=20), st.integers(0, 20).map(lambda n: unknown * n), st.text(others, max_size=4)
    )
    return st.lists(st.tuples(stretch, st.booleans()).map(lambda p: p[0].lower() if p[1] else p[0]), max_size=12).map(
        "".join
    )


@pytest.mark.parametrize(("preset", "k"), [("dna", 6), ("dna", 1), ("rna", 4), ("protein", 3)])
@given(data=st.data())
def test_codes_equal_the_reference_and_round_trip(preset: str, k: int, data: st.DataObject) -> None:
    tokenizer = SequenceKmer(alphabet=preset, k=k)
    text = data.draw(sequences(preset))
    codes = tokenizer.encode(text)
    assert codes.values[0].tolist() == slow_encode(text, *ALPHABETS[preset], k)
    assert codes.extent == (len(text),)
    assert tokenizer.decode(codes) == text


@pytest.mark.parametrize(("preset", "k"), [("dna", 2), ("protein", 1)])
@given(data=st.data())
def test_any_codes_decode_as_the_reference_does(preset: str, k: int, data: st.DataObject) -> None:
    tokenizer = SequenceKmer(alphabet=preset, k=k)
    values = data.draw(st.lists(st.integers(0, tokenizer.spec.codebook_sizes[0] - 1), max_size=40))
    codes = Codes(np.array([values], np.int32).reshape(1, -1), (len(values),))
    assert tokenizer.decode(codes) == slow_decode(values, *ALPHABETS[preset], k)


def test_the_id_layout_is_the_one_written_down() -> None:
    dna, protein = SequenceKmer(), SequenceKmer(alphabet="protein", k=3)
    assert dna.spec.codebook_sizes == (4117,)
    assert protein.spec.codebook_sizes == (8032,)
    for text, codes in [
        ("AAAAAA", [0]),
        ("AAAAAC", [1]),
        ("TTTTTT", [4095]),
        ("NNNNNN", [4096]),
        ("A", [4097]),
        ("ACGTN", [4097, 4098, 4099, 4100, 4101]),
        ("RYSWKMBDHVU-.", list(range(4102, 4115))),
        ("a", [4115, 4097]),
        ("aA", [4115, 4097, 4116, 4097]),
        ("a-A", [4115, 4097, 4113, 4116, 4097]),  # a gap has no case: the switch stands before the letter
        ("-a", [4113, 4115, 4097]),
        ("ACGTACGnnRY", [433, 4099, 4115, 4101, 4101, 4116, 4102, 4103]),
    ]:
        assert dna.encode(text).values[0].tolist() == codes, text
    assert protein.encode("AAAYYYXXXX*").values[0].tolist() == [0, 7999, 8000, 8021, 8027]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ACGT\nACGT", r"character '\\n' at position 4: 'dna' takes ACGTNRYSWKMBDHVU-\."),
        ("ACé", "character 'é' at position 2"),
        (">chr1", "character '>' at position 0"),
        ("AC\x00", r"'\\x00' at position 2"),
        ("ACE", "'E' at position 2"),
        ("AC?é", r"'\?' at position 2"),
    ],
)
def test_foreign_characters_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceKmer().encode(text)


def test_bytes_are_refused() -> None:
    with pytest.raises(InputError, match="type bytes: give a str"):
        SequenceKmer().encode(b"ACGT")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alphabet": "ACGT"}, "one unknown letter"),
        ({"alphabet": "acgt", "unknown": "N"}, "in upper case"),
        ({"alphabet": "ACGT", "unknown": "A"}, "each once"),
        ({"alphabet": "ACGÄ", "unknown": "N"}, "printable ASCII"),
        ({"k": 0}, "k=0 with 4 letters"),
        ({"k": 16}, "k=16 with 4 letters: give k >= 1 with fewer than"),
        ({"alphabet": "protein", "k": 8}, "k=8 with 20 letters"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        SequenceKmer(**arguments)  # type: ignore[arg-type]


def test_an_alphabet_of_ones_own() -> None:
    tokenizer = SequenceKmer(alphabet="HP", unknown="?", others="_", k=3, name="fold")
    assert tokenizer.spec.name == "fold"
    assert tokenizer.spec.codebook_sizes == (8 + 1 + 4 + 2,)
    assert tokenizer.decode(tokenizer.encode("HPPhp???_H")) == "HPPhp???_H"
    assert SequenceKmer(alphabet="HP", unknown="?").spec.name == "sequence"


def test_the_empty_sequence() -> None:
    tokenizer = SequenceKmer()
    codes = tokenizer.encode("")
    assert codes == Codes(np.empty((1, 0), np.int32), (0,))
    assert tokenizer.decode(codes) == ""


def test_a_long_soft_masked_chromosome() -> None:
    rng = np.random.default_rng(0)
    letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), 1_000_000)
    for start in rng.integers(0, letters.size, 500):
        letters[start : start + 300] |= 0x20
    letters[400_000:450_000] = ord("N")
    text = letters.tobytes().decode()
    tokenizer = SequenceKmer()
    codes = tokenizer.encode(text)
    assert tokenizer.decode(codes) == text
    assert codes.num_tokens < len(text) / 5.5  # close to one code for six letters
