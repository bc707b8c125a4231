"""`multitok encode`: a file to codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command(name="encode")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--with", "source", metavar="TOKENIZER", help="Checkpoint name, folder or kind; default: by modality.")
@click.option("--out", type=click.Path(path_type=Path), help="Codes file to write, for one input. [INPUT.codes]")
@click.option("--print", "print_codes", is_flag=True, help="Print the codes as JSON lines, write no file.")
def command(inputs: tuple[Path, ...], source: str | None, out: Path | None, print_codes: bool) -> None:
    """Turn files into codes; `-` reads text from standard input.

    \b
    multitok encode photo.jpg                       writes photo.jpg.codes
    multitok encode genes.fa --with dna-6mer        every record of the file
    echo "Hello" | multitok encode - --print        {"id": "", "codes": [[...]]}
    """
    if out is not None and len(inputs) > 1:
        raise click.BadParameter(f"one file cannot hold the codes of {len(inputs)} inputs", param_hint="--out")
    if Path("-") in inputs and out is None and not print_codes:
        raise click.UsageError("text from standard input has no file name: give --out FILE or --print")
    rows = [_encode_one(path, source, out, print_codes) for path in inputs]
    if not print_codes:
        from multitok.cli.tables import print_table

        header = ("input", "tokenizer", "items", "codes", "tokens", "bytes in", "bits as codes", "written")
        print_table("", header, rows, right="items tokens")


def _encode_one(path: Path, source: str | None, out: Path | None, print_codes: bool) -> tuple[str, ...]:
    from multitok.checkpoint import load
    from multitok.cli.choose import default_checkpoint
    from multitok.cli.tables import human_bytes, human_count
    from multitok.codes_file import write_codes
    from multitok.frontend import media
    from multitok.protocol import Modality

    data = sys.stdin.buffer.read() if path == Path("-") else path
    name = "stdin.txt" if path == Path("-") else path.name
    size = len(data) if isinstance(data, bytes) else path.stat().st_size
    modality = load(source).spec.modality if source else (media.modality_of(name, data) or Modality.TEXT)
    source = source or default_checkpoint(modality, name)
    tokenizer = load(source)
    items = [(key, tokenizer.encode(raw)) for key, raw in media.records(data, name, modality=modality)]
    if print_codes:
        for key, codes in items:
            click.echo(json.dumps({"id": key, "codes": codes.values.tolist(), "extent": codes.extent}))
        return ()
    target = out or path.with_name(f"{path.name}.codes")
    folder = Path(source)
    write_codes(target, tokenizer, str(folder.resolve()) if folder.is_dir() else source, items)
    bits = sum(codes.num_tokens * tokenizer.spec.bits_per_position / tokenizer.spec.num_codebooks for _, codes in items)
    return (
        str(path),
        source,
        human_count(len(items)),
        "x".join(map(str, items[0][1].values.shape)) + (" ..." if len(items) > 1 else ""),
        human_count(sum(codes.num_tokens for _, codes in items)),
        human_bytes(size),
        f"{human_bytes(bits / 8)} ({size * 8 / bits:.1f}x smaller)" if bits else "0 B",
        str(target),
    )
