"""`multitok train`: a tokenizer from your own data."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

_Command = Callable[..., Any]


@click.group(name="train")
def command() -> None:
    """Make a tokenizer from your own data; the result is a checkpoint folder for `--with`, `vocab` and `load`."""


def _common(function: _Command) -> _Command:
    for option in (
        click.option("--name", help="Name inside a vocabulary. [by modality]"),
        click.option("--out", required=True, type=click.Path(path_type=Path), help="Checkpoint folder to write."),
        click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)),
    ):
        function = option(function)
    return function


@command.command()
@_common
@click.option("--vocab-size", type=click.IntRange(257), default=32_768, show_default=True)
def bpe(paths: tuple[Path, ...], out: Path, name: str | None, vocab_size: int) -> None:
    """Byte-pair encoding from text files and folders."""
    from multitok.frontend import media
    from multitok.protocol import Modality
    from multitok.train.bpe import train_bpe

    files = _files(paths, Modality.TEXT)
    # Plain files are streamed; what is packed has to be unpacked whole.
    texts = (str(media.read(path, modality=Modality.TEXT)) if path.suffix == ".gz" else path for path in files)
    tokenizer = train_bpe(texts, vocab_size=vocab_size, name=name or "text")
    _save(tokenizer, out, files, "byte-pair merges; deterministic, no seed")


def _patch_command(modality: str, patch: str, what: str) -> None:
    @_common
    @click.option("--patch", default=patch, show_default=True, help="Size along each axis.")
    @click.option("--codebooks", type=click.IntRange(1), default=4, show_default=True, help="Residual levels, K.")
    @click.option("--codebook-size", type=click.IntRange(1), default=1024, show_default=True)
    @click.option("--latent-dim", type=click.IntRange(1), default=32, show_default=True, help="Components kept.")
    @click.option("--max-patches", type=click.IntRange(1), default=400_000, show_default=True, help="Training sample.")
    @click.option("--seed", type=int, default=0, show_default=True)
    def train(
        paths: tuple[Path, ...],
        out: Path,
        name: str | None,
        patch: str,
        codebooks: int,
        codebook_size: int,
        latent_dim: int,
        max_patches: int,
        seed: int,
    ) -> None:
        from multitok.frontend import media
        from multitok.protocol import Modality
        from multitok.train.patches import train_patch_tokenizer

        kind = Modality(modality)
        files = _files(paths, kind)
        raws: Iterator[Any] = (media.read(path, modality=kind) for path in files)
        tokenizer = train_patch_tokenizer(
            kind,
            raws,
            patch=_sizes(patch),
            codebook_sizes=[codebook_size] * codebooks,
            latent_dim=latent_dim,
            max_patches=max_patches,
            seed=seed,
            name=name or modality,
        )
        _save(tokenizer, out, files, f"principal components and residual k-means, seed {seed}")

    command.command(name=modality, help=f"{what} with residual codebooks, from files and folders.")(train)


_patch_command("image", "8,8", "Image patches")
_patch_command("video", "4,8,8", "Video tubelets")
_patch_command("volume", "4,4,4", "Volume blocks (values from 0 to 1)")


@command.command()
@_common
@click.option("--levels", type=click.IntRange(2), default=16, show_default=True, help="Levels per mel band.")
@click.option("--seed", type=int, default=0, show_default=True)
def dmel(paths: tuple[Path, ...], out: Path, name: str | None, levels: int, seed: int) -> None:
    """Spectrogram levels (dMel) fitted to sound files and folders."""
    from multitok.frontend import media
    from multitok.protocol import Modality
    from multitok.train.dmel import train_dmel

    files = _files(paths, Modality.AUDIO)
    waves: Iterator[Any] = (media.read(path, modality=Modality.AUDIO) for path in files)
    tokenizer = train_dmel(waves, num_levels=levels, seed=seed, name=name or "audio")
    _save(tokenizer, out, files, f"levels fitted per band, seed {seed}")


def _files(paths: tuple[Path, ...], modality: Any) -> list[Path]:
    from multitok.cli.choose import files_under
    from multitok.frontend.media import modalities_of

    files = [path for path in files_under(paths) if modality in modalities_of(path.name)[:2]]
    if not files:
        raise click.UsageError(f"no {modality} files in {', '.join(map(str, paths))}")
    return files


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r}: write numbers with commas, such as 8,8", param_hint="--patch") from None


def _save(tokenizer: Any, out: Path, files: list[Path], how: str) -> None:
    from multitok.checkpoint import save

    arguments = shlex.join(["multitok", *sys.argv[1:]])
    card = f"""# {out.name}

## Data

{len(files):,} files, from `{files[0].name}` to `{files[-1].name}`. Add where they come from.

## Licence

Add the licence of the data.

## Training

`{arguments}`: {how}.

## Quality

Not measured by this command. Measure it on files that were not trained on.

## Use

`multitok.load("{out}")`
"""
    click.echo(f"{save(tokenizer, out, card=card)}: {tokenizer!r}")
