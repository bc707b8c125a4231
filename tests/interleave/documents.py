"""A vocabulary of every modality and random documents in it."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from multitok.interleave import Document, Segment, SegmentTemplate, Template
from multitok.protocol import Codes, Modality, TokenizerSpec
from multitok.vocabulary import Vocabulary
from tests.vocabulary.toy import entry

VOCABULARY = Vocabulary.build(
    [
        entry("text", (300,)),
        entry("bytes", (256,)),
        entry("image", (16, 8), Modality.IMAGE, stride=8),
        entry("video", (32,), Modality.VIDEO, stride=4),
        entry("volume", (9, 9), Modality.VOLUME, stride=4),
        entry("audio", (5, 6, 7), Modality.AUDIO, stride=320),
        entry("series", (40,), Modality.SERIES),
        entry("dna", (70,), Modality.SEQUENCE, stride=6),
        entry("protein", (90,), Modality.SEQUENCE, stride=3),
    ],
    reserved=4,
    pad_to_multiple=64,
)

# One template per way of telling a reader the grid: written size, separators, length.
SIZED = Template()
SEPARATED = Template(
    segments={
        **Template().segments,
        "image": SegmentTemplate(begin="<|image|>", end="<|/image|>", pattern="column+coarse-first+row"),
        "video": SegmentTemplate(begin="<|video|>", end="<|/video|>", pattern="row+frame"),
        "volume": SegmentTemplate(begin="<|volume|>", pattern="parallel", size="extent", size_end="<|/text|>"),
        "audio": SegmentTemplate(begin="<|audio|>", end="<|/audio|>", pattern="delay:0,1,3"),
        "series": SegmentTemplate(begin="<|series|>", pattern="raster+row"),
        "protein": SegmentTemplate(begin="<|text|>", end="<|/sequence|>"),
    }
)
TEMPLATES = {"sized": SIZED, "separated": SEPARATED}


def segment(name: str, grid: tuple[int, ...], *, extent: tuple[int, ...] | None = None, seed: int = 0) -> Segment:
    """A segment with random codes on this grid."""
    spec = VOCABULARY.spec(name)
    return Segment(name, random_codes(spec, grid, extent if extent is not None else spec.full_extent(grid), seed))


def random_codes(spec: TokenizerSpec, grid: tuple[int, ...], extent: tuple[int, ...], seed: int) -> Codes:
    """Random codes of a tokenizer on this grid."""
    rng = np.random.default_rng(seed)
    values = [rng.integers(0, size, grid) for size in spec.codebook_sizes]
    return Codes(np.stack(values).astype(np.int32), extent)


@st.composite
def documents(draw: st.DrawFn, *, least: int = 0, full: bool = False) -> Document:
    """Documents of up to five segments; grids from `least` per axis, extents cropped unless `full`."""
    segments = []
    for name in draw(st.lists(st.sampled_from(sorted(VOCABULARY.entries)), max_size=5)):
        spec = VOCABULARY.spec(name)
        grid = tuple(draw(st.integers(least, 5)) for _ in spec.grid_axes)
        extent = spec.full_extent(grid)
        if not full:
            extent = tuple(
                max(0, n - draw(st.integers(0, step - 1))) for n, step in zip(extent, spec.stride, strict=True)
            )
        segments.append(Segment(name, random_codes(spec, grid, extent, draw(st.integers(0, 99)))))
    return Document(tuple(segments), id=draw(st.sampled_from(["", "shelf/9.json"])))
