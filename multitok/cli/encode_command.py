"""`multitok encode`: a file to codes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.cli.messages import print_error
from multitok.cli.options import as_read_options, reading_options

if TYPE_CHECKING:
    from multitok.frontend.media import Limits, ReadOptions
    from multitok.protocol import Codes, Modality, Tokenizer

STDIN = Path("-")


@click.command(name="encode")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--with", "source", metavar="TOKENIZER", help="Checkpoint name, folder or kind; default: by modality.")
@click.option("--out", type=click.Path(path_type=Path), help="Codes file to write, for one input. [INPUT.codes]")
@click.option("--print", "print_codes", is_flag=True, help="Print the codes as JSON lines, write no file.")
@click.option("--frame", type=click.IntRange(0), help="Frame or page of a picture to encode as an image, from 0.")
@reading_options
def command(
    inputs: tuple[Path, ...],
    source: str | None,
    out: Path | None,
    print_codes: bool,
    frame: int | None,
    limits: dict[str, int],
    **reading: Any,
) -> None:
    """Turn files into codes; `-` reads standard input: text, or the content of a media file.

    An input that cannot be read is named, the others are encoded, and the exit status is 1.

    \b
    multitok encode photo.jpg                       writes photo.jpg.codes
    multitok encode genes.fa --with dna-6mer        every record of the file
    multitok encode clip.mp4 --fps 8                8 frames a second
    multitok encode clip.mp4 --with dmel-80hz       its sound track
    multitok encode ct/ --window -160:240           a folder of DICOM slices
    echo "Hello" | multitok encode - --print        {"id": "", "codes": [[...]]}
    """
    from multitok.errors import InputError

    if out is not None and len(inputs) > 1:
        raise click.BadParameter(f"one file cannot hold the codes of {len(inputs)} inputs", param_hint="--out")
    if STDIN in inputs and out is None and not print_codes:
        raise click.UsageError("standard input has no file name: give --out FILE or --print")
    from multitok.frontend.media import Limits

    options, bounds = replace(as_read_options(**reading), frame=frame), Limits(**limits)
    num_failed = 0
    for path in inputs:
        try:
            _encode_one(path, source, out, print_codes, options, bounds)
        except BrokenPipeError:
            raise
        except (InputError, OSError) as error:
            print_error(error)
            num_failed += 1
    if num_failed:
        if len(inputs) > 1:
            click.echo(f"{num_failed} of {len(inputs)} inputs could not be encoded", err=True)
        sys.exit(1)


def _encode_one(
    path: Path, source: str | None, out: Path | None, print_codes: bool, options: ReadOptions, limits: Limits
) -> None:
    from multitok.checkpoint import load
    from multitok.cli.choose import default_checkpoint
    from multitok.codes_file import ItemInfo, write_codes
    from multitok.errors import InputError
    from multitok.frontend import media
    from multitok.protocol import Codes
    from multitok.tokenizers._audio_tokenizer import AudioStreamTokenizer

    if path.is_dir() and not media.is_item_folder(path):
        raise InputError(f"{path} is a folder: give its files, or use `multitok prepare`, which takes folders")
    data: bytes | Path = sys.stdin.buffer.read() if path == STDIN else path
    name = "standard input" if path == STDIN else path.name
    modality = load(source).spec.modality if source else _modality_of(name, data, options, limits)
    source = source or default_checkpoint(modality, name)
    tokenizer = load(source)
    items, about = [], []
    if isinstance(tokenizer, AudioStreamTokenizer):
        chunks = media.iter_audio(data, name, limits=limits)
        items, about = [("", Codes.join(tokenizer.encode_chunks(chunks)))], [ItemInfo()]
    else:
        for record in media.read_records(data, name, modality=modality, limits=limits, options=options):
            items.append((record.id, tokenizer.encode(record.raw)))
            about.append(ItemInfo(record.place, record.frame_rate_hz))
    if print_codes:
        for key, codes in items:
            click.echo(json.dumps({"id": key, "codes": codes.values.tolist(), "extent": codes.extent}))
        return
    target = out or path.with_name(f"{path.name}.codes")
    folder = Path(source)
    write_codes(target, tokenizer, str(folder.resolve()) if folder.is_dir() else source, items, about)
    size = len(data) if isinstance(data, bytes) else _size_of(path)
    click.echo(f"{name if path == STDIN else path} -> {target}: {source}, {_summary(tokenizer, items, size)}")


def _size_of(path: Path) -> int:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _modality_of(name: str, data: bytes | Path, options: ReadOptions, limits: Limits) -> Modality:
    from multitok.frontend import media
    from multitok.frontend.media.kinds import HEAD_BYTES, PLAIN, sniff
    from multitok.protocol import Modality

    if isinstance(data, bytes) and sniff(data[:HEAD_BYTES]) is PLAIN:
        return Modality.TEXT
    if media.modalities_of(name)[:1] == (Modality.AUDIO,):
        return Modality.AUDIO  # compressed sound would be decoded to be counted
    return next(media.probe_records(data, name, options=options, limits=limits))[1].modality


def _summary(tokenizer: Tokenizer[Any], items: list[tuple[str, Codes]], size: int) -> str:
    """What became of a file of `size` bytes: "4x50x75 codes, 15,000 tokens, 455.8 KiB as 18.3 KiB"."""
    from multitok.cli.tables import human_bytes, plural

    shape = "x".join(map(str, items[0][1].values.shape))
    num_tokens = sum(codes.num_tokens for _, codes in items)
    bits = num_tokens * tokenizer.spec.bits_per_position / tokenizer.spec.num_codebooks
    ratio = f" ({size * 8 / bits:.1f}x smaller)" if bits else ""
    what = f"{shape} codes" if len(items) == 1 else f"{plural(len(items), 'item')}"
    return f"{what}, {plural(num_tokens, 'token')}, {human_bytes(size)} as {human_bytes(bits / 8)}{ratio}"
