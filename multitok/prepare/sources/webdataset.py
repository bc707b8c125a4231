"""WebDataset tars: consecutive members that share a key are one sample, hence one document.

    000.jpg 000.txt 001.jpg 001.txt       key = path up to the first dot of the file name

Segments stand in the order of their modalities (text first), then of their names. Members of unknown endings are
ignored and reported, and so is .json, which by WebDataset's custom describes a sample. Nothing is extracted. A slice
is a byte range between two samples, whose headers the worker reads again. What a tar should not hold lands in
quarantine with its sample: names that leave the folder, links, a name twice, a key whose members lie apart, a tar
that is cut short or damaged.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from multitok.errors import JobError
from multitok.prepare.sources.base import ITEM_COST_BYTES, Findings, Item, Part, Rejected, Slice, Source, stat_digest

if TYPE_CHECKING:
    from pathlib import Path

MAX_APART = 1000
METADATA = ".json"
_MAX_EXTRA_BYTES = 2**20
_EXTRA = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_WITH_DATA = (*tarfile.REGULAR_TYPES, *_EXTRA)


@dataclass(frozen=True, slots=True)
class _Member:
    """A tar member: its header's offset, its data's, and the offset of the next header."""

    name: str
    header: int
    data: int
    size: int
    stop: int
    problem: str | None


class WebDatasetSource(Source):
    """A `.tar` file."""

    kind = "webdataset"

    def identity(self) -> tuple[int, str]:
        """See `Source`."""
        return stat_digest(self.path)

    def plan(self, slice_bytes: int, listing: Path, findings: Findings) -> Iterator[Slice]:
        """See `Source`."""
        size = self.path.stat().st_size
        start, cost, seen = 0, 0, set[bytes]()
        with self.path.open("rb") as file:
            for key, members in self._samples(file, 0, size):
                first, last = members[0], members[-1]
                # What is wrong with the tar's end shows to the slice that reaches it: that slice is the last.
                if cost >= slice_bytes and first.header < size:
                    yield Slice(start, first.header, cost)
                    start, cost = first.header, 0
                cost += last.stop - first.header + ITEM_COST_BYTES
                for member in members:
                    if member.problem is None and not self._takes(member.name):
                        findings.skipped[self._why_skipped(member.name)] += 1
                if (digest := _digest(key)) in seen:
                    findings.notes.append(key)
                    if len(findings.notes) > MAX_APART:
                        raise JobError(
                            f"{self.path}: the members of more than {MAX_APART} samples lie apart (first {key!r}): "
                            "pack it again in order, with `tar --sort=name`"
                        )
                seen.add(digest)
        if cost:
            yield Slice(start, size, cost)

    def read(self, part: Slice, listing: Path, notes: frozenset[str]) -> Iterator[Item | Rejected]:
        """See `Source`."""
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < part.stop:
                raise JobError(f"{self.path} is shorter than planned ({part.stop} bytes)")
            for key, members in self._samples(file, part.start, part.stop):
                yield self._item(file, key, members, apart=key in notes)

    def _item(self, file: BinaryIO, key: str, members: list[_Member], *, apart: bool) -> Item | Rejected:
        item_id, place = f"{self.label}/{key}", f"byte {members[0].header}"
        problem = next((member.problem for member in members if member.problem), None)
        names = [member.name for member in members]
        twice = next((name for name in names if names.count(name) > 1), None)
        if problem is None and twice is not None:
            problem = f"two members are named {twice!r}"
        if problem is None and apart:
            problem = "the sample's members lie apart in the tar: pack it again in order, with `tar --sort=name`"
        taken = [member for member in members if problem is None and self._takes(member.name)]
        if problem is None and not taken:
            problem = f"no member has a known ending ({', '.join(names)})"
        if problem is not None:
            return Rejected(item_id, self.label, place, "InputError", problem)
        parts = []
        for member in sorted(taken, key=lambda member: (self.routing.rank(member.name), member.name)):
            file.seek(member.data)
            parts.append(Part(member.name, None, file.read(member.size)))
        return Item(item_id, self.label, place, tuple(parts))

    def _takes(self, name: str) -> bool:
        return not name.lower().endswith(METADATA) and self.routing.takes_file(name)

    def _why_skipped(self, name: str) -> str:
        return (
            f"{METADATA} (WebDataset metadata)" if name.lower().endswith(METADATA) else self.routing.why_skipped(name)
        )

    def _samples(self, file: BinaryIO, start: int, stop: int) -> Iterator[tuple[str, list[_Member]]]:
        key, members = "", list[_Member]()
        for member in _members(file, start, stop):
            of = _key(member.name)
            if members and of != key:
                yield key, members
                members = []
            key = of
            members.append(member)
        if members:
            yield key, members


def _members(file: BinaryIO, start: int, stop: int) -> Iterator[_Member]:
    """Members whose header lies in [start, stop), folders and hidden files left out.

    The iterator of `tarfile` ends in silence at a damaged header and keeps every member in memory; here damage
    is a last member with a problem, and nothing is kept.
    """
    size = os.fstat(file.fileno()).st_size
    at = header = start
    extra: dict[str, str] = {}
    while header < stop or stop == size:
        file.seek(at)
        block = file.read(tarfile.BLOCKSIZE)
        if block.count(0) == tarfile.BLOCKSIZE:
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            reason = f"damaged ({error}): the rest of the tar, {size - at} bytes, cannot be read"
            yield _Member(f"(byte {at})", header, at, 0, size, _cut_short(at, size) or f"the header here is {reason}")
            return
        data = at + tarfile.BLOCKSIZE
        num_bytes = int(extra.get("size", info.size))
        at = data + -(-num_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if info.type in _WITH_DATA else data
        if num_bytes < 0 or (info.type in _WITH_DATA and data + num_bytes > size):
            yield _Member(
                extra.get("path", info.name), header, data, 0, size, "the tar is cut short inside this member"
            )
            return
        if info.type in _EXTRA:
            # An extended header: the name, or the size, of the member that follows it.
            if num_bytes > _MAX_EXTRA_BYTES:
                problem = f"an extended header of {num_bytes} bytes: at most {_MAX_EXTRA_BYTES} are read"
                yield _Member(f"(byte {header})", header, data, 0, size, problem)
                return
            extra |= _extra(info.type, file.read(num_bytes))
            continue
        name = str(PurePosixPath(extra.get("path", info.name)))
        if not info.isdir() and not PurePosixPath(name).name.startswith("."):
            yield _Member(name, header, data, num_bytes, at, _problem(name, info))
        header, extra = at, {}


def _problem(name: str, info: tarfile.TarInfo) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return f"member name {name!r} leaves the tar's folder"
    if info.type not in tarfile.REGULAR_TYPES or info.type == tarfile.GNUTYPE_SPARSE:
        return f"member {name!r} is a link, a device or sparse: only plain files are read"
    return None


def _cut_short(at: int, size: int) -> str | None:
    return "the tar ends without its end marker: it is cut short" if size - at < tarfile.BLOCKSIZE else None


def _extra(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extended header says of the next member's name and size; global ones (comments) say nothing."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found = {}
    while kind == tarfile.XHDTYPE and data:
        # "%d key=value\n", where the number counts the whole record.
        length, _, rest = data.partition(b" ")
        if not length.isdigit() or int(length) <= len(length):
            break
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if key == b"path" or (key == b"size" and value.isdigit()):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


def _key(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0])) if "." in path.name else name


def _digest(key: str) -> bytes:
    # Eight bytes in place of the key: a tar may hold millions.
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
