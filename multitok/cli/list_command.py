"""`multitok list`: what tokenizers there are."""

from __future__ import annotations

import itertools
import json

import click


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show shipped checkpoints and every kind of tokenizer, plug-ins included."""
    from multitok.checkpoint import load, shipped_checkpoints
    from multitok.cli.tables import print_table
    from multitok.registry import ADAPTERS, KINDS, built_in, kinds

    specs = {name: load(name).spec for name in shipped_checkpoints()}
    plugins = {kind: where for kind, where in kinds().items() if kind not in built_in()}
    if as_json:
        checkpoints = {name: spec.to_json() for name, spec in specs.items()}
        click.echo(json.dumps({"checkpoints": checkpoints, "kinds": kinds()}, indent=2))
        return
    rows = [
        (
            checkpoint,
            spec.kind,
            f"[{', '.join([str(spec.num_codebooks), *spec.grid_axes])}]",
            _sizes(spec.codebook_sizes),
            "x".join(map(str, spec.stride)) if all(spec.stride) else "content",
            "yes" if spec.lossless else "no",
        )
        for checkpoint, spec in specs.items()
    ]
    print_table(
        "Shipped checkpoints", ("checkpoint", "kind", "codes", "sizes", "stride", "lossless"), rows, wrap="sizes"
    )
    if plugins:
        print_table("Kinds from plug-ins", ("kind", "class"), list(plugins.items()))
    without = sorted(set(KINDS) - {spec.kind for spec in specs.values()})
    if without:
        click.echo(f"Kinds without a shipped checkpoint: {', '.join(without)}")
    click.echo(f"Kinds of published checkpoints, read by load(folder, kind=...): {', '.join(ADAPTERS)}")


def _sizes(sizes: tuple[int, ...]) -> str:
    """(256, 256, 1110) -> "2 x 256, 1110"."""
    runs = ((size, len(list(run))) for size, run in itertools.groupby(sizes))
    return ", ".join(f"{count} x {size}" if count > 1 else str(size) for size, count in runs)
