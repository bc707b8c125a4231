"""`multitok decode`: codes, or a document of a prepared folder, to files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from multitok.codes_file import ItemInfo
    from multitok.protocol import Codes, Tokenizer


@click.command(name="decode")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), help="File (one item) or folder (several). [SOURCE.decoded]")
@click.option("--document", type=int, help="Which document of a prepared folder. [0]")
def command(source: Path, out: Path | None, document: int | None) -> None:
    """Turn a codes file, or one document of a prepared folder, back into raw files.

    \b
    multitok decode photo.jpg.codes --out back.png
    multitok decode shards/ --document 3 --out document-3/
    """
    if document is not None and not source.is_dir():
        raise click.UsageError(f"--document is for prepared folders; {source} is a file")
    items = _document_items(source, document or 0) if source.is_dir() else _file_items(source)
    for path in _write(items, out, source):
        click.echo(path)


_UNKNOWN_RATE_HZ = 8
_Stored = tuple[str, "Tokenizer[Any]", "Codes", "ItemInfo"]


def _file_items(path: Path) -> list[_Stored]:
    from multitok.codes_file import read_codes

    stored = read_codes(path)
    tokenizer = stored.load_tokenizer()
    return [(key, tokenizer, codes, info) for (key, codes), info in zip(stored.items, stored.about, strict=True)]


def _document_items(folder: Path, document: int) -> list[_Stored]:
    from multitok.cli.choose import prepared
    from multitok.codes_file import ItemInfo
    from multitok.errors import ShardError
    from multitok.interleave import Interleaver, Template

    shards, joint = prepared(folder)
    if not 0 <= document < len(shards):
        raise ShardError(f"{folder} has no document {document}: give 0 to {len(shards) - 1}")
    template = Template.from_json(shards.manifest.template)
    found = Interleaver(joint, template).decode(shards[document])
    tokenizers = joint.load_tokenizers({segment.name for segment in found.segments})
    return [(f"{i}-{s.name}", tokenizers[s.name], s.codes, ItemInfo()) for i, s in enumerate(found.segments)]


def _write(items: list[_Stored], out: Path | None, source: Path) -> list[Path]:
    from multitok.errors import InputError
    from multitok.frontend import media

    if len(items) == 1 and (out is None or not out.is_dir()):
        target = out or source.with_name(f"{source.name.removesuffix('.codes')}.decoded.{_ending(items[0])}")
        return [_write_one(target, items[0])]
    folder = out or source.with_name(f"{source.name.removesuffix('.codes')}.decoded")
    if media.modalities_of(folder.name) and not folder.is_dir():
        raise InputError(f"{source} decodes to {len(items)} items: give a folder as --out, not {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for i, item in enumerate(items):
        # Ids come from files, so that they may hold what a path must not.
        stem = re.sub(r"[^\w.-]+", "_", item[0]).lstrip(".")[:100] or str(i)
        numbered = stem if re.match(r"\d+-", stem) else f"{i}-{stem}"
        # Named in full: what follows the dot of an id (NM_000207.3) is no file ending.
        written.append(_write_one(folder / f"{numbered}.{_ending(item)}", item))
    return written


def _ending(item: _Stored) -> str:
    """That of the modality; a volume whose place is known goes to the format that keeps it."""
    from multitok.frontend import media

    _, tokenizer, _, info = item
    if info.place is not None and info.place.axes:
        return "nii.gz"
    return media.default_extension(tokenizer.spec.modality)


def _write_one(target: Path, item: _Stored) -> Path:
    from multitok.frontend import media
    from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer

    key, tokenizer, codes, info = item
    if isinstance(tokenizer, AudioStreamTokenizer):
        assert tokenizer.spec.sample_rate_hz is not None
        return media.write_audio(target, tokenizer.decode_chunks([codes]), tokenizer.spec.sample_rate_hz)
    raw, modality = tokenizer.decode(codes), tokenizer.spec.modality
    rate = float(info.frame_rate_hz or _UNKNOWN_RATE_HZ)
    return media.write(target, modality, raw, record_id=key or "sequence", place=info.place, frame_rate_hz=rate)
