"""JSONL documents: one JSON object a line, in either of two forms.

    {"id": "a1", "segments": [{"text": "A cat."}, {"image": "cats/1.png"}, {"text": "And a dog."}]}
    {"id": "a1", "text": "A cat.", "image": "cats/1.png"}        segments in the order of the keys

Keys are modalities or tokenizer names; in the flat form other keys are ignored. A document with a segment that no
tokenizer takes is refused, never shortened. Text and biological sequences
stand in place; everything else is a path relative to the JSONL's own folder, which it may not leave.
A slice is a byte range that starts and ends at line starts, found by seeking: planning does not read the file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from multitok.errors import InputError, JobError
from multitok.prepare.routing import INLINE, Routing
from multitok.prepare.sources.base import ITEM_COST_BYTES, Findings, Item, Part, Rejected, Slice, Source, stat_digest

MAX_LINE_BYTES = 256 * 2**20
_SAMPLE_LINES = 32


class JsonlSource(Source):
    """A `.jsonl` or `.ndjson` file."""

    kind = "jsonl"

    def identity(self) -> tuple[int, str]:
        """See `Source`."""
        return stat_digest(self.path)

    def plan(self, slice_bytes: int, listing: Path, findings: Findings) -> Iterator[Slice]:
        """See `Source`."""
        size = self.path.stat().st_size
        line_share = self._line_share()
        step = max(1, int(slice_bytes * line_share))
        start = 0
        with self.path.open("rb") as file:
            while start < size:
                stop = size if start + step >= size else _next_line(file, start + step - 1, size)
                yield Slice(start, stop, int((stop - start) / line_share))
                start = stop

    def read(self, part: Slice, listing: Path, notes: frozenset[str]) -> Iterator[Item | Rejected]:
        """See `Source`."""
        with self.path.open("rb") as file:
            file.seek(part.start)
            offset = part.start
            while offset < part.stop:
                line = file.readline(MAX_LINE_BYTES + 1)
                if not line:
                    raise JobError(f"{self.path} ends at byte {offset}, but was planned up to {part.stop}")
                number, offset = offset, offset + len(line)
                if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    offset = _next_line(file, offset, part.stop)
                    file.seek(offset)
                    yield self._rejected(number, f"the line is longer than {MAX_LINE_BYTES} bytes")
                elif line.strip():
                    yield self._item(line, number)

    def _item(self, line: bytes, offset: int) -> Item | Rejected:
        try:
            data = json.loads(line.rstrip())
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, UnicodeDecodeError) else f"{error}".partition(": line ")[0]
            return self._rejected(offset, f"not a line of JSON: {reason}")
        if not isinstance(data, dict):
            return self._rejected(offset, f"a document is a JSON object, this line is {_type_name(data)}")
        name = data.get("id")
        item_id = f"{self.label}:{offset}" if name is None else str(name)
        try:
            parts = tuple(self._part(key, value, offset) for key, value in self._segments(data))
        except InputError as error:
            return Rejected(item_id, self.label, f"byte {offset}", type(error).__name__, str(error))
        return Item(item_id, self.label, f"byte {offset}", parts)

    def _segments(self, data: dict[str, Any]) -> list[tuple[str, Any]]:
        if "segments" not in data:
            found = [(key, value) for key, value in data.items() if self.routing.is_key(key) and value is not None]
            if not found:
                raise InputError(
                    f"the document has none of the keys that mean a segment; its keys are {', '.join(data) or 'none'}"
                )
            return found
        segments = data["segments"]
        if not isinstance(segments, list) or not segments:
            raise InputError(f"segments is {_type_name(segments)}: give a list of at least one object")
        found = []
        for number, segment in enumerate(segments):
            if not isinstance(segment, dict):
                raise InputError(f"segment {number} is {_type_name(segment)}: give an object such as {{'text': '...'}}")
            keys = [key for key in segment if self.routing.is_key(key)]
            if len(keys) != 1:
                raise InputError(
                    f"segment {number} has the keys {', '.join(segment) or 'none'}: "
                    "give exactly one modality or tokenizer name"
                )
            found.append((keys[0], segment[keys[0]]))
        return found

    def _part(self, key: str, value: Any, offset: int) -> Part:
        return part_of(self.routing, self.media_root, key, value, f"{self.label}:{offset}")

    def _rejected(self, offset: int, message: str) -> Rejected:
        return Rejected(f"{self.label}:{offset}", self.label, f"byte {offset}", "InputError", message)

    def _line_share(self) -> float:
        """Bytes of the lines over bytes of lines and the files they refer to, from the first few lines."""
        lines = files = 0
        with self.path.open("rb") as file:
            for _ in range(_SAMPLE_LINES):
                line = file.readline(MAX_LINE_BYTES)
                item = self._item(line, 0) if line.strip() else None
                lines += len(line)
                for part in item.parts if isinstance(item, Item) else ():
                    if isinstance(part.content, Path):
                        # What cannot be read is for the worker to quarantine.
                        with contextlib.suppress(OSError):
                            files += part.content.stat().st_size + ITEM_COST_BYTES
        return lines / (lines + files) if lines else 1.0


def part_of(routing: Routing, root: Path, key: str, value: Any, name: str) -> Part:
    """The part that a document means by a key (or column) and a value: inline text, or a file below `root`.

    Raises:
        InputError: The value is of the wrong type, or a path that leaves `root`.
    """
    tokenizer = routing.of_key(key)
    if not isinstance(value, str):
        raise InputError(f"{key} is {_type_name(value)}: give a string")
    if routing.modalities[tokenizer] in INLINE:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(f"{key} holds half of a surrogate pair, which is no character") from None
        return Part(name, tokenizer, value)
    return Part(value, tokenizer, inside(root, value))


def inside(root: Path, reference: str) -> Path:
    """The file that a relative reference means, which may not leave `root`.

    Raises:
        InputError: It is empty, absolute, or climbs out by `..`.
    """
    parts = PurePosixPath(reference).parts
    if not parts or "\0" in reference or parts[0] == "/" or ".." in parts:
        raise InputError(f"path {reference!r}: give a path relative to the document file's folder, without '..'")
    return root / reference


def _next_line(file: BinaryIO, position: int, stop: int) -> int:
    """Where the first line after `position` starts, at most `stop`."""
    file.seek(position)
    while position < stop:
        block = file.read(2**16)
        if not block:
            break
        at = block.find(b"\n")
        if at >= 0:
            return min(position + at + 1, stop)
        position += len(block)
    return stop


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
