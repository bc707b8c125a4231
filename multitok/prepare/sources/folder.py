"""Folders of files: one file is one document; or, grouped, the files of one stem are.

    photos/a.png photos/a.txt photos/b.png        three documents, or two with `group_by_stem`: (a.txt, a.png) (b.png)

A file of several records (FASTA) is a document for each of them. DICOM slices that lie in one folder are one item, a
document for each series; a `.zarr` folder is one item too. Files are taken in the order of their relative
paths. Hidden files and folders are left out. A link to a file counts as the file. Links to folders, links to nothing
and files of unknown endings are left out and reported, and so are .jsonl, .parquet and .tar: they are sources of
their own.

The plan is a listing, one JSON line a document: [["photos/a.txt", 12], ["photos/a.png", 3456]] (path, bytes).
A slice is a byte range of it, so neither planning nor reading holds more than one folder's names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from multitok.errors import JobError
from multitok.frontend.media.dicom import is_slice
from multitok.prepare.routing import Routing
from multitok.prepare.sources import item_folders
from multitok.prepare.sources.base import ITEM_COST_BYTES, Findings, Item, Part, Rejected, Slice, Source

CONTAINERS = {".jsonl", ".ndjson", ".parquet", ".tar"}


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    num_bytes: int
    modified_ns: int


class FolderSource(Source):
    """A folder, or a single media file."""

    kind = "folder"

    def __init__(self, path: Path, label: str, routing: Routing, *, group_by_stem: bool) -> None:
        super().__init__(path, label, routing)
        self.group_by_stem = group_by_stem

    @property
    def media_root(self) -> Path:
        """The folder that the listing's paths start from."""
        return self.path if self._is_folder else self.path.parent

    @property
    def _is_folder(self) -> bool:
        return self.path.is_dir() and not item_folders.is_zarr(self.path)

    def identity(self) -> tuple[int, str]:
        """See `Source`."""
        digest, total = hashlib.sha256(), 0
        for group in self._groups(Counter()):
            for file in group:
                total += file.num_bytes
                digest.update(json.dumps([file.path, file.num_bytes, file.modified_ns]).encode())
        return total, digest.hexdigest()

    def plan(self, slice_bytes: int, listing: Path, findings: Findings) -> Iterator[Slice]:
        """See `Source`."""
        start = stop = cost = 0
        with listing.open("wb") as lines:
            for group in self._groups(findings.skipped):
                kept = self._kept(group, findings)
                if not kept:
                    continue
                if cost >= slice_bytes:
                    yield Slice(start, stop, cost)
                    start, cost = stop, 0
                line = json.dumps([[file.path, file.num_bytes] for file in kept], separators=(",", ":")).encode()
                stop += lines.write(line + b"\n")
                cost += sum(file.num_bytes + ITEM_COST_BYTES for file in kept)
            lines.flush()
            os.fsync(lines.fileno())
        if cost:
            yield Slice(start, stop, cost)

    def read(self, part: Slice, listing: Path, notes: frozenset[str]) -> Iterator[Item | Rejected]:
        """See `Source`."""
        root = self.media_root
        with listing.open("rb") as lines:
            lines.seek(part.start)
            offset = part.start
            while offset < part.stop:
                line = lines.readline()
                offset += len(line)
                yield self._item(root, json.loads(line))

    def _item(self, root: Path, files: list[tuple[str, int]]) -> Item:
        first = files[0][0]
        place = _stem(first) if self.group_by_stem else first
        place = item_folders.place_of(place)
        parts = tuple(Part(name, None, item_folders.folder_of(root / name), num_bytes) for name, num_bytes in files)
        return Item(f"{self.label}/{place}", self.label, place, parts, by_record=not self.group_by_stem)

    def _kept(self, group: list[_File], findings: Findings) -> list[_File]:
        kept = []
        for file in group:
            ending = PurePosixPath(file.path).suffix.lower()
            if ending in CONTAINERS:
                findings.skipped[f"{ending} (give it as a source of its own)"] += 1
            elif self.routing.takes_file(file.path):
                kept.append(file)
            else:
                findings.skipped[self.routing.why_skipped(file.path)] += 1
        return sorted(kept, key=lambda file: (self.routing.rank(file.path), file.path))

    def _groups(self, skipped: Counter[str]) -> Iterator[list[_File]]:
        if not self._is_folder and self.path.is_dir():
            yield [_measured(self.path.parent, self.path.name)]
        elif not self._is_folder:
            status = self.path.stat()
            yield [_File(self.path.name, status.st_size, status.st_mtime_ns)]
        else:
            yield from _walk(self.path, "", skipped, by_stem=self.group_by_stem)


def _measured(root: Path, name: str) -> _File:
    return _File(name, *item_folders.measure(root / name))


def _walk(root: Path, prefix: str, skipped: Counter[str], *, by_stem: bool) -> Iterator[list[_File]]:
    """Files below `root / prefix`, in the order of their full relative paths, grouped; counts what is no file."""
    entries: dict[str, list[_File] | None] = {}
    try:
        with os.scandir(root / prefix) as found:
            for entry in found:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False) and item_folders.is_zarr(Path(entry.path)):
                    entries[name] = [_measured(root, name)]
                elif entry.is_dir(follow_symlinks=False):
                    # The slash makes the order of the names that of the paths below: "a.txt" < "a/b" < "ab".
                    entries[name + "/"] = None
                elif entry.is_file() and is_slice(Path(entry.path)):
                    slices = prefix + item_folders.SLICES
                    if slices not in entries:
                        entries[slices] = [_measured(root, slices)]
                elif entry.is_file():
                    status = entry.stat()
                    key = _stem(name) if by_stem else name
                    files = entries.setdefault(key, [])
                    assert files is not None
                    files.append(_File(name, status.st_size, status.st_mtime_ns))
                else:
                    skipped["links to folders" if entry.is_dir() else "broken links and special files"] += 1
    except OSError as error:
        raise JobError(
            f"{root / prefix} cannot be listed ({error.strerror}): make it readable, or leave it out"
        ) from error
    for name in sorted(entries):
        group = entries[name]
        if group is None:
            yield from _walk(root, name, skipped, by_stem=by_stem)
        else:
            yield sorted(group, key=lambda file: file.path)


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    path = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return str(path.with_suffix(""))
