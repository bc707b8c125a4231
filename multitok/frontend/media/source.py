"""Bytes under control: one item's content, in memory or in a file, unzipped and bounded.

Also the limits that keep a small hostile file from filling the memory, and the guard that turns whatever a
decoder raises into a `MediaError`.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from multitok.errors import InputError, MediaError, MultitokError
from multitok.frontend.media.kinds import HEAD_BYTES

# The content itself, or the path of the file that holds it.
Data: TypeAlias = "bytes | str | os.PathLike[str]"

_CHUNK_BYTES = 1 << 20
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large an item may be. What is larger is refused before it is decoded, with an `InputError`.

    Args:
        max_bytes: Of the file, of its unzipped content, and of the decoded array.
        max_text_bytes: Of a text, a series table or a file of sequences.
        max_pixels: Of one image or of one frame; the default is where Pillow too stops.
        max_frames: Of one video.
        max_audio_s: Seconds of sound.
    """

    max_bytes: int = 4 << 30
    max_text_bytes: int = 64 << 20
    max_pixels: int = 178_956_970
    max_frames: int = 65_536
    max_audio_s: float = 14_400.0


@dataclass(frozen=True)
class Source:
    """One item's bytes, where they come from, and what may be read of them.

    Args:
        data: The bytes, or the path of the file that holds them.
        name: For messages, and for its extension.
        limits: How large the item may be.
    """

    data: bytes | Path
    name: str
    limits: Limits

    @property
    def is_folder(self) -> bool:
        """True for a folder, which is an item where it holds DICOM slices or a Zarr array."""
        return isinstance(self.data, Path) and self.data.is_dir()

    @property
    def is_gzipped(self) -> bool:
        """True where the name ends in `.gz`."""
        return self.name.lower().endswith(".gz")

    def open(self) -> BinaryIO:
        """A seekable file of the unzipped content, from its start. The caller closes it.

        Raises:
            InputError: The content is larger than `limits.max_bytes`.
            MediaError: The gzip stream is damaged.
            OSError: The path cannot be read.
        """
        if self.is_gzipped:
            return io.BytesIO(self.read())
        file: BinaryIO = io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data.open("rb")
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size > self.limits.max_bytes:
            file.close()
            raise InputError(f"{self.name}: {size:,} bytes; the limit is max_bytes={self.limits.max_bytes:,}")
        return file

    def read(self, num_bytes: int | None = None) -> bytes:
        """The unzipped content, or its first `num_bytes`.

        Raises:
            InputError: The content is larger than `limits.max_bytes`.
            MediaError: The gzip stream is damaged.
            OSError: The path cannot be read.
        """
        if self.is_gzipped:
            return self._unzip(num_bytes)
        if isinstance(self.data, bytes) and num_bytes is None and len(self.data) <= self.limits.max_bytes:
            return self.data
        with self.open() as file:
            return file.read(-1 if num_bytes is None else num_bytes)

    def head(self) -> bytes:
        """The first `HEAD_BYTES` of the unzipped content."""
        return self.read(HEAD_BYTES)

    def read_text(self) -> str:
        """The content as text, unchanged: line ends and a byte order mark stay.

        Raises:
            InputError: Larger than `limits.max_text_bytes`.
            MediaError: Not UTF-8.
        """
        limit = min(self.limits.max_text_bytes, self.limits.max_bytes)
        data = self.read(limit + 1)
        if len(data) > limit:
            raise InputError(f"{self.name}: more than max_text_bytes={limit:,} bytes of text; split the file")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            hint = "; it looks like UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
            raise MediaError(
                f"{self.name}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,} "
                f"({error.reason}){hint}; convert the file to UTF-8"
            ) from error

    def _unzip(self, num_bytes: int | None) -> bytes:
        limit = self.limits.max_bytes
        wanted = limit + 1 if num_bytes is None else num_bytes
        file: BinaryIO = io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data.open("rb")
        parts: list[bytes] = []
        left = wanted
        with file, guarded(self.name, "gzip data"), gzip.GzipFile(fileobj=file) as unzipped:
            while left and (part := unzipped.read(min(left, _CHUNK_BYTES))):
                parts.append(part)
                left -= len(part)
        if num_bytes is None and not left:
            raise InputError(f"{self.name}: unzips to more than max_bytes={limit:,}")
        return b"".join(parts)


@contextmanager
def guarded(name: str, label: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a `MediaError` that names the file and what it was read as.

    Decoders of foreign bytes raise nearly everything (struct.error, KeyError, SyntaxError, RuntimeError ...);
    which, is an accident of their implementation, so all are caught. Our own errors pass unchanged.

    Args:
        name: The file's name.
        label: What the bytes were read as, "PNG image".

    Yields:
        Nothing.

    Raises:
        MediaError: The block raised an `Exception`.
    """
    try:
        yield
    except MultitokError:
        raise
    except (EOFError, zlib.error) as error:
        raise MediaError(f"{name}: {label} is cut short or damaged: {_reason(error)}") from error
    except Exception as error:
        raise MediaError(f"{name}: cannot be decoded as {label}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # No addresses of objects: a job that runs twice has to give the same reason twice.
    words = " ".join(_ADDRESS.sub("<...>", str(error)).split()) or type(error).__name__
    return words[:200]


def check_size(name: str, what: str, num_bytes: int, limits: Limits) -> None:
    """Refuse an item whose decoded array would be too large.

    Args:
        name: The file's name.
        what: Its size in words, "4,000 frames of 640 x 480".
        num_bytes: Bytes of the decoded array.
        limits: What is allowed.

    Raises:
        InputError: `num_bytes` is above `limits.max_bytes`.
    """
    if num_bytes > limits.max_bytes:
        raise InputError(
            f"{name}: {what} would take {num_bytes:,} bytes decoded; the limit is max_bytes={limits.max_bytes:,}"
        )


def as_source(data: Data, name: str, limits: Limits) -> Source:
    """Wrap what a caller gave; the name defaults to the path's."""
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        return Source(path, name or path.name, limits)
    if not isinstance(data, bytes):
        raise InputError(f"data of type {type(data).__name__}: give bytes, or a path")
    return Source(data, name or "data", limits)
