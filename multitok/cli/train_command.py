"""`multitok train`: a tokenizer from your own data."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from multitok.cli.train_autoencoder import autoencoder_command
from multitok.cli.train_codec import codec_command
from multitok.cli.train_spectrogram import vocoder_command
from multitok.cli.train_student import student_command
from multitok.cli.training_options import data_options
from multitok.train.presets import DEFAULT_PRESETS

if TYPE_CHECKING:
    from multitok.protocol import Modality

_Command = Callable[..., Any]


@click.group(name="train")
def command() -> None:
    """Make a tokenizer from your own data; the result is a checkpoint folder for `--with`, `vocab` and `load`."""


def _common(function: _Command) -> _Command:
    return data_options(click.option("--name", help="Name inside a vocabulary. [by modality]")(function))


@command.command()
@_common
@click.option("--vocab-size", type=click.IntRange(257), default=32_768, show_default=True)
def bpe(paths: tuple[Path, ...], out: Path, name: str | None, vocab_size: int) -> None:
    """Byte-pair encoding from text files and folders."""
    from multitok.protocol import Modality
    from multitok.train.bpe import train_bpe

    reading = _Reading(_files(paths, Modality.TEXT), Modality.TEXT)
    tokenizer = train_bpe(reading.texts(), vocab_size=vocab_size, name=name or "text")
    _save(tokenizer, out, reading.used, "byte-pair merges; deterministic, no seed")


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
        from multitok.protocol import Modality
        from multitok.train.patches import train_patch_tokenizer

        kind = Modality(modality)
        reading = _Reading(_files(paths, kind), kind)
        tokenizer = train_patch_tokenizer(
            kind,
            reading.raws(),
            patch=_sizes(patch),
            codebook_sizes=[codebook_size] * codebooks,
            latent_dim=latent_dim,
            max_patches=max_patches,
            seed=seed,
            name=name or modality,
        )
        _save(tokenizer, out, reading.used, f"principal components and residual k-means, seed {seed}")

    text = f"{what} with residual codebooks, from files and folders: no neural net, ready in a minute."
    command.command(name=f"{modality}-patch", help=text)(train)


_patch_command("image", "8,8", "Image patches")
_patch_command("video", "4,8,8", "Video tubelets")
_patch_command("volume", "4,4,4", "Volume blocks (values from 0 to 1)")
for _modality in DEFAULT_PRESETS:
    command.add_command(autoencoder_command(_modality))
command.add_command(vocoder_command)
command.add_command(codec_command)
command.add_command(student_command)


@command.command()
@_common
@click.option("--levels", type=click.IntRange(2), default=16, show_default=True, help="Levels per mel band.")
@click.option("--seed", type=int, default=0, show_default=True)
def dmel(paths: tuple[Path, ...], out: Path, name: str | None, levels: int, seed: int) -> None:
    """Spectrogram levels (dMel) fitted to sound files and folders."""
    from multitok.protocol import Modality
    from multitok.train.dmel import train_dmel

    reading = _Reading(_files(paths, Modality.AUDIO), Modality.AUDIO)
    tokenizer = train_dmel(reading.raws(), num_levels=levels, seed=seed, name=name or "audio")
    _save(tokenizer, out, reading.used, f"levels fitted per band, seed {seed}")


_FRONT_ENDS = """log-mel, mfcc, best-rq (nothing trained), whisper:PATH (model.bin or a folder), or hf:FOLDER."""


@command.command()
@_common
@click.option("--front-end", "front_end_name", default="log-mel", show_default=True, help=_FRONT_ENDS)
@click.option("--layer", type=click.IntRange(0), default=4, show_default=True, help="Of whisper: and hf: models.")
@click.option("--codebook-sizes", default="100,500,2000", show_default=True, help="Sizes of k-means codebooks.")
@click.option("--codebook-size", type=click.IntRange(1), default=500, show_default=True, help="The one in use.")
@click.option("--tokens", type=click.IntRange(1), default=4096, show_default=True, help="Units and merges of them.")
@click.option("--max-frames", type=click.IntRange(1), default=200_000, show_default=True, help="Training sample.")
@click.option("--seed", type=int, default=0, show_default=True)
def semantic(
    paths: tuple[Path, ...],
    out: Path,
    name: str | None,
    front_end_name: str,
    layer: int,
    codebook_sizes: str,
    codebook_size: int,
    tokens: int,
    max_frames: int,
    seed: int,
) -> None:
    """Speech units from sound files and folders: clusters of what a front end makes of speech."""
    from multitok.protocol import Modality
    from multitok.train.semantic import best_rq, make_front_end, train_semantic

    reading = _Reading(_files(paths, Modality.AUDIO), Modality.AUDIO)
    if front_end_name == "best-rq":
        tokenizer = best_rq(reading.raws(), seed=seed, name=name or "speech")
    else:
        tokenizer = train_semantic(
            reading.raws(),
            make_front_end(front_end_name, layer),
            codebook_sizes=_sizes(codebook_sizes, "--codebook-sizes"),
            codebook_size=codebook_size,
            num_tokens=tokens,
            max_frames=max_frames,
            seed=seed,
            name=name or "speech",
            report=lambda line: click.echo(line, err=True),
        )
    _save(tokenizer, out, reading.used, f"k-means of features, seed {seed}")


@command.command(name="mel-vq")
@_common
@click.option("--codebooks", type=click.IntRange(1), default=6, show_default=True, help="K: 0.8 kbit/s each at 1024.")
@click.option("--codebook-size", type=click.IntRange(2), default=1024, show_default=True)
@click.option("--quantizer", type=click.Choice(["residual", "scalar"]), default="residual", show_default=True)
@click.option("--latent-dim", type=click.IntRange(1), default=64, show_default=True, help="Components kept.")
@click.option(
    "--patch-frames", type=click.IntRange(1), default=1, show_default=True, help="Frames a code, of 80 a second."
)
@click.option("--max-clips", type=click.IntRange(1), default=2000, show_default=True, help="Two-second pieces used.")
@click.option("--vocoder", help="Checkpoint whose vocoder it decodes by. [Griffin-Lim]")
@click.option("--seed", type=int, default=0, show_default=True)
def mel_vq(
    paths: tuple[Path, ...],
    out: Path,
    name: str | None,
    codebooks: int,
    codebook_size: int,
    quantizer: Literal["residual", "scalar"],
    latent_dim: int,
    patch_frames: int,
    max_clips: int,
    vocoder: str | None,
    seed: int,
) -> None:
    """Spectrograms in few bits: predicted from frame to frame, the rest by residual codebooks or even steps."""
    from multitok.protocol import Modality
    from multitok.train.mel_vq import train_mel_vq
    from multitok.train.train_vocoder import spectrogram_tokenizer

    reading = _Reading(_files(paths, Modality.AUDIO), Modality.AUDIO)
    tokenizer = train_mel_vq(
        reading.raws(),
        quantizer=quantizer,
        codebook_sizes=[codebook_size] * codebooks,
        latent_dim=latent_dim,
        patch_frames=patch_frames,
        max_clips=max_clips,
        vocoder=None if vocoder is None else spectrogram_tokenizer(vocoder).vocoder,
        seed=seed,
        name=name or "audio",
    )
    _save(tokenizer, out, reading.used, f"prediction and codebooks in turn, seed {seed}")


class _Reading:
    """Reads files one by one; those that cannot be read are named on standard error and left out.

    Args:
        files: What to read.
        modality: What to read them as.
    """

    def __init__(self, files: Sequence[Path], modality: Modality) -> None:
        self._files = files
        self._modality = modality
        self.used: list[Path] = []

    def raws(self) -> Iterator[Any]:
        """The raw item of each file."""
        from multitok.frontend import media

        return self._each(lambda path: media.read(path, modality=self._modality))

    def texts(self) -> Iterator[str | Path]:
        """The paths of plain files, to be streamed, once they prove to be text; what is packed is unpacked whole."""
        from multitok.frontend import media

        return self._each(
            lambda path: str(media.read(path, modality=self._modality)) if path.suffix == ".gz" else _checked(path)
        )

    def _each(self, read: Callable[[Path], Any]) -> Iterator[Any]:
        from multitok.errors import InputError

        for path in self._files:
            try:
                item = read(path)
            except (InputError, OSError) as error:
                click.echo(f"left out: {path}: {error}", err=True)
                continue
            self.used.append(path)
            yield item


def _checked(path: Path) -> Path:
    from multitok.errors import InputError

    with path.open(encoding="utf-8") as file:
        try:
            while file.read(2**20):
                pass
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 ({error.reason}): convert the file to UTF-8") from error
    return path


def _files(paths: tuple[Path, ...], modality: Modality) -> list[Path]:
    from multitok.cli.choose import files_under
    from multitok.frontend.media import modalities_of

    files = [path for path in files_under(paths) if modality in modalities_of(path.name)[:2]]
    if not files:
        raise click.UsageError(f"no {modality} files in {', '.join(map(str, paths))}")
    return files


def _sizes(text: str, option: str = "--patch") -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r}: write numbers with commas, such as 8,8", param_hint=option) from None


def _save(tokenizer: Any, out: Path, files: list[Path], how: str) -> None:
    from multitok.checkpoint import save

    arguments = shlex.join(["multitok", *sys.argv[1:]])
    first, last = f"`{files[0].name}`", f"`{files[-1].name}`"
    data = f"1 file, {first}" if len(files) == 1 else f"{len(files):,} files, from {first} to {last}"
    card = f"""# {out.name}

## Data

{data}. Add where they come from.

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
