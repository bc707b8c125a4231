"""`verify`: every byte as it was written, and sources that still encode to the same IDs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from multitok.errors import FingerprintError, JobError, ShardError
from multitok.prepare import verify
from multitok.prepare.plan import Plan
from multitok.shards import ShardSet
from multitok.vocabulary import Vocabulary
from tests.prepare.corpus import (
    copied,
    inline,
)


def test_verify_reads_every_file_and_encodes_again(undisturbed: Path) -> None:
    report = verify(undisturbed)
    assert report.num_files == 3 * len(list(undisturbed.glob("*.done.json"))) + 1
    assert report.num_documents > 10
    assert verify(undisturbed, sample=0).num_documents == 0


@pytest.mark.parametrize("name", ["shard-00001.bin", "shard-00002.segments.parquet", "source-00000.files.jsonl"])
def test_verify_finds_a_flipped_bit(undisturbed: Path, tmp_path: Path, name: str) -> None:
    out = copied(undisturbed, tmp_path)
    data = bytearray((out / name).read_bytes())
    data[len(data) // 2] ^= 1
    (out / name).write_bytes(data)
    with pytest.raises(ShardError, match=name):
        verify(out)


def test_verify_finds_sources_that_encode_to_other_ids(folder: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    data = tmp_path / "mixed"
    shutil.copytree(folder, data)
    inline([data], vocabulary, tmp_path / "out")
    assert verify(tmp_path / "out").num_documents > 0
    for path in data.rglob("*.txt"):
        path.write_text(path.read_text().upper())
    with pytest.raises(ShardError, match="encodes to other IDs now"):
        verify(tmp_path / "out")
    shutil.rmtree(data)
    with pytest.raises(JobError, match=r"is gone.*sample=0"):
        verify(tmp_path / "out")


def test_shards_refuse_another_vocabulary(vocabulary: Vocabulary, undisturbed: Path) -> None:
    with pytest.raises(FingerprintError):
        ShardSet(undisturbed, vocabulary.extend(special_tokens=["<|more|>"]))
    assert json.loads((undisturbed / "manifest.json").read_text())["plan"] == Plan.load(undisturbed).fingerprint  # type: ignore[union-attr]
