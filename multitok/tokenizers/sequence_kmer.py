"""DNA, RNA and protein sequences as k-mers, exactly: unknown stretches, ambiguity letters, gaps and lower case too.

Code layout, for an alphabet of A letters, one unknown letter and some others (DNA, k = 6: A = 4, "N", 13 others):

    code                                 stands for                                     DNA, k = 6
    0 .. A^k - 1                         k letters, first letter most significant       AAAAAA .. TTTTTT  0 .. 4095
    A^k                                  the unknown letter, k times                    NNNNNN            4096
    A^k + 1 .. A^k + A                   one letter of the alphabet                     A C G T           4097 .. 4100
    A^k + A + 1                          one unknown letter                             N                 4101
    A^k + A + 2 ..                       one other character                            R Y S .. - .      4102 ..
    the last but one, the last           from here on lower case, upper case                              4115, 4116

`encode` writes one canonical form: upper case at the start; a switch where a letter's case differs from the letter
before (gaps and stops have no case); within a stretch of one case, k-mers from the left and single letters for what is
left over. `decode` reads any codes, canonical or not.

    "ACGTACGnnRY" -> ACGTAC G lower N N upper R Y       (k = 6)

It counts characters and takes them as they are: it knows nothing of FASTA files, strands or reading frames.
Costs a few passes over the sequence; 10 MB of soft-masked chromosome take well under a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, SpecError
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec

# Letters, unknown letter, others. The order is part of the ID format.
ALPHABETS: dict[str, tuple[str, str, str]] = {
    "dna": ("ACGT", "N", "RYSWKMBDHVU-."),
    "rna": ("ACGU", "N", "RYSWKMBDHVT-."),
    "protein": ("ACDEFGHIKLMNPQRSTVWY", "X", "BJOUZ*-."),
}

LETTER, UNKNOWN, OTHER = range(3)
UPPER, LOWER, CASELESS = range(3)


class SequenceKmer(TokenizerBase[str]):
    """Biological sequences <-> k-mer codes; lossless.

    Args:
        alphabet: "dna", "rna", "protein", or the letters that k-mers are made of ("ACGT"), upper case, each once.
        k: Letters per k-mer, 1 or more.
        unknown: The letter for anything unknown; None takes the named alphabet's ("N", "X").
        others: Further characters that may occur, coded one by one; None takes the named alphabet's.
        name: Name inside a vocabulary; None takes the alphabet's name, or "sequence" for letters.
    Raises:
        SpecError: k is below 1 or too large, or a character is lower-case, no printable ASCII, or there twice.
    """

    def __init__(
        self,
        *,
        alphabet: str = "dna",
        k: int = 6,
        unknown: str | None = None,
        others: str | None = None,
        name: str | None = None,
    ) -> None:
        letters, preset_unknown, preset_others = ALPHABETS.get(alphabet, (alphabet, "", ""))
        unknown = preset_unknown if unknown is None else unknown
        others = preset_others if others is None else others
        characters = letters + unknown + others
        if len(letters) < 2 or len(unknown) != 1:
            raise SpecError(
                f"alphabet={alphabet!r}, unknown={unknown!r}: give {', '.join(map(repr, ALPHABETS))}, "
                'or at least two letters and one unknown letter, as alphabet="ACGT", unknown="N"'
            )
        if len(set(characters)) != len(characters) or not all("!" <= c <= "~" and c == c.upper() for c in characters):
            raise SpecError(f"characters {characters!r}: give printable ASCII, letters in upper case, each once")
        if k < 1 or len(letters) ** k >= 2**31 - 200:
            raise SpecError(f"k={k} with {len(letters)} letters: give k >= 1 with fewer than 2^31 k-mers")
        self._letters, self._unknown, self._others, self._k = letters, unknown, others, k
        self._num_kmers = len(letters) ** k
        self._first_single = self._num_kmers + 1
        self._to_lower = self._first_single + len(characters)
        self._singles = np.frombuffer(characters.encode("ascii"), np.uint8)
        self._tables = _tables(letters, unknown, others)
        self._spec = TokenizerSpec(
            kind="sequence-kmer",
            name=name if name is not None else alphabet if alphabet in ALPHABETS else "sequence",
            modality=Modality.SEQUENCE,
            codebook_sizes=(self._to_lower + 2,),
            grid_axes=("t",),
            stride=(0,),
            lossless=True,
        )

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like; the stride is 0 because case and unknown letters decide the length."""
        return self._spec

    def encode(self, raw: str, /) -> Codes:
        """The canonical codes [1, n] of a sequence; the extent counts its characters.

        Raises:
            InputError: A character outside the alphabet; names it and its position.
        """
        data = self._bytes(raw)
        if not data:
            return Codes(np.empty((1, 0), np.int32), (0,))
        kind, index, case = (np.frombuffer(data.translate(table), np.uint8) for table in self._tables)
        case = _filled(case, CASELESS, UPPER)

        # A run: one kind of character in one case. Its k-mers come first, then its left-over single characters.
        new_run = (kind[1:] != kind[:-1]) | (case[1:] != case[:-1])
        starts = np.concatenate([[0], np.flatnonzero(new_run) + 1])
        lengths = np.diff(starts, append=len(data))
        kmers = np.where(kind[starts] == OTHER, 0, lengths // self._k)
        singles = lengths - self._k * kmers
        run_case = case[starts]
        switches = np.diff(run_case, prepend=np.uint8(UPPER)) != 0
        ends = np.cumsum(switches + kmers + singles)
        places = ends - singles - kmers

        values = np.empty(int(ends[-1]), np.int32)
        values[places[switches] - 1] = self._to_lower + (run_case[switches] == UPPER)
        where, step = _spread(kmers)
        values[places[where] + step] = self._kmers_at(index, kind, starts[where] + self._k * step)
        where, step = _spread(singles)
        at = starts[where] + self._k * kmers[where] + step
        values[places[where] + kmers[where] + step] = index[at].astype(np.int32) + self._first_single
        return Codes(values[None], (len(data),))

    def decode(self, codes: Codes, /) -> str:
        """The sequence of `codes`, canonical or not, all of them: there is no padding to crop.

        Args:
            codes: [1, n].
        """
        self._spec.check(codes)
        values = codes.values[0]
        # One row of k letters a code; what a row leaves empty stays NUL, which no alphabet has, and is dropped.
        letters = np.zeros((values.size, self._k), np.uint8)
        is_kmer = values < self._num_kmers
        rest = values[is_kmer]
        columns = np.empty((rest.size, self._k), np.uint8)
        for j in reversed(range(self._k)):
            rest, digit = np.divmod(rest, np.int32(len(self._letters)))
            columns[:, j] = self._singles[digit]
        letters[is_kmer] = columns
        letters[values == self._num_kmers] = ord(self._unknown)
        is_single = (values >= self._first_single) & (values < self._to_lower)
        letters[is_single, 0] = self._singles[values[is_single] - self._first_single]

        switch = np.full(values.size, CASELESS, np.uint8)
        switch[values == self._to_lower], switch[values == self._to_lower + 1] = LOWER, UPPER
        is_lower = _filled(switch, CASELESS, UPPER) == LOWER
        letters[is_lower] = _LOWERED[letters[is_lower]]
        return letters.tobytes().translate(None, b"\0").decode("ascii")

    def get_config(self) -> dict[str, Json]:
        """JSON values which rebuild an equal tokenizer; the alphabet is spelled out."""
        return {
            "name": self._spec.name,
            "alphabet": self._letters,
            "k": self._k,
            "unknown": self._unknown,
            "others": self._others,
        }

    def _kmers_at(self, index: NDArray[np.uint8], kind: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int32]:
        """Codes of the k-mers that start at `at`: letters, or the unknown letter k times."""
        codes = np.zeros(at.size, np.int32)
        for j in range(self._k):
            codes *= np.int32(len(self._letters))
            codes += index[at + j]
        codes[kind[at] == UNKNOWN] = self._num_kmers
        return codes

    def _bytes(self, raw: str) -> bytes:
        if not isinstance(raw, str):
            raise InputError(f"a sequence of type {type(raw).__name__}: give a str of letters")
        data = raw.encode("ascii", "replace")  # one byte a character, so positions agree
        allowed = self._letters + self._unknown + self._others
        if not raw.isascii() or data.translate(None, (allowed + allowed.lower()).encode("ascii")):
            at = next(i for i, c in enumerate(raw) if c not in allowed + allowed.lower())
            raise InputError(
                f"character {raw[at]!r} at position {at}: {self._spec.name!r} takes {allowed} in either case; "
                "drop headers, spaces and line breaks"
            )
        return data


_LOWERED = np.frombuffer(bytes(range(256)).lower(), np.uint8)  # bytes.lower touches A to Z only


def _tables(letters: str, unknown: str, others: str) -> tuple[bytes, bytes, bytes]:
    """For each byte: its kind, its index (place among letters, unknown, others) and its case."""
    kind, index, case = bytearray(256), bytearray(256), bytearray([CASELESS]) * 256
    kinds = [LETTER] * len(letters) + [UNKNOWN] + [OTHER] * len(others)
    for i, (character, kind_of) in enumerate(zip(letters + unknown + others, kinds, strict=True)):
        for form in {character, character.lower()}:
            kind[ord(form)], index[ord(form)] = kind_of, i
            if form.isalpha():
                case[ord(form)] = LOWER if form.islower() else UPPER
    return bytes(kind), bytes(index), bytes(case)


def _filled(states: NDArray[np.uint8], empty: int, first: int) -> NDArray[np.uint8]:
    """`states` with each `empty` one replaced by the last that is not; `first` before any."""
    if not (states == empty).any():
        return states
    last = np.maximum.accumulate(np.where(states == empty, -1, np.arange(states.size)))
    return np.where(last < 0, np.uint8(first), states[last])


def _spread(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For counts [2, 0, 3]: which ([0, 0, 2, 2, 2]) and how far in it ([0, 1, 0, 1, 2])."""
    which = np.repeat(np.arange(counts.size), counts)
    return which, np.arange(which.size) - np.repeat(np.cumsum(counts) - counts, counts)
