"""Durable files: whatever stands under a final name is whole, hashed and on the disk.

A file is written under a temporary name of its own, flushed to the disk and renamed; then the folder is flushed.
No two writers share a temporary name, so a worker that outlives its job cannot damage the work of the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitok.errors import ShardError
from multitok.protocol import Json

TEMPORARY_SUFFIX = ".tmp"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileInfo:
    """What a finished file must look like.

    Args:
        name: Name inside its folder.
        size_bytes: Exact size.
        sha256: Hex digest of the content.
    """

    name: str
    size_bytes: int
    sha256: str

    def check_size(self, folder: Path) -> None:
        """Raise unless the file is there with its recorded size; costs one `stat`.

        Raises:
            ShardError: The file is missing, cut short or has grown; names both sizes.
        """
        path = folder / self.name
        try:
            found = path.stat().st_size
        except FileNotFoundError as error:
            raise ShardError(f"{path} is missing: copy the whole folder, or run prepare again") from error
        if found != self.size_bytes:
            raise ShardError(
                f"{path} has {found} bytes, its record says {self.size_bytes}: "
                "the file is cut short or altered; copy it again, or remove its shard's files and run prepare again"
            )

    def check_content(self, folder: Path) -> None:
        """Raise unless the file has its recorded size and sha256; reads the whole file.

        Raises:
            ShardError: Size or content differ; names both sides.
        """
        self.check_size(folder)
        path = folder / self.name
        found = sha256_file(path)
        if found != self.sha256:
            raise ShardError(
                f"{path} has sha256 {found}, its record says {self.sha256}: "
                "the content is altered; copy it again, or remove its shard's files and run prepare again"
            )

    def to_json(self) -> dict[str, Json]:
        """The record as JSON values; `from_json` inverts it."""
        return {"name": self.name, "size_bytes": self.size_bytes, "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FileInfo:
        """Rebuild a record from what `to_json` returned."""
        return cls(name=str(data["name"]), size_bytes=int(data["size_bytes"]), sha256=str(data["sha256"]))


class DurableFile:
    """A file being written: append only, hashed on the way, under a temporary name until `rename`.

    Args:
        path: The final name; nothing is there before `rename`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        self.size_bytes = 0
        self.closed = False
        self._digest = hashlib.sha256()
        self._file = open(self.temporary, "xb", buffering=_CHUNK_BYTES)  # noqa: SIM115  # lives as long as the writer

    def write(self, data: Any) -> int:
        """Append bytes (or anything with a contiguous buffer)."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._digest.update(view)
        self.size_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size_bytes

    def flush(self) -> None:
        """Hand buffered bytes to the operating system."""
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        """Declare the end of writing; the bytes reach the disk in `finish`."""
        self.closed = True

    def finish(self) -> FileInfo:
        """Flush to the disk, still under the temporary name, and return the file's record."""
        self.closed = True
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileInfo(self.path.name, self.size_bytes, self._digest.hexdigest())

    def rename(self) -> None:
        """Give the finished file its final name; durable once the folder is flushed."""
        os.replace(self.temporary, self.path)

    def discard(self) -> None:
        """Remove the file unless it was renamed; never raises, so that what ended the writing is what shows."""
        self.closed = True
        # Closing writes what is still buffered, which fails again where a full disk ended the writing.
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink()


def write_json(path: Path, data: dict[str, Json]) -> FileInfo:
    """Write canonical JSON (sorted keys, two spaces, UTF-8, one final newline), whole or not at all, durably."""
    file = DurableFile(path)
    try:
        file.write((json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
        info = file.finish()
        file.rename()
    except BaseException:
        file.discard()
        raise
    sync_folder(path.parent)
    return info


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What the file should be, for the message.
        remedy: What to do where it is not, for the message.
    Raises:
        ShardError: The file is missing or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ShardError(f"{path}, the {what}, is missing: {remedy}") from error
    except ValueError as error:
        raise ShardError(f"{path} is no {what} ({error}): {remedy}") from error
    if not isinstance(data, dict):
        raise ShardError(f"{path} is no {what} (a JSON {type(data).__name__}, not an object): {remedy}")
    return data


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
