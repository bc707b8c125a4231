"""Is the file whole? What the decoders do not ask: they read what is there and say nothing about the rest.

| format | what is compared                                                             |
|--------|------------------------------------------------------------------------------|
| PNG    | every chunk with its checksum, up to IEND                                    |
| WebP   | the RIFF size with the file                                                  |
| BMP    | the size in its header with the file                                         |
| GIF    | every block, up to the trailer                                               |
| WAV    | the data chunk (or RF64's ds64) with the file; a stream's 2^32 - 1 passes    |
| AIFF   | every chunk with the file                                                    |
| Ogg    | every page with the file                                                     |
| AVI    | every RIFF chunk of the outermost level with the file                        |
| MP4    | every box of the outermost level with the file                               |
| WMA    | the size in its header with the file                                         |
| MKV    | the segment's size with the file; a stream's "unknown" passes                |

The other formats' decoders compare announced with found themselves, or the reader does it afterwards.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from multitok.errors import InputError, MediaError


def check_whole(name: str, file: BinaryIO, format_name: str) -> None:
    """Refuse a file that ends before its own structure does. Leaves the file at its start.

    Args:
        name: The file's name, for messages.
        file: Seekable.
        format_name: `Format.name`; formats not in the table above pass.

    Raises:
        InputError: A WAV header with a sample rate of 0.
        MediaError: Cut short, or a checksum differs.
    """
    check = _CHECKS.get(format_name)
    if check is not None:
        check(name, file)
    file.seek(0)


def png_chunks(name: str, file: BinaryIO, *, check: bool) -> Iterator[bytes]:
    """Names of a PNG's chunks up to IEND.

    Args:
        name: The file's name, for messages.
        file: Seekable.
        check: Read the chunks' bodies too and compare their checksums.

    Yields:
        One name, such as b"IDAT".

    Raises:
        MediaError: Cut short, or a checksum differs.
    """
    position, kind = 8, b""
    while kind != b"IEND":
        header = _at(file, position, 8)
        if len(header) < 8:
            raise MediaError(f"{name}: PNG image is cut short: no chunk begins at byte {position:,}, and no IEND came")
        size, kind = struct.unpack(">I4s", header)
        if check:
            body, checksum = file.read(size), file.read(4)
            if len(body) < size or len(checksum) < 4:
                raise MediaError(
                    f"{name}: PNG image is cut short: chunk {kind!r} at byte {position:,} has {size:,} bytes and a "
                    f"checksum, {len(body) + len(checksum):,} of {size + 4:,} are there"
                )
            if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
                raise MediaError(
                    f"{name}: PNG image is damaged: the checksum of chunk {kind!r} at byte {position:,} differs"
                )
        yield kind
        position += size + 12


def _check_png(name: str, file: BinaryIO) -> None:
    for _ in png_chunks(name, file, check=True):
        pass


def _check_webp(name: str, file: BinaryIO) -> None:
    announced = int.from_bytes(_at(file, 4, 4), "little") + 8
    found = file.seek(0, 2)
    if found < announced:
        raise MediaError(f"{name}: WebP image is cut short: {announced:,} bytes announced, {found:,} found")


def _check_bmp(name: str, file: BinaryIO) -> None:
    announced = int.from_bytes(_at(file, 2, 4), "little")
    found = file.seek(0, 2)
    if found < announced:
        raise MediaError(f"{name}: BMP image is cut short: {announced:,} bytes announced, {found:,} found")


def _check_gif(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)

    def byte(at: int) -> int:
        if at >= size_of_file:
            raise MediaError(f"{name}: GIF image is cut short: it ends at byte {size_of_file:,} without a trailer")
        return _at(file, at, 1)[0]

    def past_palette(at: int, flags: int) -> int:
        return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    def past_blocks(at: int) -> int:
        while size := byte(at):
            at += 1 + size
        return at + 1

    position = past_palette(13, byte(10))
    while (kind := byte(position)) != 0x3B:  # trailer
        position += 1
        if kind == 0x21:  # extension: a label, then blocks
            position = past_blocks(position + 1)
        elif kind == 0x2C:  # frame: place, size and flags, maybe a palette, the code size, then blocks
            position = past_blocks(past_palette(position + 9, byte(position + 8)) + 1)


def _check_wav(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    order = ">" if _at(file, 0, 4) == b"RIFX" else "<"
    position, kind, size, wide_size = 12, b"", 0, 0
    while kind != b"data":
        header = _at(file, position, 8)
        if len(header) < 8:
            raise MediaError(f"{name}: WAV audio is cut short: no data chunk in its {size_of_file:,} bytes")
        kind, size = struct.unpack(f"{order}4sI", header)
        position += 8
        if kind == b"ds64":
            wide_size = int.from_bytes(_at(file, position + 8, 8), "little")
        if kind == b"fmt " and _at(file, position + 4, 4) == bytes(4):
            raise InputError(f"{name}: a sample rate of 0 Hz")
        position += 0 if kind == b"data" else size + size % 2
    found = size_of_file - position
    announced = size if size < 0xFFFFFFFF else wide_size or found  # a pipe's header announces nothing
    if found and not announced:
        raise MediaError(f"{name}: WAV audio is cut short: no samples announced, but {found:,} bytes follow the header")
    if found < announced:
        raise MediaError(f"{name}: WAV audio is cut short: {announced:,} bytes of samples announced, {found:,} found")


def _check_aiff(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    position = 12
    while len(header := _at(file, position, 8)) == 8:
        kind, size = struct.unpack(">4sI", header)
        found = size_of_file - position - 8
        if found < size:
            raise MediaError(
                f"{name}: AIFF audio is cut short: chunk {kind!r} at byte {position:,} announces {size:,} bytes, "
                f"{found:,} are there"
            )
        position += 8 + size + size % 2


def _check_ogg(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    position = 0
    while position < size_of_file:
        header = _at(file, position, 27)
        lacing = file.read(header[26]) if len(header) == 27 else b""
        end = position + 27 + len(lacing) + sum(lacing)
        if not b"OggS".startswith(header[:4]):
            raise MediaError(f"{name}: Ogg audio is damaged: no page begins at byte {position:,}")
        if len(header) < 27 or len(lacing) < header[26] or end > size_of_file:
            raise MediaError(f"{name}: Ogg audio is cut short inside the page that begins at byte {position:,}")
        position = end


def _check_avi(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    position = 0
    while _at(file, position, 4) == b"RIFF":
        position += 8 + int.from_bytes(file.read(4), "little")
        if position > size_of_file:
            raise MediaError(f"{name}: AVI video is cut short: {position:,} bytes announced, {size_of_file:,} found")


def _check_iso(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    position = 0
    while len(header := _at(file, position, 16)) >= 8:
        size = int.from_bytes(header[:4], "big")
        size = int.from_bytes(header[8:], "big") if size == 1 else size or size_of_file - position  # 0: to the end
        if size < 8 or position + size > size_of_file:
            raise MediaError(
                f"{name}: MP4 video is cut short or damaged: box {header[4:8]!r} at byte {position:,} announces "
                f"{size:,} bytes, {size_of_file - position:,} are there"
            )
        position += size


def _check_matroska(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    position = 4  # behind the id of the EBML header
    for _ in ("header", "segment"):
        first = int.from_bytes(_at(file, position, 1), "big")
        width = 9 - first.bit_length()  # a size's length in bytes is told by its leading zeros
        size = int.from_bytes(_at(file, position, width), "big") & ~(1 << 7 * width)
        if first == 0 or position + width > size_of_file:
            raise MediaError(f"{name}: Matroska video is cut short or damaged at byte {position:,}")
        if size == (1 << 7 * width) - 1:
            return
        position += width + size
        if position > size_of_file:
            raise MediaError(
                f"{name}: Matroska video is cut short: {position:,} bytes announced, {size_of_file:,} found"
            )
        position += 4


def _check_asf(name: str, file: BinaryIO) -> None:
    size_of_file = file.seek(0, 2)
    # Objects of the header: 16 bytes of name, 8 of size; that of the file's properties announces the file's size.
    position, end = 30, int.from_bytes(_at(file, 16, 8), "little")
    while position + 48 <= min(end, size_of_file):
        kind, size = _at(file, position, 16), int.from_bytes(file.read(8), "little")
        if kind == _ASF_PROPERTIES:
            announced = int.from_bytes(_at(file, position + 40, 8), "little")
            if announced > size_of_file:
                raise MediaError(
                    f"{name}: WMA audio is cut short: {announced:,} bytes announced, {size_of_file:,} found"
                )
        position += max(size, 24)


def _at(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    file.seek(position)
    return file.read(num_bytes)


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_CHECKS = {
    "asf": _check_asf,
    "png": _check_png,
    "webp": _check_webp,
    "bmp": _check_bmp,
    "gif": _check_gif,
    "wav": _check_wav,
    "aiff": _check_aiff,
    "ogg": _check_ogg,
    "avi": _check_avi,
    "iso": _check_iso,
    "matroska": _check_matroska,
}
