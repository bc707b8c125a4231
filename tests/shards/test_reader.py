"""What was written is read back, by number, from any process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import FingerprintError, ShardError
from multitok.shards import Manifest, ShardReader, ShardSet, ShardWriter
from multitok.shards.segments import SegmentsFile
from tests.shards.outputs import Layout, document, write_output

LENGTHS = st.lists(st.lists(st.integers(1, 60), max_size=6), min_size=1, max_size=4)


@settings(max_examples=20, deadline=None)
@given(lengths=LENGTHS, vocab_size=st.sampled_from([2, 65_499, 65_500, 2**31 - 1]), seed=st.integers(0, 9))
def test_round_trip(lengths: list[list[int]], vocab_size: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        documents = write_output(Path(name), lengths, Layout(vocab_size), seed)
        shards = ShardSet(name, Layout(vocab_size))
        shards.verify()
        assert len(shards) == len(documents)
        assert shards.num_tokens == sum(map(len, documents))
        assert list(shards) == documents
        assert [shards[k] for k in reversed(range(len(shards)))] == documents[::-1]
        assert all(np.array_equal(shards.ids(k), documents[k].ids) for k in range(len(shards)))
        for k, (shard, local) in enumerate(map(shards.locate, range(len(shards)))):
            assert k == sum(map(len, lengths[:shard])) + local


def test_spans_of_a_whole_shard(tmp_path: Path) -> None:
    documents = write_output(tmp_path, [[5, 40, 1, 30, 9]])
    table = ShardSet(tmp_path).reader(0).span_table()
    for k, sequence in enumerate(documents):
        rows = slice(table.first_row[k], table.first_row[k + 1])
        assert table.start[rows].tolist() == [span.start for span in sequence.spans]
        assert table.length[rows].tolist() == [span.length for span in sequence.spans]


def test_row_groups(tmp_path: Path) -> None:
    """Documents beyond the first row group of the segments file are found, in any order."""
    rng = np.random.default_rng(0)
    documents = [document(rng, 12, f"document {k}") for k in range(12_000)]
    with ShardWriter(tmp_path, 0, Layout()) as writer:
        for sequence in documents:
            writer.add(sequence)
    reader = ShardReader(tmp_path, 0)
    for k in [0, 11_999, *rng.integers(0, 12_000, 20).tolist()]:
        assert reader.sequence(k) == documents[k]


def test_ids_are_views_of_the_file(tmp_path: Path) -> None:
    write_output(tmp_path, [[100, 50]])
    reader = ShardReader(tmp_path, 0)
    ids = reader.ids(1)
    assert ids.dtype == np.uint16
    assert np.shares_memory(ids, reader.ids(1))
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_out_of_range(tmp_path: Path) -> None:
    write_output(tmp_path, [[3], [4, 5]])
    shards = ShardSet(tmp_path)
    for bad in (-1, 3):
        with pytest.raises(IndexError, match=f"document {bad} of .* has 3, from 0"):
            shards[bad]
    with pytest.raises(IndexError, match="document 1 of shard-00000: it has 0 to 0"):
        ShardReader(tmp_path, 0).ids(1)


def test_pickles_as_a_path(tmp_path: Path) -> None:
    documents = write_output(tmp_path, [[30_000, 20_000], [7]])
    shards = ShardSet(tmp_path)
    reader = shards.reader(0)
    assert len(pickle.dumps(shards)) < 1000
    assert list(pickle.loads(pickle.dumps(shards))) == documents
    assert list(pickle.loads(pickle.dumps(reader))) == documents[:2]


def test_threads_do_not_share_a_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multitok.shards.segments.ROWS_PER_GROUP", 4)
    documents = write_output(tmp_path, [[20] * 40])
    reader = ShardReader(tmp_path, 0)
    last = SegmentsFile(reader._segments.path, len(reader))
    last.document(len(reader) - 1)

    class Interrupted(SegmentsFile):
        """Another thread reads the last document whenever this one has read a row group."""

        @property
        def _cached(self) -> Any:
            return self.kept

        @_cached.setter
        def _cached(self, group: Any) -> None:
            self.kept = None if group is None else last._cached

    reader._segments = Interrupted(reader._segments.path, len(reader))
    assert list(reader) == documents


def test_survives_a_fork(tmp_path: Path) -> None:
    documents = write_output(tmp_path, [[30, 20], [7]])
    shards = ShardSet(tmp_path)
    assert shards[0] == documents[0]  # pyarrow and the maps are in use before the fork
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(shards.__getitem__, range(3)) == documents


def test_no_file_stays_open(tmp_path: Path) -> None:
    write_output(tmp_path, [[30, 20]] * 8)
    before = len(os.listdir("/proc/self/fd"))
    shards = ShardSet(tmp_path)
    list(shards)
    assert len(os.listdir("/proc/self/fd")) == before


def test_foreign_vocabulary(tmp_path: Path) -> None:
    write_output(tmp_path, [[3]])
    ShardSet(tmp_path, "f" * 64)
    with pytest.raises(FingerprintError, match=f"vocabulary {'f' * 64}, this one is {'0' * 64}"):
        ShardSet(tmp_path, Layout(fingerprint="0" * 64))


def test_an_unfinished_output(tmp_path: Path) -> None:
    write_output(tmp_path, [[3], [4]])
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ShardError, match=r"manifest.json is missing \(2 finished shards .* run the same prepare"):
        ShardSet(tmp_path)


def test_a_manifest_needs_all_shards_of_one_vocabulary(tmp_path: Path) -> None:
    infos = []
    for index, fingerprint in ((0, "a"), (1, "a"), (2, "b")):
        with ShardWriter(tmp_path, index, Layout(10, fingerprint)) as writer:
            infos.append(writer.close())
    keys = {"vocab_size": 10, "vocabulary": "a", "tokenizers": {}}
    assert Manifest.build(infos[1::-1], **keys).shards == tuple(infos[:2])
    with pytest.raises(ShardError, match=r"shards \[1\] in a manifest"):
        Manifest.build(infos[1:2], **keys)
    with pytest.raises(FingerprintError, match=r"shard-00002 was written with vocabulary b .* manifest is of a"):
        Manifest.build(infos, **keys)


def test_importing_costs_neither_pyarrow_nor_torch() -> None:
    code = "import sys, multitok.shards; print(sorted({'pyarrow', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
