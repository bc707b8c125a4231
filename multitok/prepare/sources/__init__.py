"""Raw sources: folders, JSONL and Parquet documents, WebDataset tars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multitok.errors import JobError
from multitok.prepare.routing import Routing
from multitok.prepare.sources.base import Findings, Item, Part, Rejected, Slice, Source
from multitok.prepare.sources.folder import FolderSource
from multitok.prepare.sources.jsonl import JsonlSource
from multitok.prepare.sources.parquet import ParquetSource
from multitok.prepare.sources.webdataset import WebDatasetSource

__all__ = ["Findings", "Item", "Part", "Rejected", "Slice", "Source", "open_sources"]

_CONTAINERS: dict[str, type[Source]] = {
    ".jsonl": JsonlSource,
    ".ndjson": JsonlSource,
    ".parquet": ParquetSource,
    ".tar": WebDatasetSource,
}


def open_sources(paths: Sequence[Path], routing: Routing, *, group_by_stem: bool) -> list[Source]:
    """The source behind each path; two of the same name are told apart by "#2".

    Raises:
        JobError: A path is missing or of no kind that can be read; names the remedy.
    """
    sources: list[Source] = []
    labels: dict[str, int] = {}
    for path in paths:
        name = path.name or "root"
        labels[name] = labels.get(name, 0) + 1
        label = name if labels[name] == 1 else f"{name}#{labels[name]}"
        sources.append(_open(path, label, routing, group_by_stem=group_by_stem))
    return sources


def _open(path: Path, label: str, routing: Routing, *, group_by_stem: bool) -> Source:
    if not path.exists():
        raise JobError(f"source {path} does not exist")
    suffix = path.suffix.lower()
    if path.is_dir():
        return FolderSource(path, label, routing, group_by_stem=group_by_stem)
    if suffix in _CONTAINERS:
        return _CONTAINERS[suffix](path, label, routing)
    inner = path.with_suffix("").suffix.lower() if suffix in (".gz", ".zst", ".bz2", ".xz") else suffix
    if inner in (*_CONTAINERS, ".tgz", ".tbz2", ".txz"):
        raise JobError(
            f"source {path} is compressed as a whole, so that no part of it can be read without all before it: "
            "unpack it first (gunzip, unzstd)"
        )
    if routing.takes_file(path.name):
        return FolderSource(path, label, routing, group_by_stem=False)
    raise JobError(
        f"source {path}: give a folder, {', '.join(_CONTAINERS)} or one media file; {routing.why_skipped(path.name)}"
    )
