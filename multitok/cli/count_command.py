"""`multitok count`: how many tokens is it?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multitok.protocol import Modality

if TYPE_CHECKING:
    from multitok.interleave import SegmentShape
    from multitok.protocol import Tokenizer


@click.command(name="count")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--vocab", "vocab", default="base", show_default=True, help="Vocabulary that says which tokenizers.")
@click.option("--use", multiple=True, metavar="WHAT=NAME", help="Tokenizer for a modality or a file ending.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(paths: tuple[Path, ...], vocab: str, use: tuple[str, ...], as_json: bool) -> None:
    """Count the token IDs that `multitok prepare` would write for files and folders.

    Images, video, volumes, sound and series are counted from their headers; text and gene sequences are encoded,
    because their length depends on the content. Structure tokens are in the total.
    """
    from multitok.cli import choose
    from multitok.cli.tables import human_bytes, human_count, print_table
    from multitok.errors import InputError
    from multitok.frontend import media
    from multitok.interleave import Interleaver
    from multitok.prepare.worker import make_routing

    vocabulary = choose.vocabulary(vocab)
    routing = make_routing(vocabulary, choose.parse_use(use))
    interleaver = Interleaver(vocabulary)
    tokenizers: dict[str, Tokenizer[Any]] = {}
    items, tokens, size = Counter[Modality](), Counter[Modality](), Counter[Modality]()
    marks, total, problems = interleaver.count([]), 0, []
    for path in choose.files_under(paths):
        if not routing.takes_file(path.name):
            problems.append((str(path), routing.why_skipped(path.name)))
            continue
        try:
            modality = media.modality_of(path.name, path)
            assert modality is not None  # the ending is known
            name = routing.of_content(path.name, modality)
            if name not in tokenizers:
                tokenizers |= vocabulary.load_tokenizers([name])
            for shape in _shapes(tokenizers[name], path):
                items[modality] += 1
                tokens[modality] += interleaver.count([shape]) - marks
                total += interleaver.count([shape])
            size[modality] += path.stat().st_size
        except InputError as error:
            problems.append((str(path), str(error)))
    if as_json:
        counted = {key.value: {"items": items[key], "tokens": tokens[key], "bytes": size[key]} for key in items}
        click.echo(json.dumps({"tokens": total, "modalities": counted, "problems": problems}, indent=2))
        return
    rows = [
        (key.value, human_count(items[key]), human_count(tokens[key]), human_bytes(size[key])) for key in sorted(items)
    ]
    rows.append(("all, with document marks", human_count(sum(items.values())), human_count(total), ""))
    print_table("", ("modality", "items", "tokens", "bytes"), rows, right="items tokens bytes")
    for where, reason in problems:
        click.echo(f"left out: {where}: {reason}", err=True)


def _shapes(tokenizer: Tokenizer[Any], path: Path) -> Iterator[SegmentShape]:
    from multitok.frontend import media
    from multitok.frontend.resample import num_resampled
    from multitok.interleave import Segment, SegmentShape

    spec = tokenizer.spec
    if 0 in spec.stride:
        for _, raw in media.records(path, modality=spec.modality):
            yield Segment(spec.name, tokenizer.encode(raw)).shape
        return
    for _, info in media.probe_records(path, modality=spec.modality):
        extent = info.extent
        if info.sample_rate_hz is not None and spec.sample_rate_hz is not None:
            extent = (num_resampled(extent[0], info.sample_rate_hz, spec.sample_rate_hz),)
        yield SegmentShape.of_extent(spec, extent)
