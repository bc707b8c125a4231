"""Documents of segments, and the flat token sequences they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError
from multitok.interleave.plans import Plan
from multitok.protocol import Codes, Modality, TokenizerSpec


@dataclass(frozen=True, slots=True)
class SegmentShape:
    """All that a token count depends on: a segment's tokenizer, grid and raw size.

    Args:
        name: The tokenizer's name in the vocabulary.
        grid: Shape of one codebook's codes.
        extent: Raw size along each grid axis.
    """

    name: str
    grid: tuple[int, ...]
    extent: tuple[int, ...]

    @classmethod
    def of_extent(cls, spec: TokenizerSpec, extent: Sequence[int]) -> SegmentShape:
        """Shape of a segment whose raw size is known, for tokenizers that cover it in whole strides.

        Raises:
            ShapeError: `extent` has another rank.
            SpecError: The tokenizer's length depends on the content (a stride of 0).
        """
        if len(extent) != len(spec.stride):
            raise ShapeError(f"extent {tuple(extent)}: {spec.name!r} counts along the axes {spec.grid_axes}")
        if 0 in spec.stride:
            raise SpecError(f"how many tokens {spec.name!r} makes depends on the content: encode it to count them")
        grid = tuple(-(-n // step) for n, step in zip(extent, spec.stride, strict=True))
        return cls(spec.name, grid, tuple(int(n) for n in extent))


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One run of one modality: the codes of one raw item.

    Args:
        name: The tokenizer's name in the vocabulary.
        codes: What it encoded the item to.
    """

    name: str
    codes: Codes

    @property
    def shape(self) -> SegmentShape:
        """What the segment's token count depends on."""
        return SegmentShape(self.name, self.codes.grid, self.codes.extent)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Segment):
            return NotImplemented
        return self.name == other.name and self.codes == other.codes

    __hash__ = None  # type: ignore[assignment]  # compares by content, which hashing would have to read


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One training item: segments in reading order.

    Args:
        segments: The segments.
        id: The item's name in its source; "" where it has none.
    """

    segments: tuple[Segment, ...]
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(self.segments))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Document):
            return NotImplemented
        return self.id == other.id and self.segments == other.segments

    __hash__ = None  # type: ignore[assignment]  # compares by content, which hashing would have to read


@dataclass(frozen=True, slots=True)
class Span:
    """Where a segment's codes lie in a token sequence, and what it takes to read them back.

    Structure tokens around a segment lie outside its span; row and frame separators and fillers inside.

    Args:
        name: The tokenizer's name in the vocabulary.
        modality: Its modality.
        start: Index of the first token.
        length: Number of tokens.
        grid: Shape of one codebook's codes.
        extent: Raw size along each grid axis.
        num_codebooks: K.
        pattern: `Pattern.parse` of it rebuilds the flatten pattern exactly.
    """

    name: str
    modality: Modality
    start: int
    length: int
    grid: tuple[int, ...]
    extent: tuple[int, ...]
    num_codebooks: int
    pattern: str

    @property
    def stop(self) -> int:
        """Index after the last token."""
        return self.start + self.length

    @property
    def plan(self) -> Plan:
        """The plan that wrote the span: `plan.streams(ids[start:stop])` are its K streams, `plan.sources()` says
        which codebook and grid position each token is."""
        return Plan.of(self.pattern, self.num_codebooks, self.grid)


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """A document as token IDs, with a span for every segment.

    Args:
        ids: [n] int32, read-only.
        spans: In order, one per segment.
        id: The document's.

    Raises:
        ShapeError: `ids` is not a flat array of integers.
    """

    ids: NDArray[np.int32]
    spans: tuple[Span, ...]
    id: str = ""

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ShapeError(f"ids of shape {list(ids.shape)} and dtype {ids.dtype}: give a flat array of integers")
        ids = ids.astype(np.int32, copy=False).view()
        ids.flags.writeable = False
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "spans", tuple(self.spans))

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenSequence):
            return NotImplemented
        return self.id == other.id and self.spans == other.spans and np.array_equal(self.ids, other.ids)

    __hash__ = None  # type: ignore[assignment]  # compares by content, which hashing would have to read
