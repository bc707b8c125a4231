"""A shard is there whole or not at all, and holds what was added."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from multitok.errors import CodeRangeError, ShapeError, ShardError
from multitok.interleave import Span, TokenSequence
from multitok.protocol import Modality
from multitok.shards import Count, ShardInfo, ShardReader, ShardWriter, remove_unfinished
from tests.shards.outputs import Layout, document


def _sequence(*ids: int, spans: tuple[Span, ...] = ()) -> TokenSequence:
    return TokenSequence(np.array(ids, np.int32), spans, "doc")


def _span(start: int, length: int) -> Span:
    return Span("text", Modality.TEXT, start, length, (length,), (length,), 1, "raster")


def test_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = [document(rng, length, "x") for length in (5, 60, 7)]
    with ShardWriter(tmp_path, 0, Layout()) as writer:
        for sequence in documents:
            writer.add(sequence)
        assert (writer.num_documents, writer.num_tokens) == (3, 72)
    expected: dict[Modality, Count] = {}
    for span in (span for sequence in documents for span in sequence.spans):
        expected[span.modality] = expected.get(span.modality, Count()) + Count(1, span.length)
    assert writer.info is not None
    assert writer.info.counts == expected
    assert ShardInfo.load(tmp_path, 0) == writer.info


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, 0, Layout()) as writer:
            writer.add(_sequence(1, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert ShardInfo.load(tmp_path, 0) is None


def test_a_full_disk_leaves_nothing_and_is_what_shows(tmp_path: Path) -> None:
    """Buffered bytes cannot be written when the files are let go of either."""

    def fill() -> None:
        with ShardWriter(tmp_path, 0, Layout()) as writer:
            for number in range(20):
                writer.add(document(np.random.default_rng(number), 100_000, str(number)))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, before[1]))  # what is larger fails, as on a full disk
    try:
        with pytest.raises(OSError, match="too large") as caught:
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.__context__ is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_has_a_final_name_before_the_commit(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 0, Layout())
    writer.add(_sequence(1))
    assert all(path.name.startswith(".shard-00000.") for path in tmp_path.iterdir())
    writer.close()
    suffixes = ["bin", "done.json", "idx", "segments.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"shard-00000.{suffix}" for suffix in suffixes]
    with pytest.raises(ShardError, match="closed; open a new one"):
        writer.close()
    with pytest.raises(ShardError, match="finished already"):
        ShardWriter(tmp_path, 0, Layout())


@pytest.mark.parametrize(
    ("sequence", "error", "message"),
    [
        (_sequence(), ShapeError, "has 0 tokens: .* leave empty documents out"),
        (_sequence(3, 1000), CodeRangeError, "has the ID 1000: allowed are 0 to 999"),
        (_sequence(3, -2), CodeRangeError, "has the ID -2: allowed are 0 to 999"),
        (_sequence(1, 2, 3, spans=(_span(2, 2),)), ShapeError, "covers tokens 2 to 4, allowed are 0 to 3"),
        (_sequence(1, 2, 3, spans=(_span(1, 2), _span(0, 1))), ShapeError, "covers tokens 0 to 1, allowed are 3 to 3"),
    ],
)
def test_refused_documents(tmp_path: Path, sequence: TokenSequence, error: type[Exception], message: str) -> None:
    with ShardWriter(tmp_path, 0, Layout()) as writer:
        writer.add(_sequence(5))
        with pytest.raises(error, match=message):
            writer.add(sequence)
        writer.add(_sequence(6))
    assert [sequence.ids.tolist() for sequence in ShardReader(tmp_path, 0)] == [[5], [6]]


def test_left_overs_are_removed(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 1, Layout()) as writer:
        writer.add(_sequence(1))
    kept = {*(path.name for path in tmp_path.iterdir()), "notes.bin", "shard-x.bin"}
    left_over = [".shard-00000.bin.0123456789abcdef.tmp", ".shard-00001.idx.0123456789abcdef.tmp", "shard-00000.idx"]
    for name in ["notes.bin", "shard-x.bin", *left_over]:
        (tmp_path / name).write_bytes(b"x")
    assert remove_unfinished(tmp_path) == left_over
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_left_overs_do_no_harm(tmp_path: Path) -> None:
    for name in ("shard-00000.bin", "shard-00000.idx", ".shard-00000.bin.0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"cut short")
    with ShardWriter(tmp_path, 0, Layout()) as writer:
        writer.add(_sequence(7))
    ShardReader(tmp_path, 0).verify()
    assert ShardReader(tmp_path, 0).ids(0).tolist() == [7]


def test_memory_does_not_grow_with_the_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More documents may cost more lengths (4 bytes each), but 8 MB more payload not 8 MB more memory."""
    monkeypatch.setattr("multitok.shards.segments.ROWS_PER_GROUP", 500)
    peaks = []
    sequence = TokenSequence(np.arange(1000, dtype=np.int32), (_span(0, 1000),), "doc")
    for index, count in enumerate((1000, 5000)):
        tracemalloc.start()
        with ShardWriter(tmp_path, index, Layout()) as writer:
            for _ in range(count):
                writer.add(sequence)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 500_000


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from tests.shards.outputs import Layout, document
from multitok.shards import ShardWriter
rng = np.random.default_rng(0)
with ShardWriter(Path(sys.argv[1]), 0, Layout()) as writer:
    for k in range(1000):
        writer.add(document(rng, 300, str(k)))
    print("close", flush=True)
print("done", flush=True)
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)


def test_killed_at_any_instant_a_shard_is_whole_or_absent(tmp_path: Path) -> None:
    whole = _start(tmp_path / "whole")
    assert whole.communicate()[0].endswith("done\n")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    # Kill before the commit, and at its steps: as the files appear one after the other.
    outcomes = set()
    for attempt, trigger in enumerate(["start", "close", "bin", "segments.parquet", "done.json"]):
        folder = tmp_path / str(attempt)
        process = _start(folder)
        assert process.stdout is not None
        if trigger != "start":
            process.stdout.readline()
            while trigger != "close" and not (folder / f"shard-00000.{trigger}").exists() and process.poll() is None:
                time.sleep(0.0002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        outcomes.add(finished := folder.exists() and ShardInfo.load(folder, 0) is not None)
        if finished:
            ShardReader(folder, 0).verify()
        else:
            with pytest.raises(ShardError, match="never finished"):
                ShardReader(folder, 0)
            assert _start(folder).communicate()[0].endswith("done\n")
        remove_unfinished(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert outcomes == {False, True}
