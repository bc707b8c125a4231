"""`Interleaver`: documents to token sequences and back, under one vocabulary and one template."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from multitok.errors import PatternError
from multitok.interleave.document import Document, Segment, SegmentShape, Span, TokenSequence
from multitok.interleave.parser import parse
from multitok.interleave.plans import Plan
from multitok.interleave.template import Marks, SegmentMarks, Template
from multitok.vocabulary import Vocabulary


class Interleaver:
    """Turns documents into flat token IDs and back; immutable, so it can be shared by threads.

    Args:
        vocabulary: The ID space.
        template: Structure tokens and patterns; None for the default `Template`.

    Raises:
        VocabularyError: The template names tokens that the vocabulary lacks.
        PatternError: A pattern does not fit its tokenizer.
    """

    def __init__(self, vocabulary: Vocabulary, template: Template | None = None) -> None:
        self.vocabulary = vocabulary
        self.template = template if template is not None else Template()
        self._marks = Marks.of(self.template, vocabulary)

    def __repr__(self) -> str:
        return f"<Interleaver for {self.vocabulary!r}>"

    def encode(self, document: Document) -> TokenSequence:
        """The document as token IDs.

        Args:
            document: Segments of the vocabulary's tokenizers.
        Returns:
            The IDs, structure tokens included, with a span for every segment.
        Raises:
            VocabularyError: A segment of a tokenizer that the vocabulary lacks.
            ShapeError: Codes of another shape than their tokenizer makes.
            CodeRangeError: A code outside its codebook.
            PatternError: A grid that the template does not allow.
        """
        heads = [self._head(segment.shape) for segment in document.segments]
        plans = [self._plan(segment.shape) for segment in document.segments]
        marks = self._marks
        ids = np.empty(self._length(document.segments, heads, plans), np.int32)
        spans = []
        at = 0
        if marks.begin is not None:
            ids[at] = marks.begin
            at += 1
        for segment, head, plan in zip(document.segments, heads, plans, strict=True):
            segment_marks = marks.segments[segment.name]
            ids[at : at + len(head)] = head
            at += len(head)
            values = self.vocabulary.to_ids(segment.name, segment.codes)
            plan.flatten(values, row=marks.row, frame=marks.frame, empty=marks.empty, out=ids[at : at + plan.length])
            spans.append(
                Span(
                    segment.name,
                    segment_marks.spec.modality,
                    at,
                    plan.length,
                    plan.grid,
                    segment.codes.extent,
                    plan.num_codebooks,
                    str(plan.pattern),
                )
            )
            at += plan.length
            if segment_marks.end is not None:
                ids[at] = segment_marks.end
                at += 1
        if marks.end is not None:
            ids[at] = marks.end
        return TokenSequence(ids, tuple(spans), document.id)

    def decode(self, sequence: TokenSequence) -> Document:
        """The document of a token sequence; inverts `encode` exactly.

        Args:
            sequence: IDs and spans; what lies between the spans is not looked at.
        Returns:
            The document.
        Raises:
            VocabularyError: A span of a tokenizer that the vocabulary lacks.
            PatternError: A span that does not fit its stream.
            CodeRangeError: IDs that are no codes of the span's tokenizer.
        """
        return Document(tuple(self.decode_span(sequence.ids, span) for span in sequence.spans), sequence.id)

    def decode_span(self, ids: NDArray[np.int32], span: Span) -> Segment:
        """The segment of one span; see `decode`."""
        spec = self.vocabulary.spec(span.name)
        if not 0 <= span.start <= span.stop <= len(ids):
            raise PatternError(
                f"span of {span.name!r} from {span.start} to {span.stop} in {len(ids)} tokens: the span belongs to "
                "another sequence, or the sequence was cut"
            )
        if (spec.modality, spec.num_codebooks, len(spec.grid_axes)) != (
            span.modality,
            span.num_codebooks,
            len(span.grid),
        ):
            raise PatternError(
                f"span of {span.name!r}: {span.modality}, {span.num_codebooks} codebooks over {span.grid}; in the "
                f"vocabulary it is {spec.modality}, {spec.num_codebooks} codebooks over {spec.grid_axes}"
            )
        marks = self._marks
        stream = ids[span.start : span.stop]
        values = span.plan.unflatten(stream, row=marks.row, frame=marks.frame, empty=marks.empty)
        return Segment(span.name, self.vocabulary.to_codes(span.name, values, span.extent))

    def count(self, segments: Document | Iterable[SegmentShape]) -> int:
        """Length of the token sequence, from shapes alone; equals `len(encode(document))`.

        Args:
            segments: A document, or the shapes of its segments (`SegmentShape.of_extent` for raw sizes).
        Returns:
            Number of tokens, structure tokens included.
        Raises:
            VocabularyError: A segment of a tokenizer that the vocabulary lacks.
            PatternError: A grid that the template does not allow.
        """
        shapes = [s.shape for s in segments.segments] if isinstance(segments, Document) else list(segments)
        return self._length(shapes, [self._head(shape) for shape in shapes], [self._plan(shape) for shape in shapes])

    def span_length(self, shape: SegmentShape) -> int:
        """Length of a segment's span, from its shape alone: separators inside it count, the tokens around it do not.

        Args:
            shape: The segment's shape.
        Returns:
            Number of tokens.
        Raises:
            VocabularyError: A segment of a tokenizer that the vocabulary lacks.
            PatternError: A grid that the template does not allow.
        """
        return self._plan(shape).length

    def parse(self, ids: NDArray[np.integer], *, allow_truncated: bool = False) -> Document:
        """The document in a bare stream of IDs, such as a model's output, found by its structure tokens.

        What the template does not write cannot be read: raw sizes are those of full grids unless it writes
        size="extent"; neighbouring segments of one tokenizer without begin and end tokens become one; empty
        segments without them vanish.

        Args:
            ids: [n] integers. The document's begin token may be missing; padding may follow its end.
            allow_truncated: Leave out what is cut off at the end of the stream instead of refusing it.
        Returns:
            The document.
        Raises:
            CodeRangeError: An ID outside the vocabulary, or of a wrong codebook.
            PatternError: The stream breaks the template; says where and what was due.
        """
        return parse(np.asarray(ids).reshape(-1), self.vocabulary, self._marks, allow_truncated=allow_truncated)

    def _segment_marks(self, name: str) -> SegmentMarks:
        self.vocabulary.entry(name)
        return self._marks.segments[name]

    def _plan(self, shape: SegmentShape) -> Plan:
        marks = self._segment_marks(shape.name)
        if marks.grid is not None and shape.grid != marks.grid:
            raise PatternError(
                f"a segment of {shape.name!r} with the grid {shape.grid}: the template fixes {marks.grid}"
            )
        return Plan.of(marks.pattern, marks.spec.num_codebooks, shape.grid)

    def _head(self, shape: SegmentShape) -> list[int]:
        """IDs before the codes of a segment: the begin token and the size."""
        marks = self._segment_marks(shape.name)
        head = [] if marks.begin is None else [marks.begin]
        if marks.size is None:
            return head
        if marks.size == "extent" and SegmentShape.of_extent(marks.spec, shape.extent).grid != shape.grid:
            raise PatternError(
                f"a segment of {shape.name!r} with extent {shape.extent} has the grid {shape.grid}: its grid does not "
                "follow from its extent, so the template must write size='grid'"
            )
        for axis, number in enumerate(shape.grid if marks.size == "grid" else shape.extent):
            head += [self._marks.times] if axis else []
            head += [self._marks.digits[int(digit)] for digit in str(number)]
        return head if marks.size_end is None else [*head, marks.size_end]

    def _length(
        self, segments: Iterable[Segment | SegmentShape], heads: Iterable[list[int]], plans: Iterable[Plan]
    ) -> int:
        ends = sum(self._marks.segments[segment.name].end is not None for segment in segments)
        edges = (self._marks.begin is not None) + (self._marks.end is not None)
        return edges + ends + sum(map(len, heads)) + sum(plan.length for plan in plans)
