"""Every way a shard can be damaged, and what it must raise: the file by name, and both sides."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from multitok.errors import FingerprintError, ShardError
from multitok.shards import ShardReader, ShardSet
from tests.shards.outputs import Layout, write_output

LENGTHS = [[6, 9, 1], [20]]  # 16 tokens, 32 bytes in the first payload


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_output(tmp_path, LENGTHS)
    ShardSet(tmp_path).verify()
    return tmp_path


@pytest.mark.parametrize("suffix", ["bin", "idx", "segments.parquet"])
@pytest.mark.parametrize("change", [-1, 1, None])
def test_another_size(folder: Path, suffix: str, change: int | None) -> None:
    path = folder / f"shard-00000.{suffix}"
    content = path.read_bytes()
    if change is None:
        path.unlink()
        message = f"{path} is missing"
    else:
        path.write_bytes(content[:change] if change < 0 else content + b"\0")
        message = f"{path} has {len(content) + change} bytes, its record says {len(content)}"
    for opened in (lambda: ShardReader(folder, 0), lambda: ShardSet(folder)):
        with pytest.raises(ShardError) as caught:
            opened()
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize("suffix", ["bin", "idx", "segments.parquet"])
def test_a_flipped_bit(folder: Path, suffix: str) -> None:
    path = folder / f"shard-00001.{suffix}"
    content = bytearray(path.read_bytes())
    good = sha256(content).hexdigest()
    content[-1 if suffix == "idx" else len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(
        ShardError, match=f"{path.name} has sha256 {sha256(content).hexdigest()}, its record says {good}"
    ):
        ShardSet(folder).verify()


def _forge(folder: Path, suffix: str, content: bytes) -> None:
    """Replace a file and its entry in record and manifest, as if the shard had been written like this."""
    path = folder / f"shard-00000.{suffix}"
    path.write_bytes(content)
    entry = {"name": path.name, "size_bytes": len(content), "sha256": sha256(content).hexdigest()}
    for name in ("shard-00000.done.json", "manifest.json"):
        data = json.loads((folder / name).read_text())
        record = data if "files" in data else data["shards"][0]
        record["files"] = [entry if file["name"] == path.name else file for file in record["files"]]
        (folder / name).write_text(json.dumps(data))


def _index(**changes: Any) -> bytes:
    fields = {"magic": b"MMIDIDX\0\0", "version": 1, "code": 8, "count": 3, "listed": 4} | changes
    return struct.pack("<9sQBQQ3i3q4q", *fields.values(), 6, 9, 1, 0, 12, 30, 0, 1, 2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes, an index has at least 34"),
        (_index()[:33], "has 33 bytes, an index has at least 34"),
        (_index(magic=b"MMIDIDY\0\0"), "starts with b'MMIDIDY"),
        (_index(version=2), "and version 2, not with"),
        (_index(code=4), "has dtype code 4, its record says uint16, code 8"),
        (_index(count=2, listed=3), "lists 2 sequences in 2 documents, its record says 3"),
        (_index(listed=3), "lists 3 sequences in 2 documents, its record says 3"),
        (_index()[:-8], "has 94 bytes, an index of 3 documents has 102"),
        (_index()[:42] + struct.pack("<i", 2) + _index()[46:], "describes a payload of 34 bytes, the payload has 32"),
    ],
)
def test_a_bad_index(folder: Path, content: bytes, message: str) -> None:
    _forge(folder, "idx", content)
    with pytest.raises(ShardError, match=message):
        ShardSet(folder).reader(0)


def test_positions_that_do_not_follow(folder: Path) -> None:
    content = bytearray(_index())
    assert content == (folder / "shard-00000.idx").read_bytes()
    content[34 + 12 + 8] += 2
    _forge(folder, "idx", bytes(content))
    with pytest.raises(ShardError, match="positions do not follow from its lengths"):
        ShardSet(folder).verify()


def test_ids_outside_the_vocabulary(folder: Path) -> None:
    _forge(folder, "bin", b"\xff" * 32)
    with pytest.raises(ShardError, match="holds IDs from 65535 to 65535 of 1000"):
        ShardSet(folder).verify()


def _parquet(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> bytes:
    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    change(rows)
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
    return bytes(sink.getvalue())


def _set(column: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["segment"] is not None)[column] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("modality", "smell"), "'smell' is not a valid Modality; known are text, image"),
        (_set("length", 1000), "a span reaches beyond its document"),
        (_set("start", -1), "a span reaches beyond its document"),
    ],
)
def test_bad_segments(folder: Path, change: Callable[[list[dict[str, Any]]], None], message: str) -> None:
    _forge(folder, "segments.parquet", _parquet(folder / "shard-00000.segments.parquet", change))
    with pytest.raises(ShardError, match=message):
        ShardSet(folder).verify()


def test_segments_of_fewer_documents(folder: Path) -> None:
    path = folder / "shard-00000.segments.parquet"
    _forge(folder, "segments.parquet", _parquet(path, lambda rows: rows.pop()))
    with pytest.raises(ShardError, match="has no row for document 2 of 3"):
        ShardSet(folder)[2]


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing PAR1"])
def test_segments_that_are_no_parquet(folder: Path, content: bytes) -> None:
    _forge(folder, "segments.parquet", content)
    with pytest.raises(ShardError, match=r"segments\.parquet is no Parquet file"):
        ShardSet(folder)[0]


def test_segments_with_other_columns(folder: Path) -> None:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"document": [0]}), sink)
    _forge(folder, "segments.parquet", bytes(sink.getvalue()))
    with pytest.raises(ShardError, match=r"has the columns \['document'\], a segments file has"):
        ShardSet(folder)[0]


def _edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del data[key]
        else:
            data[key] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has format_version 2, this multitok reads 1"),
        ({"files": None}, "is damaged"),
        ({"modalities": {"smell": {}}}, "is damaged"),
        ({"num_tokens": "many"}, "is damaged"),
        ({"index": 1}, "names the files .* shard 1 of a vocabulary of 1000 IDs has"),
        ({"vocab_size": 70_000}, "of uint16; shard 0 of a vocabulary of 70000 IDs has .* of int32"),
        ({"num_tokens": 17}, "has 32 bytes, its record says 17 tokens"),
        ({"num_documents": 2}, "its record says 2"),
    ],
)
def test_a_bad_record(folder: Path, changes: dict[str, Any], message: str) -> None:
    _edit(folder / "shard-00000.done.json", **changes)
    with pytest.raises(ShardError, match=message):
        ShardReader(folder, 0)


def test_a_renamed_record(folder: Path) -> None:
    (folder / "shard-00000.done.json").rename(folder / "shard-00002.done.json")
    with pytest.raises(ShardError, match=r"shard-00002\.done\.json is the record of shard 0"):
        ShardReader(folder, 2)
    with pytest.raises(ShardError, match=r"shard-00000 has no commit record .* never finished"):
        ShardReader(folder, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 0}, r"manifest\.json has format_version 0, this multitok reads 1"),
        ({"shards": None}, r"manifest\.json is damaged"),
        ({"tokenizers": 5}, r"manifest\.json is damaged"),
        ({"num_tokens": 37}, r"says num_tokens=37, its shards add up to 36"),
        ({"dtype": "int32"}, r"says dtype='int32', its shards add up to 'uint16'"),
        ({"shards": []}, r"says num_documents=4, its shards add up to 0"),
    ],
)
def test_a_bad_manifest(folder: Path, changes: dict[str, Any], message: str) -> None:
    _edit(folder / "manifest.json", **changes)
    with pytest.raises(ShardError, match=message):
        ShardSet(folder)


@pytest.mark.parametrize(("content", "message"), [("{", "is no manifest"), ("[1]", "a JSON list, not an object")])
def test_a_manifest_that_is_no_object(folder: Path, content: str, message: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ShardError, match=message):
        ShardSet(folder)


def test_a_manifest_from_another_vocabulary(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_output(other, LENGTHS, Layout(fingerprint="0" * 64))
    data = json.loads((folder / "manifest.json").read_text())
    data["shards"][1] = json.loads((other / "manifest.json").read_text())["shards"][1]
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(FingerprintError, match=f"vocabulary {'0' * 64} .* manifest is of {'f' * 64}"):
        ShardSet(folder)
