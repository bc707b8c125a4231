"""One worker: writes whole shards by their numbers, and tells only counts.

slices of the shard -> items -> documents -> ShardWriter        what fails -> quarantine
quarantine file, payload, index, segments: flushed, renamed; then the commit record, which names them all
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitok.errors import JobError
from multitok.frontend.media import Limits, ReadOptions
from multitok.interleave import Template
from multitok.prepare.encode import Encoded, ItemEncoder
from multitok.prepare.plan import Plan, listing_name, source_places
from multitok.prepare.quarantine import QuarantineFile
from multitok.prepare.report import Work, shard_note
from multitok.prepare.routing import Routing
from multitok.prepare.sources import Item, Rejected, open_sources
from multitok.protocol import Modality
from multitok.shards import ShardWriter
from multitok.vocabulary import Vocabulary

Advance = Callable[[int, int], None]
"""Called with the documents and tokens added since the last call."""


@dataclass(frozen=True)
class JobContext:
    """All that a worker has to be told; the plan itself it reads from the output folder.

    Args:
        out: The output folder, with a plan.
        vocabulary: `Vocabulary.to_json`, with the tokenizers' sources on this machine.
        sources: Where the plan's sources lie.
        use: See `Routing`.
        group_by_stem: See `FolderSource`.
        template: `Template.to_json`.
        limits: How large an item may be.
        reading: Frame rate, window and the like.
    """

    out: Path
    vocabulary: Mapping[str, Any]
    sources: tuple[Path, ...]
    use: Mapping[str, str]
    group_by_stem: bool
    template: Mapping[str, Any]
    limits: Limits
    reading: ReadOptions


class Worker:
    """Encodes shards of one job.

    Args:
        context: The job.

    Raises:
        MultitokError: The plan, the vocabulary or the sources cannot be used.
    """

    def __init__(self, context: JobContext) -> None:
        plan = Plan.load(context.out)
        if plan is None:
            raise JobError(f"{context.out} has no plan: run prepare")
        self.plan = plan
        self.vocabulary = Vocabulary.from_json(dict(context.vocabulary))
        routing = make_routing(self.vocabulary, context.use)
        self._out = context.out
        self._sources = open_sources(context.sources, routing, group_by_stem=context.group_by_stem)
        self._notes = [frozenset(source.notes) for source in plan.sources]
        self._encoder = ItemEncoder(
            self.vocabulary, routing, Template.from_json(dict(context.template)), context.limits, context.reading
        )

    def write_shard(self, shard: int, advance: Advance | None = None) -> dict[Modality, Work]:
        """Write one shard and commit it.

        Args:
            shard: Number of the shard; it is not finished yet.
            advance: Told of progress.
        Returns:
            The work done, by modality.
        Raises:
            MultitokError, OSError, MemoryError: The shard cannot be written; nothing of it counts.
        """
        quarantine = QuarantineFile(self._out, shard)
        bytes_in: dict[Modality, int] = {}
        try:
            with ShardWriter(self._out, shard, self.vocabulary) as writer:
                for outcome in self.encode(shard):
                    if isinstance(outcome, Rejected):
                        quarantine.add(outcome)
                        continue
                    writer.add(outcome.sequence)
                    for modality, count in outcome.bytes_in.items():
                        bytes_in[modality] = bytes_in.get(modality, 0) + count
                    if advance is not None:
                        advance(1, len(outcome.sequence))
                self._check_unchanged(shard)
                record = quarantine.finish()
                writer.close(shard_note(bytes_in, None if record is None else record.to_json(), quarantine.count))
        except BaseException:
            quarantine.discard()
            raise
        return self._encoder.take_work()

    def encode(self, shard: int) -> Iterator[Encoded | Rejected]:
        """The documents of a shard, in order, and what could not become one."""
        return self._encoder.encode(self._items(shard))

    def _check_unchanged(self, shard: int) -> None:
        """Raise if a file whose bytes or rows the plan counts was written to since: its items were others then.

        The files of a folder are checked one by one as they are read.
        """
        places = source_places(self._out)
        for number in sorted({number for number, _ in self.plan.shards[shard]}):
            source = self._sources[number]
            if source.kind != "folder" and source.identity()[1] != places[number]["digest"]:
                raise JobError(
                    f"source {source.path} was written to while the job ran: bring it back as it was, "
                    "modification time included, or prepare into a new folder"
                )

    def _items(self, shard: int) -> Iterator[tuple[Path, Item | Rejected]]:
        for number, part in self.plan.shards[shard]:
            source = self._sources[number]
            for item in source.read(part, self._out / listing_name(number), self._notes[number]):
                yield source.media_root, item


def make_routing(vocabulary: Vocabulary, use: Mapping[str, str]) -> Routing:
    """The routing to a vocabulary's tokenizers."""
    return Routing({name: entry.spec.modality for name, entry in vocabulary.entries.items()}, use)
