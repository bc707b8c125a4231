"""Small sources of every kind and modality, good and bad, built from fixed seeds; and a vocabulary for them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

import multitok
from multitok.prepare import prepare
from multitok.tokenizers.image_patch import ImagePatch
from multitok.vocabulary import Vocabulary

SMALL = 20_000
"""Shard bytes that cut the small folder into several shards."""


def inline(sources: Any, vocabulary: Vocabulary, out: Path, **options: Any) -> Any:
    """A job in this process, with small shards."""
    return prepare(sources, vocabulary, out, **{"executor": "inline", "shard_bytes": SMALL, **options})


def copied(out: Path, tmp_path: Path) -> Path:
    """A copy of an output, to damage."""
    return Path(shutil.copytree(out, tmp_path / "copy"))


def build_vocabulary(folder: Path) -> Vocabulary:
    """Text, bases, series, sound, and an image tokenizer with random codes; loadable from any process."""
    rng = np.random.default_rng(5)
    tiny = ImagePatch(
        basis=rng.integers(-200, 200, (8 * 8 * 3, 4)).astype(np.int16),
        codebooks=rng.integers(-4000, 4000, (16, 4)).astype(np.int32),
        codebook_sizes=(16,),
        patch=(8, 8),
        name="image",
    )
    multitok.save(tiny, folder / "image-tiny", card="# tiny\n")
    return Vocabulary.build(["text-bytes", "sequence-kmer", "series-16", "dmel-80hz", str(folder / "image-tiny")])


def png(seed: int, height: int = 16, width: int = 24) -> bytes:
    """A noisy picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return _saved(Image.fromarray(pixels), "PNG")


def jpeg(seed: int) -> bytes:
    """A smooth picture."""
    ramp = np.add.outer(np.arange(64), np.arange(48)) + seed
    return _saved(Image.fromarray(np.stack([ramp % 256] * 3, -1).astype(np.uint8)), "JPEG")


def sound(seed: int, format: str = "WAV", subtype: str = "PCM_16", samples: Any = None) -> bytes:
    """A quarter of a second of noise at 16 kHz."""
    if samples is None:
        samples = 0.1 * np.random.default_rng(seed).standard_normal(4000)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, format=format, subtype=subtype)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def write_folder(root: Path, count: int = 30) -> Path:
    """Files of several modalities in nested folders; half of them text."""
    for i in range(count):
        folder = root / f"part-{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.txt").write_text(f"Text number {i}. " * (i % 7 + 1), encoding="utf-8")
        if i % 5 == 0:
            (folder / f"{i:03d}.png").write_bytes(png(i))
        if i % 10 == 3:
            (folder / f"{i:03d}.csv").write_text("a,b\n" + "".join(f"{j},{i * j}\n" for j in range(40)))
    (root / "genes.fa").write_text(">one first gene\nACGTAC\nGT\n>two\nNNNacgtt\n")
    return root


def write_jsonl(path: Path, documents: list[Any]) -> Path:
    """One document a line; bytes and strings go in as they are."""
    lines = [d if isinstance(d, bytes) else json.dumps(d, ensure_ascii=False).encode() for d in documents]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of members in this order."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def fingerprint_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def quarantined(out: Path) -> dict[str, tuple[str, str]]:
    """Item id -> (error, message) of all that an output left out."""
    rows = [
        json.loads(line)
        for path in sorted(out.glob("*.quarantine.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return {row["id"]: (row["error"], row["message"]) for row in rows}


def _saved(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()
