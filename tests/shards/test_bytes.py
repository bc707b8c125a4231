"""The exact bytes of a shard: formats that other software reads do not change by accident."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from multitok.interleave import Span, TokenSequence
from multitok.protocol import Modality
from multitok.shards import Manifest, ShardWriter, id_dtype
from tests.shards.outputs import Layout, document

SPAN = Span("image", Modality.IMAGE, 1, 2, (1, 2), (8, 13), 1, "raster")
DOCUMENTS = [
    TokenSequence(np.array([7, 258, 3], np.int32), (SPAN,), "a"),
    TokenSequence(np.array([999], np.int32), (), "ä"),
    TokenSequence(np.array([0, 1], np.int32), (), ""),
]


def _write(folder: Path, vocab_size: int) -> None:
    with ShardWriter(folder, 0, Layout(vocab_size)) as writer:
        for sequence in DOCUMENTS:
            writer.add(sequence)


@pytest.mark.parametrize(("vocab_size", "letter", "code", "size"), [(1000, "H", 8, 2), (65_500, "i", 4, 4)])
def test_payload_and_index(tmp_path: Path, vocab_size: int, letter: str, code: int, size: int) -> None:
    _write(tmp_path, vocab_size)
    assert (tmp_path / "shard-00000.bin").read_bytes() == struct.pack(f"<6{letter}", 7, 258, 3, 999, 0, 1)
    assert (tmp_path / "shard-00000.idx").read_bytes() == (
        b"MMIDIDX\0\0"
        + struct.pack("<Q", 1)
        + struct.pack("<B", code)
        + struct.pack("<Q", 3)
        + struct.pack("<Q", 4)
        + struct.pack("<3i", 3, 1, 2)
        + struct.pack("<3q", 0, 3 * size, 4 * size)
        + struct.pack("<4q", 0, 1, 2, 3)
    )


def test_an_empty_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 0, Layout()):
        pass
    assert (tmp_path / "shard-00000.bin").read_bytes() == b""
    assert (tmp_path / "shard-00000.idx").read_bytes() == b"MMIDIDX\0\0" + struct.pack("<QBQQq", 1, 8, 0, 1, 0)


def test_segments(tmp_path: Path) -> None:
    _write(tmp_path, 1000)
    nothing = dict.fromkeys(
        ["segment", "name", "modality", "start", "length", "grid", "extent", "num_codebooks", "pattern"]
    )
    assert pyarrow.parquet.read_table(tmp_path / "shard-00000.segments.parquet").to_pylist() == [
        {
            "document": 0,
            "document_id": "a",
            "segment": 0,
            "name": "image",
            "modality": "image",
            "start": 1,
            "length": 2,
            "grid": [1, 2],
            "extent": [8, 13],
            "num_codebooks": 1,
            "pattern": "raster",
        },
        {"document": 1, "document_id": "ä", **nothing},
        {"document": 2, "document_id": "", **nothing},
    ]


def test_commit_record_and_manifest(tmp_path: Path) -> None:
    _write(tmp_path, 1000)
    files = ["shard-00000.bin", "shard-00000.idx", "shard-00000.segments.parquet"]
    contents = [(tmp_path / name).read_bytes() for name in files]
    record = {
        "format_version": 1,
        "index": 0,
        "vocab_size": 1000,
        "dtype": "uint16",
        "vocabulary": "f" * 64,
        "num_documents": 3,
        "num_tokens": 6,
        "modalities": {"image": {"items": 1, "tokens": 2}},
        "files": [
            {"name": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in zip(files, contents, strict=True)
        ],
        "note": {},
    }
    path = tmp_path / "shard-00000.done.json"
    assert path.read_text("utf-8") == json.dumps(record, sort_keys=True, indent=2) + "\n"
    with ShardWriter(tmp_path, 1, Layout(1000)) as writer:
        info = writer.close(note={"plan": "p"})
    assert info.note == {"plan": "p"}
    manifest = Manifest.build(
        [info, info.load(tmp_path, 0)],
        vocab_size=1000,
        vocabulary="f" * 64,
        tokenizers={"image": "e" * 64},
        template={"name": "plain"},
        plan="p",
    )
    manifest.save(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text("utf-8")) == {
        "format_version": 1,
        "dtype": "uint16",
        "vocab_size": 1000,
        "vocabulary": "f" * 64,
        "tokenizers": {"image": "e" * 64},
        "template": {"name": "plain"},
        "plan": "p",
        "num_documents": 3,
        "num_tokens": 6,
        "modalities": {"image": {"items": 1, "tokens": 2}},
        "shards": [record, info.to_json()],
    }
    assert Manifest.load(tmp_path) == manifest


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        rng = np.random.default_rng(1)
        with ShardWriter(tmp_path / folder, 0, Layout()) as writer:
            for k in range(12_000):  # more rows than one row group holds
                writer.add(document(rng, int(rng.integers(1, 20)), str(k)))
    left, right = ({path.name: path.read_bytes() for path in (tmp_path / side).iterdir()} for side in ("left", "right"))
    assert left == right
    assert len(left) == 4
    segments = pyarrow.parquet.ParquetFile(tmp_path / "left" / "shard-00000.segments.parquet")
    assert segments.metadata.num_row_groups > 1


def test_the_dtype_follows_the_vocabulary() -> None:
    assert [id_dtype(size).str for size in (1, 65_499, 65_500, 2**31 - 1)] == ["<u2", "<u2", "<i4", "<i4"]
