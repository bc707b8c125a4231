"""`multitok inspect`: what is in it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from multitok.shards import ShardSet
    from multitok.vocabulary import Vocabulary


@click.command(name="inspect")
@click.argument("target")
@click.option("--document", type=int, help="Show the segments of this document of a prepared folder.")
def command(target: str, document: int | None) -> None:
    """Show what TARGET holds: a checkpoint, a vocabulary, a codes file or a prepared folder.

    \b
    multitok inspect image-patch8
    multitok inspect shards/ --document 3
    """
    from multitok.checkpoint import CONFIG, shipped_checkpoints, shipped_vocabularies

    path = Path(target)
    if document is not None and not (path / "manifest.json").is_file():
        raise click.UsageError(f"--document is for finished prepared folders; {target} is none")
    if target in shipped_checkpoints() or (path / CONFIG).is_file():
        _print_checkpoint(target)
    elif (path / "manifest.json").is_file():
        _print_prepared(path, document)
    elif target in shipped_vocabularies() or path.suffix == ".json":
        from multitok.cli import choose

        print_vocabulary(choose.vocabulary(target), target)
    elif path.is_file():
        _print_codes(path)
    else:
        raise click.BadParameter(
            f"{target!r} is no checkpoint, vocabulary, codes file or finished prepared folder; "
            "`multitok list` shows the shipped ones, `multitok status` unfinished folders"
        )


def _print_checkpoint(target: str) -> None:
    from multitok.checkpoint import CARD, fingerprint, load, shipped_checkpoints
    from multitok.cli.tables import print_table

    tokenizer = load(target)
    state = [(name, f"{array.dtype} {list(array.shape)}") for name, array in tokenizer.get_tensors().items()]
    rows = [(key, json.dumps(value)) for key, value in tokenizer.spec.to_json().items()]
    print_table(target, ("", ""), [*rows, ("fingerprint", fingerprint(tokenizer)), *state])
    card = shipped_checkpoints().get(target, Path(target)) / CARD
    if card.is_file():
        click.echo("\n" + card.read_text(encoding="utf-8").strip())


def print_vocabulary(vocabulary: Vocabulary, title: str) -> None:
    """Print a vocabulary's blocks, the codebooks of a tokenizer joined where they follow each other."""
    from multitok.cli.tables import human_count, print_table

    rows = []
    for name, entry in vocabulary.entries.items():
        blocks = [block for block in vocabulary.blocks if block.name == name]
        spans = [span for block in blocks for span in block.intervals]
        low, high = min(a for a, _ in spans), max(b for _, b in spans)
        codes = sum(block.size for block in blocks)
        ids = f"{low} to {high - 1}" + ("" if high - low == codes else " (by lookup)")
        note = "input only" if any(block.input_only for block in blocks) else ""
        rows.append(
            (name, entry.spec.kind, human_count(len(blocks)), human_count(codes), ids, entry.source or "", note)
        )
    header = ("name", "kind", "codebooks", "codes", "IDs", "source", "")
    print_table(f"{title}: {vocabulary.vocab_size:,} IDs", header, rows, right="codebooks codes")
    special = ", ".join(f"{token}={i}" for token, i in list(vocabulary.specials.items())[:4])
    click.echo(f"{len(vocabulary.specials)} special tokens: {special}, ...")
    click.echo(f"fingerprint {vocabulary.fingerprint}")


def _print_codes(path: Path) -> None:
    from multitok.cli.tables import human_count, print_table
    from multitok.codes_file import read_codes

    stored = read_codes(path)
    rows = [
        (
            key or "-",
            "x".join(map(str, codes.values.shape)),
            "x".join(map(str, codes.extent)),
            human_count(codes.num_tokens),
        )
        for key, codes in stored.items
    ]
    print_table(f"{path}: codes of {stored.source}", ("item", "codes", "raw size", "tokens"), rows, right="tokens")


def _print_prepared(folder: Path, document: int | None) -> None:
    from multitok.cli.choose import prepared
    from multitok.cli.tables import human_count, plural, print_table

    shards, _ = prepared(folder)
    if document is not None:
        _print_document(shards, document)
        return
    manifest = shards.manifest
    rows = [
        (modality.value, human_count(count.items), human_count(count.tokens))
        for modality, count in manifest.counts.items()
    ]
    print_table(str(folder), ("modality", "items", "tokens"), rows, right="items tokens")
    size = f"{plural(len(manifest.shards), 'shard')} of {manifest.dtype.name}"
    click.echo(f"{plural(len(shards), 'document')}, {plural(shards.num_tokens, 'token')} in {size}")
    click.echo(f"vocabulary {manifest.vocabulary}, {manifest.vocab_size:,} IDs")


def _print_document(shards: ShardSet, document: int) -> None:
    from multitok.cli.tables import human_count, print_table
    from multitok.errors import ShardError

    if not 0 <= document < len(shards):
        raise ShardError(f"{shards.folder} has no document {document}: give 0 to {len(shards) - 1}")
    sequence = shards[document]
    rows = [
        (
            str(i),
            span.name,
            span.modality.value,
            human_count(span.start),
            human_count(span.length),
            "x".join(map(str, span.grid)),
            "x".join(map(str, span.extent)),
            span.pattern,
        )
        for i, span in enumerate(sequence.spans)
    ]
    header = ("", "tokenizer", "modality", "start", "tokens", "grid", "raw size", "pattern")
    print_table(f"document {document}: {sequence.id} ({len(sequence.ids):,} IDs)", header, rows, right="start tokens")
