"""The plan: which shard holds which slices of which source. Deterministic, compact, blind to the worker count.

    out/plan.json                    settings, sources, and per shard [[source, start, stop, bytes], ...]
    out/source-00000.files.jsonl     listing of a folder source, one line a document
    out/sources.json                 where the sources lay, and digests of their sizes and times

`plan.json` and the listings hold no absolute path and no time, so equal inputs give equal plans on any machine;
`sources.json` is the one file of an output that belongs to this machine: it lets a resumed job notice that
sources changed, and `verify` find them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from multitok.checkpoint import sha256_json
from multitok.errors import JobError, ShardError
from multitok.prepare.sources import Findings, Slice, Source
from multitok.protocol import Json
from multitok.shards.files import DurableFile, FileInfo, read_json, sha256_file, sync_folder, write_json

FORMAT_VERSION = 1
PLAN, SOURCES = "plan.json", "sources.json"


def listing_name(source: int) -> str:
    """Name of a folder source's listing."""
    return f"source-{source:05d}.files.jsonl"


@dataclass(frozen=True)
class PlannedSource:
    """A source as the plan records it.

    Args:
        kind: "folder", "jsonl", "parquet" or "webdataset".
        label: Its name in IDs and messages.
        num_bytes: Size of its files.
        skipped: What was left out, and how often.
        notes: What reading needs to know besides the slices.
        listing: The listing, for a folder.
    """

    kind: str
    label: str
    num_bytes: int
    skipped: Mapping[str, int]
    notes: tuple[str, ...]
    listing: FileInfo | None

    def to_json(self) -> dict[str, Json]:
        """The record as JSON values; `from_json` inverts it."""
        return {
            "kind": self.kind,
            "label": self.label,
            "num_bytes": self.num_bytes,
            "skipped": dict(self.skipped),
            "notes": list(self.notes),
            "listing": None if self.listing is None else self.listing.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlannedSource:
        """Rebuild a record from what `to_json` returned."""
        listing = None if data["listing"] is None else FileInfo.from_json(data["listing"])
        return cls(data["kind"], data["label"], data["num_bytes"], dict(data["skipped"]), tuple(data["notes"]), listing)


@dataclass(frozen=True)
class Plan:
    """What a job does.

    Args:
        settings: Everything besides the sources that the output depends on, as JSON values.
        sources: In the order given.
        shards: Per shard, (source, slice) pairs in order.
    """

    settings: Mapping[str, Json]
    sources: tuple[PlannedSource, ...]
    shards: tuple[tuple[tuple[int, Slice], ...], ...]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of the plan."""
        return sha256_json({**self._header(), "shards": [_slices_json(shard) for shard in self.shards]})

    @property
    def skipped(self) -> dict[str, int]:
        """What all sources left out, and how often."""
        return dict(sum((Counter(source.skipped) for source in self.sources), Counter()))

    def num_bytes(self, shard: int) -> int:
        """Input bytes that a shard stands for, as estimated when it was planned."""
        return sum(part.num_bytes for _, part in self.shards[shard])

    def save(self, folder: Path) -> None:
        """Write `plan.json`: one line a shard, whole or not at all."""
        lines = ",\n    ".join(json.dumps(_slices_json(shard)) for shard in self.shards)
        header = json.dumps(self._header(), indent=2, sort_keys=True, ensure_ascii=False)
        file = DurableFile(folder / PLAN)
        try:
            file.write(f'{header[:-2]},\n  "shards": [\n    {lines}\n  ]\n}}\n'.encode())
            file.finish()
            file.rename()
        except BaseException:
            file.discard()
            raise
        sync_folder(folder)

    @classmethod
    def load(cls, folder: Path) -> Plan | None:
        """Read the plan of an output folder; None where it has none.

        Raises:
            JobError: The plan is of another version, or a field of it cannot be.
            ShardError: It is no JSON object, as when it was cut short.
        """
        path = folder / PLAN
        if not path.exists():
            return None
        data = read_json(path, "job plan", "copy it back, or prepare into a new folder")
        if data.get("format_version") != FORMAT_VERSION:
            raise JobError(
                f"{path} has format_version {data.get('format_version')!r}, this multitok reads {FORMAT_VERSION}: "
                "finish the job with the version that began it, or prepare into a new folder"
            )
        try:
            shards = tuple(
                tuple((source, Slice(start, stop, num_bytes)) for source, start, stop, num_bytes in shard)
                for shard in data["shards"]
            )
            return cls(data["settings"], tuple(PlannedSource.from_json(s) for s in data["sources"]), shards)
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"{path} is damaged ({error!r}): prepare into a new folder") from error

    def _header(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "settings": dict(self.settings),
            "sources": [source.to_json() for source in self.sources],
        }


def make_plan(sources: Sequence[Source], settings: Mapping[str, Json], shard_bytes: int, out: Path) -> Plan:
    """Plan a job and write it to `out`, `plan.json` last.

    Args:
        sources: What to read.
        settings: See `Plan`.
        shard_bytes: Input bytes a shard aims at.
        out: An existing folder.
    Returns:
        The plan.
    Raises:
        JobError: A source cannot be used, or none holds anything.
    """
    planned: list[PlannedSource] = []
    slices: list[tuple[int, Slice]] = []
    places: list[Json] = []
    for number, source in enumerate(sources):
        listing, findings = out / listing_name(number), Findings()
        num_bytes, digest = source.identity()
        slices += [(number, part) for part in source.plan(shard_bytes, listing, findings)]
        file = FileInfo(listing.name, listing.stat().st_size, sha256_file(listing)) if listing.exists() else None
        skipped = dict(sorted(findings.skipped.items()))
        planned.append(
            PlannedSource(source.kind, source.label, num_bytes, skipped, tuple(sorted(set(findings.notes))), file)
        )
        places.append({"path": str(source.path), "digest": digest})
    plan = Plan(dict(settings), tuple(planned), tuple(_pack(slices, shard_bytes)))
    if not plan.shards:
        left_out = "; ".join(f"{count} x {what}" for what, count in plan.skipped.items())
        raise JobError(
            f"nothing to prepare in {', '.join(str(source.path) for source in sources)}"
            + (f"; left out: {left_out}" if left_out else ": no files")
        )
    write_json(out / SOURCES, {"sources": places})
    plan.save(out)
    return plan


def check_plan(plan: Plan, sources: Sequence[Source], settings: Mapping[str, Json], out: Path) -> None:
    """Raise unless the job in `out` is the one that these sources and settings ask for.

    Raises:
        JobError: Names what differs, and both values.
    """
    differing = [
        f"{key} was {_short(plan.settings.get(key))}, now {_short(settings.get(key))}"
        for key in sorted({*plan.settings, *settings})
        if plan.settings.get(key) != settings.get(key)
    ]
    if differing:
        raise JobError(
            f"{out} holds a job with other settings: {'; '.join(differing)}. Run it with its own settings, "
            "or prepare into a new folder"
        )
    before = [(source.kind, source.label) for source in plan.sources]
    now = [(source.kind, source.label) for source in sources]
    if before != now:
        raise JobError(
            f"{out} holds a job on the sources {_names(before)}; now given are {_names(now)}. "
            "Give the same sources in the same order, or prepare into a new folder"
        )
    for recorded, place, source in zip(plan.sources, source_places(out), sources, strict=True):
        if recorded.listing is not None:
            try:
                recorded.listing.check_content(out)
            except ShardError as error:
                raise JobError(
                    f"{out / recorded.listing.name} is missing or not the listing that {PLAN} records: "
                    "copy it back, or prepare into a new folder"
                ) from error
        num_bytes, digest = source.identity()
        if (num_bytes, digest) != (recorded.num_bytes, place["digest"]):
            what = "files" if recorded.kind == "folder" else "file"
            sizes = f"{recorded.num_bytes} bytes then, {num_bytes} now"
            detail = sizes if num_bytes != recorded.num_bytes else f"equal size, other modification time of its {what}"
            raise JobError(
                f"source {source.path} changed since the job began ({detail}): shards written before and after would "
                "not fit together. Bring it back as it was, or prepare into a new folder"
            )


def source_places(out: Path) -> list[dict[str, Any]]:
    """Path and digest of each source of the job in `out`, on the machine that began it."""
    remedy = "copy it back, or prepare into a new folder"
    return list(read_json(out / SOURCES, "list of sources", remedy)["sources"])


def _pack(slices: Sequence[tuple[int, Slice]], shard_bytes: int) -> Iterator[tuple[tuple[int, Slice], ...]]:
    """Put slices that are small, because their sources are, together."""
    shard: list[tuple[int, Slice]] = []
    cost = 0
    for number, part in slices:
        if shard and cost + part.num_bytes > shard_bytes:
            yield tuple(shard)
            shard, cost = [], 0
        shard.append((number, part))
        cost += part.num_bytes
    if shard:
        yield tuple(shard)


def _slices_json(shard: Sequence[tuple[int, Slice]]) -> list[Json]:
    return [[number, part.start, part.stop, part.num_bytes] for number, part in shard]


def _names(sources: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{label} ({kind})" for kind, label in sources)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else text[:77] + "..."
