"""`multitok vocab`: tokenizers to one shared ID space."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="vocab")
@click.argument("tokenizers", nargs=-1)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--extend", "base", metavar="VOCAB", help="Append to this vocabulary; its IDs keep their meaning.")
@click.option("--special-position", type=click.Choice(["first", "last"]), default="first", show_default=True)
@click.option("--special", "special_tokens", multiple=True, metavar="TOKEN", help="Further special token; repeatable.")
@click.option("--reserved", type=click.IntRange(0), default=0, show_default=True, help="Slots kept free.")
@click.option("--pad-to-multiple", type=click.IntRange(1), default=128, show_default=True)
@click.option("--input-only", multiple=True, metavar="NAME", help="Tokenizer whose IDs are never predicted.")
def command(
    tokenizers: tuple[str, ...],
    out: Path,
    base: str | None,
    special_position: str,
    special_tokens: tuple[str, ...],
    reserved: int,
    pad_to_multiple: int,
    input_only: tuple[str, ...],
) -> None:
    """Join TOKENIZERS (checkpoint names, folders, kinds; NAME=CHECKPOINT renames) into one vocabulary.

    \b
    multitok vocab bpe-32k image-patch8 dmel-80hz --out vocabulary.json
    multitok vocab speech=runs/my-dmel --extend base --out larger.json
    """
    from multitok.cli import choose
    from multitok.cli.inspect_command import print_vocabulary
    from multitok.vocabulary import DEFAULT_SPECIAL_TOKENS, TokenizerEntry, Vocabulary

    if not tokenizers and not special_tokens and not reserved:
        raise click.UsageError("name at least one tokenizer; `multitok list` shows them")
    entries = []
    for text in tokenizers:
        name, equals, source = text.rpartition("=")
        entries.append(TokenizerEntry.of(source, name=name if equals else None))
    if base is None:
        made = Vocabulary.build(
            entries,
            special_tokens=(*DEFAULT_SPECIAL_TOKENS, *special_tokens),
            special_position=special_position,
            reserved=reserved,
            pad_to_multiple=pad_to_multiple,
            input_only=input_only,
        )
    else:
        made = choose.vocabulary(base).extend(
            entries,
            special_tokens=special_tokens,
            special_position=special_position,
            reserved=reserved,
            pad_to_multiple=pad_to_multiple,
            input_only=input_only,
        )
    made.save(out)
    print_vocabulary(made, str(out))
