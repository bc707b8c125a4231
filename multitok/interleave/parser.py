"""Reading a document from a bare stream of IDs by its structure tokens, with no spans at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CodeRangeError, PatternError
from multitok.interleave.document import Document, Segment, SegmentShape
from multitok.interleave.plans import Plan, grid_of
from multitok.interleave.template import Marks, SegmentMarks
from multitok.vocabulary import Vocabulary

# A number of more digits is a mistake, not a size.
_MAX_DIGITS = 9


class _CutShortError(Exception):
    """The stream ends inside something."""


def parse(
    ids: NDArray[np.integer[Any]], vocabulary: Vocabulary, marks: Marks, *, allow_truncated: bool = False
) -> Document:
    """The document in `ids`; see `Interleaver.parse`."""
    reader = _Reader(ids, vocabulary, marks)
    segments: list[Segment] = []
    try:
        while (segment := reader.next_segment()) is not None:
            segments.append(segment)
    except _CutShortError as error:
        if not allow_truncated:
            raise PatternError(f"{error}; allow_truncated=True leaves out what is cut off") from None
    return Document(tuple(segments))


class _Reader:
    """A position in a stream of IDs; what to expect next follows from the IDs before it."""

    def __init__(self, ids: NDArray[np.integer[Any]], vocabulary: Vocabulary, marks: Marks) -> None:
        owners, _ = vocabulary.locate(ids)
        names = list(vocabulary.entries)
        # Special tokens (-1) and reserved IDs (-2) take the last two rows.
        table = np.asarray([*(names.index(block.name) for block in vocabulary.blocks), -2, -1])
        self._names = names
        self._owners = table[owners]
        for token in (marks.begin, marks.end):
            if token is not None:  # it may be a text code, as in LLaMA's vocabulary; here it is none
                self._owners[ids == token] = -1
        self._ids = ids
        self._vocabulary = vocabulary
        self._marks = marks
        self._at = 0
        self._cuts = np.append(np.flatnonzero(self._owners[1:] != self._owners[:-1]) + 1, len(ids))
        self._first_code = np.append(np.flatnonzero(self._owners >= 0), len(ids))
        self._places: dict[int, NDArray[np.int64]] = {}

    def next_segment(self) -> Segment | None:
        """The segment at the current position; None at the end of the document."""
        if self._at == 0 and self._peek() == self._marks.begin and self._marks.begin is not None:
            self._at = 1
        token = self._peek()
        if token is None or token == self._marks.pad:
            self._skip_padding()
            if self._marks.end is None:
                return None
            raise _CutShortError(
                f"the document is cut short after {self._at} tokens: "
                f"{self._vocabulary.describe(self._marks.end)} is due"
            )
        if token == self._marks.end:
            self._at += 1
            self._skip_padding()
            return None
        start = self._at
        candidates = [marks for marks in self._marks.segments.values() if marks.begin == token]
        owner = int(self._owners[start])
        if not candidates and owner >= 0:
            marks = self._marks.segments[self._names[owner]]
            candidates = [marks] if marks.begin is None else []
            if candidates:
                return self._segment(candidates, start)
        if not candidates:
            raise PatternError(
                f"token {start} is {self._vocabulary.describe(token)}: by the template no segment starts with it"
            )
        self._at += 1
        return self._segment(candidates, start)

    def _segment(self, candidates: list[SegmentMarks], start: int) -> Segment:
        head = candidates[0]
        numbers = self._size(head, start) if head.size is not None else None
        marks = self._which(candidates, start)
        grid, extent = self._grid(marks, numbers, start)
        stream = self._stream(marks, grid, start)
        num_codebooks = marks.spec.num_codebooks
        try:
            if grid is None:
                num_axes = len(marks.spec.grid_axes)
                grid = grid_of(
                    marks.pattern, stream, num_codebooks, num_axes, row=self._marks.row, frame=self._marks.frame
                )
            values = Plan.of(marks.pattern, num_codebooks, grid).unflatten(
                stream, row=self._marks.row, frame=self._marks.frame, empty=self._marks.empty
            )
            codes = self._vocabulary.to_codes(marks.name, values, extent)
        except (PatternError, CodeRangeError) as error:
            if isinstance(error, PatternError) and marks.end is None and self._at == len(self._ids):
                raise self._cut_short(start, f"more of {marks.name!r}") from error
            raise type(error)(f"segment of {marks.name!r} at token {start}: {error}") from error
        return Segment(marks.name, codes)

    def _size(self, marks: SegmentMarks, start: int) -> tuple[int, ...]:
        """The numbers written after a begin token."""
        digits = {token: str(digit) for digit, token in enumerate(self._marks.digits)}
        numbers = [""]
        while (token := self._peek()) is not None and (token in digits or token == self._marks.times):
            if token in digits:
                numbers[-1] += digits[token]
            else:
                numbers.append("")
            self._at += 1
        if token is None:
            raise self._cut_short(start, "its size")
        if not all(0 < len(number) <= _MAX_DIGITS for number in numbers) or len(numbers) > 8:
            raise PatternError(
                f"segment at token {start}: token {self._at} is {self._vocabulary.describe(token)} where a size is "
                f"due, one number of 1 to {_MAX_DIGITS} digits per axis"
            )
        if marks.size_end is not None:
            if token != marks.size_end:
                raise PatternError(
                    f"segment at token {start}: token {self._at} is {self._vocabulary.describe(token)} where "
                    f"{self._vocabulary.describe(marks.size_end)} is due"
                )
            self._at += 1
        return tuple(map(int, numbers))

    def _which(self, candidates: list[SegmentMarks], start: int) -> SegmentMarks:
        """The tokenizer of a segment: the owner of its first code."""
        first = int(self._first_code[np.searchsorted(self._first_code, self._at)])
        end = self._next(candidates[0].end) if candidates[0].end is not None else None
        if end is None and candidates[0].end is not None:
            raise self._cut_short(start, self._vocabulary.describe(candidates[0].end))
        if first < len(self._ids) and (end is None or first < end):
            name = self._names[int(self._owners[first])]
            for marks in candidates:
                if marks.name == name:
                    return marks
            names = ", ".join(repr(marks.name) for marks in candidates)
            raise PatternError(
                f"segment at token {start}: token {first} is {self._vocabulary.describe(int(self._ids[first]))} where "
                f"codes of {names} are due"
            )
        if len(candidates) > 1:
            if end is None and self._at == len(self._ids):
                raise self._cut_short(start, "its first code")
            names = ", ".join(repr(marks.name) for marks in candidates)
            raise PatternError(
                f"empty segment at token {start}: it may be of {names}; give them different begin tokens"
            )
        return candidates[0]

    def _grid(
        self, marks: SegmentMarks, numbers: tuple[int, ...] | None, start: int
    ) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Grid and extent as far as the template writes or fixes them."""
        if numbers is None:
            return marks.grid, None
        if len(numbers) != len(marks.spec.grid_axes):
            raise PatternError(
                f"segment of {marks.name!r} at token {start}: a size of {len(numbers)} numbers, {marks.name!r} has the "
                f"axes {marks.spec.grid_axes}"
            )
        if marks.size == "grid":
            return numbers, None
        return SegmentShape.of_extent(marks.spec, numbers).grid, numbers

    def _stream(self, marks: SegmentMarks, grid: tuple[int, ...] | None, start: int) -> NDArray[np.integer[Any]]:
        """The segment's codes, separators and fillers; moves behind the segment's end."""
        begin = self._at
        if marks.end is not None:
            end = self._next(marks.end)
            assert end is not None  # _which has seen it
            self._at = end + 1
            return self._ids[begin:end]
        if grid is not None:
            self._at += Plan.of(marks.pattern, marks.spec.num_codebooks, grid).length
            if self._at > len(self._ids):
                raise self._cut_short(start, f"{self._at - len(self._ids)} tokens of the grid {grid}")
            return self._ids[begin : self._at]
        owner = self._names.index(marks.name)
        fillers = [self._marks.row] if marks.pattern.row else []
        fillers += [self._marks.frame] if marks.pattern.frame else []
        fillers += [self._marks.empty] if marks.pattern.codebooks == "delay" else []
        cut = int(np.searchsorted(self._cuts, begin, side="right"))
        while self._at < len(self._ids):
            run = self._ids[self._at : self._cuts[cut]]
            if int(self._owners[self._at]) != owner:
                outside = np.flatnonzero(~np.isin(run, fillers))
                if outside.size:
                    self._at += int(outside[0])
                    break
            self._at += len(run)
            cut += 1
        return self._ids[begin : self._at]

    def _peek(self) -> int | None:
        return int(self._ids[self._at]) if self._at < len(self._ids) else None

    def _next(self, token: int) -> int | None:
        """Index of the next `token` from here on."""
        if token not in self._places:
            self._places[token] = np.flatnonzero(self._ids == token)
        places = self._places[token]
        index = int(np.searchsorted(places, self._at))
        return int(places[index]) if index < len(places) else None

    def _skip_padding(self) -> None:
        rest = self._ids[self._at :]
        wrong = np.flatnonzero(rest != self._marks.pad) if self._marks.pad is not None else np.arange(len(rest))
        if wrong.size:
            place = self._at + int(wrong[0])
            raise PatternError(
                f"token {place} is {self._vocabulary.describe(int(self._ids[place]))} after the end of the document: "
                "only padding may follow; parse one document at a time"
            )

    def _cut_short(self, start: int, due: str) -> _CutShortError:
        return _CutShortError(
            f"the segment begun at token {start} is cut short after {len(self._ids)} tokens: {due} is due"
        )
