"""Documents of several modalities as one flat stream of token IDs, and back.

    Document(Segment, Segment, ...)  --Interleaver.encode-->  TokenSequence(ids, spans)
                                     <--Interleaver.decode--
    bare ids of a model              --Interleaver.parse--->  Document

A `Pattern` says in which order a segment's codes [K, *grid] enter the stream, a `Template` which structure
tokens stand around them. Everything is vectorised; NumPy is all this package needs.
"""

from __future__ import annotations

from multitok.interleave.document import Document, Segment, SegmentShape, Span, TokenSequence
from multitok.interleave.interleaver import Interleaver
from multitok.interleave.patterns import Pattern
from multitok.interleave.plans import Plan, grid_of
from multitok.interleave.template import SegmentTemplate, Template

__all__ = [
    "Document",
    "Interleaver",
    "Pattern",
    "Plan",
    "Segment",
    "SegmentShape",
    "SegmentTemplate",
    "Span",
    "Template",
    "TokenSequence",
    "grid_of",
]
