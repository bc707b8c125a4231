"""DNA and protein sequences: FASTA (`.fa`, `.fasta`, `.fna`, `.faa`), or the bare letters -> `str`.

A record's id is the first word of its `>` line. Line ends and blanks inside a sequence are dropped, case and letters
kept as they are: which letters are allowed is the tokenizer's matter.
"""

from __future__ import annotations

from collections.abc import Iterator

from multitok.errors import InputError, MediaError
from multitok.frontend.media.source import Source


def decode_records(source: Source) -> Iterator[tuple[str, str]]:
    """The sequences of a file, in order.

    Args:
        source: Where the bytes are.

    Yields:
        A record's id ("" without a `>` line) and its letters.

    Raises:
        InputError: A record, or the file, has no letters.
        MediaError: Not text, or not ASCII.
    """
    text = source.read_text()
    if not text.isascii():
        offset = next(i for i, letter in enumerate(text) if not letter.isascii())
        raise MediaError(f"{source.name}: {text[offset]!r} at character {offset:,}: sequences are plain ASCII letters")
    if "\0" in text:
        raise MediaError(f"{source.name}: a zero byte at offset {text.index(chr(0)):,}: this is no sequence file")
    before, *records = ("\n" + text).split("\n>")
    letters = "".join(before.split())
    if letters or not records:
        yield "", _filled(source.name, "", letters)
    for record in records:
        title, _, lines = record.partition("\n")
        record_id = next(iter(title.split()), "")
        yield record_id, _filled(source.name, record_id, "".join(lines.split()))


def _filled(name: str, record_id: str, letters: str) -> str:
    if not letters:
        raise InputError(f"{name}: {f'record {record_id!r}' if record_id else 'the file'} has no letters")
    return letters
