"""`multitok encode`: a file to codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.cli.messages import print_error

if TYPE_CHECKING:
    from multitok.protocol import Codes, Modality, Tokenizer

STDIN = Path("-")


@click.command(name="encode")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--with", "source", metavar="TOKENIZER", help="Checkpoint name, folder or kind; default: by modality.")
@click.option("--out", type=click.Path(path_type=Path), help="Codes file to write, for one input. [INPUT.codes]")
@click.option("--print", "print_codes", is_flag=True, help="Print the codes as JSON lines, write no file.")
def command(inputs: tuple[Path, ...], source: str | None, out: Path | None, print_codes: bool) -> None:
    """Turn files into codes; `-` reads standard input: text, or the content of a media file.

    An input that cannot be read is named, the others are encoded, and the exit status is 1.

    \b
    multitok encode photo.jpg                       writes photo.jpg.codes
    multitok encode genes.fa --with dna-6mer        every record of the file
    echo "Hello" | multitok encode - --print        {"id": "", "codes": [[...]]}
    """
    from multitok.errors import InputError

    if out is not None and len(inputs) > 1:
        raise click.BadParameter(f"one file cannot hold the codes of {len(inputs)} inputs", param_hint="--out")
    if STDIN in inputs and out is None and not print_codes:
        raise click.UsageError("standard input has no file name: give --out FILE or --print")
    num_failed = 0
    for path in inputs:
        try:
            _encode_one(path, source, out, print_codes)
        except BrokenPipeError:
            raise
        except (InputError, OSError) as error:
            print_error(error)
            num_failed += 1
    if num_failed:
        if len(inputs) > 1:
            click.echo(f"{num_failed} of {len(inputs)} inputs could not be encoded", err=True)
        sys.exit(1)


def _encode_one(path: Path, source: str | None, out: Path | None, print_codes: bool) -> None:
    from multitok.checkpoint import load
    from multitok.cli.choose import default_checkpoint
    from multitok.codes_file import write_codes
    from multitok.errors import InputError
    from multitok.frontend import media

    if path.is_dir():
        raise InputError(f"{path} is a folder: give its files, or use `multitok prepare`, which takes folders")
    data: bytes | Path = sys.stdin.buffer.read() if path == STDIN else path
    name = "standard input" if path == STDIN else path.name
    modality = load(source).spec.modality if source else _modality_of(name, data)
    source = source or default_checkpoint(modality, name)
    tokenizer = load(source)
    items = [(key, tokenizer.encode(raw)) for key, raw in media.records(data, name, modality=modality)]
    if print_codes:
        for key, codes in items:
            click.echo(json.dumps({"id": key, "codes": codes.values.tolist(), "extent": codes.extent}))
        return
    target = out or path.with_name(f"{path.name}.codes")
    folder = Path(source)
    write_codes(target, tokenizer, str(folder.resolve()) if folder.is_dir() else source, items)
    size = len(data) if isinstance(data, bytes) else path.stat().st_size
    click.echo(f"{name if path == STDIN else path} -> {target}: {source}, {_summary(tokenizer, items, size)}")


def _modality_of(name: str, data: bytes | Path) -> Modality:
    from multitok.frontend import media
    from multitok.frontend.media.kinds import HEAD_BYTES, PLAIN, sniff
    from multitok.protocol import Modality

    if isinstance(data, bytes) and sniff(data[:HEAD_BYTES]) is PLAIN:
        return Modality.TEXT
    return media.modality_of(name, data) or Modality.TEXT


def _summary(tokenizer: Tokenizer[Any], items: list[tuple[str, Codes]], size: int) -> str:
    """What became of a file of `size` bytes: "4x50x75 codes, 15,000 tokens, 455.8 KiB as 18.3 KiB"."""
    from multitok.cli.tables import human_bytes, plural

    shape = "x".join(map(str, items[0][1].values.shape))
    num_tokens = sum(codes.num_tokens for _, codes in items)
    bits = num_tokens * tokenizer.spec.bits_per_position / tokenizer.spec.num_codebooks
    ratio = f" ({size * 8 / bits:.1f}x smaller)" if bits else ""
    what = f"{shape} codes" if len(items) == 1 else f"{plural(len(items), 'item')}"
    return f"{what}, {plural(num_tokens, 'token')}, {human_bytes(size)} as {human_bytes(bits / 8)}{ratio}"
