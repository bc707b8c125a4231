"""What a job would come to, before it runs: the tokens that `multitok prepare` would write.

Images, video, volumes, sound and series are counted from their headers; text and gene sequences are encoded, because
their length depends on the content. What only decoding shows (a picture cut short, NaN in a table) is counted here and
lands in quarantine there. Memory does not grow with the sources; nothing is written but listings in a temporary folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from multitok.frontend.media import Limits, ReadOptions, modalities_of, probe_records
from multitok.frontend.resample import num_resampled
from multitok.interleave import Interleaver, SegmentShape, Template
from multitok.prepare.encode import Encoded, ItemEncoder
from multitok.prepare.job import DEFAULT_SHARD_BYTES
from multitok.prepare.plan import listing_name
from multitok.prepare.quarantine import is_items_fault, reject
from multitok.prepare.routing import INLINE, Routing
from multitok.prepare.sources import Findings, Item, Part, Rejected, Source, open_sources
from multitok.prepare.worker import make_routing
from multitok.protocol import Modality
from multitok.vocabulary import Vocabulary

MAX_REJECTED_KEPT = 1000

_Measured: TypeAlias = "tuple[list[SegmentShape], Mapping[Modality, int]]"
"""Shapes of segments, and the raw bytes that each modality of them took."""


@dataclass(frozen=True)
class ModalityCount:
    """What one modality comes to.

    Args:
        items: Segments.
        tokens: Their tokens, without the structure tokens around them.
        num_bytes: Raw bytes they are made from.
    """

    items: int
    tokens: int
    num_bytes: int


@dataclass(frozen=True)
class TokenCount:
    """What sources come to.

    Args:
        num_documents: Documents.
        num_tokens: Their tokens, structure tokens included.
        modalities: By modality, in the order that reports use.
        skipped: What is left out, and how often, in the words of a prepare job.
        num_rejected: Items that would go to quarantine.
        rejected: The first `MAX_REJECTED_KEPT` of them.
    """

    num_documents: int
    num_tokens: int
    modalities: Mapping[Modality, ModalityCount]
    skipped: Mapping[str, int]
    num_rejected: int
    rejected: tuple[Rejected, ...]


def count_tokens(
    sources: Sequence[str | os.PathLike[str]],
    vocabulary: Vocabulary,
    *,
    template: Template | None = None,
    use: Mapping[str, str] | None = None,
    group_by_stem: bool = False,
    limits: Limits | None = None,
    reading: ReadOptions | None = None,
) -> TokenCount:
    """Count the tokens that `multitok.prepare.prepare` would write for the same arguments.

    Args:
        sources: Folders, .jsonl, .parquet and .tar files, or single media files.
        vocabulary: Knows where its tokenizers lie.
        template: How documents are written; None for the default.
        use: Modality or file ending (".faa") -> tokenizer name, where several tokenizers could take it.
        group_by_stem: In folders, the files of one stem are one document.
        limits: How large an item may be; None for the defaults.
        reading: Frame rate of videos, window of volumes and the like; None for the defaults.
    Returns:
        The counts.
    Raises:
        JobError: A source cannot be used; says what to do.
        VocabularyError: The template does not fit the vocabulary.
    """
    routing = make_routing(vocabulary, use or {})
    opened = open_sources([Path(source) for source in sources], routing, group_by_stem=group_by_stem)
    counting = _Counting(vocabulary, routing, template or Template(), limits or Limits(), reading or ReadOptions())
    with TemporaryDirectory(prefix="multitok-count-") as folder:
        for number, source in enumerate(opened):
            counting.add(source, Path(folder) / listing_name(number))
    return counting.result()


class _Counting:
    """Running totals; adds whole sources."""

    def __init__(
        self, vocabulary: Vocabulary, routing: Routing, template: Template, limits: Limits, reading: ReadOptions
    ) -> None:
        self._vocabulary = vocabulary
        self._routing = routing
        self._limits = limits
        self._reading = reading
        self._interleaver = Interleaver(vocabulary, template)
        self._encoder = ItemEncoder(vocabulary, routing, template, limits, reading)
        self._num_documents = self._num_tokens = self._num_rejected = 0
        self._items, self._tokens, self._bytes = Counter[Modality](), Counter[Modality](), Counter[Modality]()
        self._skipped = Counter[str]()
        self._rejected: list[Rejected] = []

    def add(self, source: Source, listing: Path) -> None:
        """Count a source; `listing` is where its plan may be noted."""
        findings = Findings()
        slices = list(source.plan(DEFAULT_SHARD_BYTES, listing, findings))
        self._skipped += findings.skipped
        notes = frozenset(findings.notes)
        items = (item for part in slices for item in source.read(part, listing, notes))
        for outcome in self._encoder.encode(self._to_encode(items, source.media_root)):
            if isinstance(outcome, Rejected):
                self._reject(outcome)
            else:
                self._add_document(_shapes(outcome), outcome.bytes_in)

    def result(self) -> TokenCount:
        """The totals so far."""
        modalities = {
            modality: ModalityCount(self._items[modality], self._tokens[modality], self._bytes[modality])
            for modality in Modality
            if self._items[modality]
        }
        return TokenCount(
            self._num_documents,
            self._num_tokens,
            modalities,
            dict(sorted(self._skipped.items())),
            self._num_rejected,
            tuple(self._rejected),
        )

    def _to_encode(self, items: Iterable[Item | Rejected], root: Path) -> Iterator[tuple[Path, Item | Rejected]]:
        """The items whose length only encoding tells; the others are counted on the way."""
        for item in items:
            if isinstance(item, Rejected) or all(self._is_by_content(part) for part in item.parts):
                yield root, item
            else:
                self._count_by_headers(item, root)

    def _count_by_headers(self, item: Item, root: Path) -> None:
        shapes: list[SegmentShape] = []
        sizes = Counter[Modality]()
        try:
            for part in item.parts:
                found = self._probed(part) or self._encoded(item, part, root)
                if isinstance(found, Rejected):
                    self._reject(found)
                    return
                shapes += found[0]
                sizes.update(found[1])
            if item.by_record and len(shapes) > 1:  # series of one folder: the bytes count once
                for index, shape in enumerate(shapes):
                    self._add_document([shape], {} if index else sizes)
            else:
                self._add_document(shapes, sizes)
        except Exception as error:
            if not is_items_fault(error):
                raise
            self._reject(reject(item, error, root))

    def _probed(self, part: Part) -> _Measured | None:
        """What the headers of a part say; None where the tokenizer's length depends on the content."""
        if self._is_by_content(part):
            return None
        assert not isinstance(part.content, str)
        wanted = None if part.tokenizer is None else self._routing.modalities[part.tokenizer]
        shapes, sizes = [], Counter[Modality]()
        found = probe_records(part.content, part.name, modality=wanted, limits=self._limits, options=self._reading)
        for _, info in found:
            spec = self._vocabulary.spec(part.tokenizer or self._routing.of_content(part.name, info.modality))
            if 0 in spec.stride:
                return None
            extent = info.extent
            if info.sample_rate_hz is not None and spec.sample_rate_hz is not None:
                extent = (num_resampled(extent[0], info.sample_rate_hz, spec.sample_rate_hz),)
            shapes.append(SegmentShape.of_extent(spec, extent))
            # The bytes of a file of several records count once.
            content = part.content
            size = content.stat().st_size if isinstance(content, Path) else len(content)
            sizes[info.modality] = size if part.num_bytes is None else part.num_bytes
        return shapes, sizes

    def _encoded(self, item: Item, part: Part, root: Path) -> _Measured | Rejected:
        (outcome,) = self._encoder.encode([(root, replace(item, parts=(part,), by_record=False))])
        return outcome if isinstance(outcome, Rejected) else (_shapes(outcome), outcome.bytes_in)

    def _is_by_content(self, part: Part) -> bool:
        if isinstance(part.content, str):
            return True
        if part.tokenizer is not None:
            return 0 in self._vocabulary.spec(part.tokenizer).stride
        return modalities_of(part.name)[0] in INLINE

    def _add_document(self, shapes: Sequence[SegmentShape], sizes: Mapping[Modality, int]) -> None:
        self._num_tokens += self._interleaver.count(shapes)
        self._num_documents += 1
        for shape in shapes:
            modality = self._vocabulary.spec(shape.name).modality
            self._items[modality] += 1
            self._tokens[modality] += self._interleaver.span_length(shape)
        self._bytes.update(sizes)

    def _reject(self, rejected: Rejected) -> None:
        self._num_rejected += 1
        if len(self._rejected) < MAX_REJECTED_KEPT:
            self._rejected.append(rejected)


def _shapes(encoded: Encoded) -> list[SegmentShape]:
    return [SegmentShape(span.name, span.grid, span.extent) for span in encoded.sequence.spans]
