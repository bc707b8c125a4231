"""What a command means by a name, and the tokenizer it takes for a file when none is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multitok.protocol import Modality

if TYPE_CHECKING:
    from multitok.shards import ShardSet
    from multitok.vocabulary import Vocabulary

DEFAULT_CHECKPOINTS = {
    Modality.TEXT: "bpe-32k",
    Modality.IMAGE: "image-patch8",
    Modality.VIDEO: "video-patch4x8x8",
    Modality.VOLUME: "volume-patch4",
    Modality.AUDIO: "dmel-80hz",
    Modality.SERIES: "series-16",
    Modality.SEQUENCE: "dna-6mer",
}


def default_checkpoint(modality: Modality, name: str) -> str:
    """The shipped checkpoint for a file: by its modality, `.faa` meaning protein."""
    if modality is Modality.SEQUENCE and ".faa" in Path(name).suffixes:
        return "protein-3mer"
    return DEFAULT_CHECKPOINTS[modality]


def vocabulary(name_or_path: str) -> Vocabulary:
    """A shipped vocabulary by name, or the one in a file or in a prepared folder."""
    from multitok.vocabulary import Vocabulary

    inside = Path(name_or_path) / "vocabulary.json"
    return Vocabulary.load(inside if inside.is_file() else name_or_path)


def prepared(folder: Path) -> tuple[ShardSet, Vocabulary]:
    """The shards of a finished prepared folder, and their vocabulary."""
    from multitok.shards import Manifest, ShardSet

    Manifest.load(folder)  # first, so that a folder of something else is called that
    joint = vocabulary(str(folder))
    return ShardSet(folder, joint), joint


def files_under(paths: Sequence[Path]) -> Iterator[Path]:
    """Files, and the files in folders, in order; hidden ones left out."""
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            visible = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
            yield from (found for found in visible if found.is_file())
        else:
            yield path
