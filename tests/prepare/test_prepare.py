"""The job from end to end: the same bytes whoever does it, resumed or not; and all that may stop it."""

from __future__ import annotations

import errno
import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import multitok
from multitok.errors import JobError
from multitok.frontend.media import Limits
from multitok.interleave import Interleaver, Template
from multitok.prepare import prepare, status
from multitok.prepare.lock import job_lock
from multitok.prepare.plan import Plan
from multitok.prepare.worker import Worker
from multitok.protocol import Modality
from multitok.shards import ShardSet
from multitok.vocabulary import Vocabulary
from tests.prepare.corpus import (
    SMALL,
    copied,
    fingerprint_of,
    inline,
    jpeg,
    png,
    quarantined,
    sound,
    write_jsonl,
    write_tar,
)

# ---- what comes out


def test_documents_decode_back_to_their_files(folder: Path, vocabulary: Vocabulary, undisturbed: Path) -> None:
    shards = ShardSet(undisturbed, vocabulary)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".fa")
    expected = [f"mixed/{path.relative_to(folder).as_posix()}" for path in files]
    expected = ["mixed/genes.fa#one", "mixed/genes.fa#two", *expected]
    assert [sequence.id for sequence in shards] == expected
    documents = {sequence.id: Interleaver(vocabulary).decode(sequence) for sequence in shards}
    tokenizers = vocabulary.load_tokenizers()

    def raw(name: str) -> Any:
        (segment,) = documents[name].segments
        return tokenizers[segment.name].decode(segment.codes)

    assert raw("mixed/genes.fa#two") == "NNNacgtt"
    assert raw("mixed/part-1/001.txt") == (folder / "part-1/001.txt").read_text(encoding="utf-8")
    assert raw("mixed/part-0/000.png").shape == (16, 24, 3)
    assert raw("mixed/part-0/003.csv").shape == (40, 2)


def test_report_counts_what_is_in_the_shards(folder: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    report = inline([folder], vocabulary, tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert (report.num_documents, report.num_tokens) == (len(shards), shards.num_tokens)
    assert {modality: each.items for modality, each in report.modalities.items()} == {
        Modality.TEXT: 30,
        Modality.IMAGE: 6,
        Modality.SERIES: 3,
        Modality.SEQUENCE: 2,
    }
    for modality, suffix in [(Modality.TEXT, ".txt"), (Modality.IMAGE, ".png"), (Modality.SEQUENCE, ".fa")]:
        assert report.modalities[modality].bytes_in == sum(p.stat().st_size for p in folder.rglob(f"*{suffix}"))
        assert report.modalities[modality].work.tokens == report.modalities[modality].tokens
        assert report.modalities[modality].tokens_per_s > 0
    again = inline([folder], vocabulary, tmp_path / "out")
    assert (again.new_shards, again.num_tokens) == (0, report.num_tokens)
    assert again.modalities[Modality.TEXT].tokens_per_s is None


def test_all_kinds_of_sources_in_one_job(vocabulary: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "i/a.png").write_bytes(png(1))
    (tmp_path / "i/s.flac").write_bytes(sound(1, "FLAC"))
    documents = [{"id": "j", "segments": [{"text": "See:"}, {"image": "i/a.png"}, {"sequence": "ACGTN"}]}]
    jsonl = write_jsonl(tmp_path / "d.jsonl", documents)
    pq.write_table(pa.table({"id": ["p"], "audio": [sound(2)], "text": ["heard"]}), tmp_path / "d.parquet")
    tar = write_tar(tmp_path / "d.tar", [("w.png", png(3)), ("w.txt", b"tar")])
    report = inline([tmp_path / "i", jsonl, tmp_path / "d.parquet", tar], vocabulary, tmp_path / "out")
    assert report.num_quarantined == 0
    found = {sequence.id: [span.name for span in sequence.spans] for sequence in ShardSet(tmp_path / "out")}
    assert list(found.items()) == [
        ("i/a.png", ["image"]),
        ("i/s.flac", ["audio"]),
        ("j", ["text" if "text" in vocabulary.entries else "bytes", "image", "dna"]),
        ("p", ["audio", "text" if "text" in vocabulary.entries else "bytes"]),
        ("d.tar/w", ["text" if "text" in vocabulary.entries else "bytes", "image"]),
    ]


def test_grouped_files_are_one_document(vocabulary: Vocabulary, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.txt").write_text("a caption")
    (root / "a.jpg").write_bytes(jpeg(1))
    inline([root], vocabulary, tmp_path / "out", group_by_stem=True)
    (sequence,) = ShardSet(tmp_path / "out")
    assert (sequence.id, [span.modality for span in sequence.spans]) == ("data/a", [Modality.TEXT, Modality.IMAGE])


# ---- the same bytes


def test_workers_and_executor_do_not_show(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path
) -> None:
    for workers in (1, 2):
        prepare([folder], vocabulary, tmp_path / str(workers), workers=workers, shard_bytes=SMALL)
        assert fingerprint_of(tmp_path / str(workers)) == fingerprint_of(undisturbed)


def test_place_and_vocabulary_file_do_not_show(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, moved)
    path = vocabulary.save(tmp_path / "vocabulary.json")
    inline([moved], path, tmp_path / "out")  # type: ignore[arg-type]
    differing = dict(set(fingerprint_of(tmp_path / "out").items()) ^ set(fingerprint_of(undisturbed).items()))
    assert set(differing) == {"sources.json"}


def test_batches_do_not_show(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multitok.prepare.encode.BATCH_ITEMS", 3)
    monkeypatch.setattr("multitok.prepare.encode.BATCH_SIZE", 50)
    inline([folder], vocabulary, tmp_path / "out")
    assert fingerprint_of(tmp_path / "out") == fingerprint_of(undisturbed)


# ---- going on


def test_a_job_goes_on_from_any_set_of_finished_shards(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path
) -> None:
    out = copied(undisturbed, tmp_path)
    for name in ["manifest.json", "shard-00001.done.json", "shard-00003.done.json", "shard-00003.bin"]:
        (out / name).unlink()
    (out / ".shard-00002.bin.0123456789abcdef.tmp").write_bytes(b"left over")
    (out / "shard-00003.quarantine.jsonl").write_bytes(b"left over")
    (out / ".lock").write_text("999999")
    state = status(out)
    assert (state.planned, state.done, state.running, state.is_running) == (2, len(Plan.load(out).shards) - 2, 0, False)  # type: ignore[union-attr]
    report = inline([folder], vocabulary, out)
    assert report.new_shards == 2
    assert fingerprint_of(out) == fingerprint_of(undisturbed)


def test_a_finished_job_is_left_as_it_is(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(undisturbed, tmp_path)
    monkeypatch.setattr(Worker, "write_shard", None)
    assert inline([folder], vocabulary, out).new_shards == 0
    assert status(out).is_finished
    assert fingerprint_of(out) == fingerprint_of(undisturbed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_bytes": 2 * SMALL}, "shard_bytes was 20000, now 40000"),
        ({"group_by_stem": True}, "group_by_stem was false, now true"),
        ({"template": Template(begin=None)}, "template was"),
        ({"limits": Limits(max_pixels=10)}, "limits was"),
        ({"use": {"image": "image"}}, 'use was {"sequence": "dna"}, now {"image": "image", '),
    ],
)
def test_other_settings_are_refused(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    before = fingerprint_of(undisturbed)
    with pytest.raises(JobError) as caught:
        inline([folder], vocabulary, undisturbed, **options)
    assert "holds a job with other settings: " in str(caught.value)
    assert message in str(caught.value)
    assert fingerprint_of(undisturbed) == before


def test_another_vocabulary_is_refused(folder: Path, vocabulary: Vocabulary, undisturbed: Path) -> None:
    with pytest.raises(JobError, match=f'vocabulary was "{vocabulary.fingerprint}", now'):
        inline([folder], vocabulary.extend(special_tokens=["<|more|>"]), undisturbed)


def test_changed_sources_are_refused(folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path) -> None:
    out, data = copied(undisturbed, tmp_path), tmp_path / "mixed"
    shutil.copytree(folder, data, copy_function=shutil.copy2)
    assert inline([data], vocabulary, out).new_shards == 0
    path = data / "part-1/001.txt"
    text = path.read_text()
    path.write_text(text.upper())
    with pytest.raises(JobError, match=r"changed since the job began \(equal size, other modification time"):
        inline([data], vocabulary, out)
    path.write_text(text + "more")
    with pytest.raises(JobError, match=r"changed since the job began \(\d+ bytes then, \d+ now\)"):
        inline([data], vocabulary, out)
    (data / "new").mkdir()
    with pytest.raises(JobError, match="holds a job on the sources mixed"):
        inline([data, data / "new"], vocabulary, out)


# ---- what may go wrong with the machine


def test_a_full_disk_leaves_a_job_that_can_go_on(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multitok.shards.files import DurableFile

    writes, write = iter(range(10**9)), DurableFile.write

    def fails(self: DurableFile, data: Any) -> int:
        if self.path.name.startswith("shard-00002.bin") and next(writes) > 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(DurableFile, "write", fails)
        with pytest.raises(JobError, match=r"shard-00002 could not be written: OSError: .*No space left.*2 of \d+ sha"):
            inline([folder], vocabulary, tmp_path / "out")
    state = status(tmp_path / "out")
    assert state.done == 2
    assert list(state.failed) == [2]
    assert "No space left" in state.failed[2]
    inline([folder], vocabulary, tmp_path / "out")
    assert fingerprint_of(tmp_path / "out") == fingerprint_of(undisturbed)


def test_a_failure_that_is_not_the_items_is_no_quarantine(
    folder: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failure in (MemoryError(), OSError(errno.EIO, "Input/output error")):

        def fails(*args: Any, failure: Exception = failure, **options: Any) -> Any:
            raise failure

        monkeypatch.setattr("multitok.prepare.encode.records", fails)
        with pytest.raises(JobError, match=r"shard-00000 could not be written: (MemoryError|OSError)"):
            inline([folder], vocabulary, tmp_path / "out")
    assert quarantined(tmp_path / "out") == {}


def test_an_interrupt_leaves_a_job_that_can_go_on(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Worker.write_shard

    def interrupted(self: Worker, shard: int, advance: Any = None) -> Any:
        if shard == 3:
            raise KeyboardInterrupt
        return write(self, shard, advance)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            inline([folder], vocabulary, tmp_path / "out")
    assert status(tmp_path / "out").done == 3
    inline([folder], vocabulary, tmp_path / "out")
    assert fingerprint_of(tmp_path / "out") == fingerprint_of(undisturbed)


def test_two_jobs_do_not_share_a_folder(folder: Path, vocabulary: Vocabulary, undisturbed: Path) -> None:
    with job_lock(undisturbed):
        assert status(undisturbed).is_running
        with pytest.raises(JobError, match=r"is being prepared by process \d+ already"):
            inline([folder], vocabulary, undisturbed)
    assert not status(undisturbed).is_running


def test_a_foreign_tokenizer_stops_the_job(folder: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    data = vocabulary.to_json()
    for entry in data["tokenizers"]:  # type: ignore[union-attr]
        if entry["spec"]["name"] == "image":  # type: ignore[index, call-overload]
            entry["source"] = str(tmp_path / "gone")  # type: ignore[index, call-overload]
    moved = Vocabulary.from_json(data)
    assert moved == vocabulary
    with pytest.raises(
        JobError,
        match=r"shard-00000 could not be written: CheckpointError: tokenizer .image. is not where .* no checkpoint",
    ):
        inline([folder], moved, tmp_path / "out")
    inline([folder], vocabulary, tmp_path / "out")


# ---- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers=0: give 1 or more"),
        ({"executor": "threads"}, "executor='threads': known are inline, process"),
        ({"shard_bytes": 0}, "shard_bytes=0: give 1 or more"),
        ({"error_budget": 1.5}, r"error_budget=1.5: give a share"),
        ({"error_budget": float("nan")}, r"error_budget=nan: give a share"),
        ({"error_budget": -1}, r"error_budget=-1: give a share"),
    ],
)
def test_arguments_that_cannot_be(
    folder: Path, vocabulary: Vocabulary, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=message):
        prepare([folder], vocabulary, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be(folder: Path, vocabulary: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="give a list of paths"):
        inline(str(folder), vocabulary, tmp_path / "out")
    with pytest.raises(JobError, match="no sources"):
        inline([], vocabulary, tmp_path / "out")
    with pytest.raises(JobError, match="lies inside the source"):
        inline([folder], vocabulary, folder / "out")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(JobError, match=r"holds no job of prepare but other files \(mine.txt\)"):
        inline([folder], vocabulary, tmp_path)
    with pytest.raises(JobError, match=r"mine\.txt is a file"):
        inline([folder], vocabulary, tmp_path / "mine.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.xyz").write_text("x")
    with pytest.raises(JobError, match=r"nothing to prepare in .*left out: 1 x .xyz \(unknown\)"):
        inline([tmp_path / "empty"], vocabulary, tmp_path / "out")
    with pytest.raises(JobError, match="holds no job of prepare"):
        status(tmp_path / "nowhere")


# ---- details


def test_ids_equal_those_of_the_pieces_put_together_by_hand(
    folder: Path, vocabulary: Vocabulary, undisturbed: Path
) -> None:
    (name,) = vocabulary.names_by_modality(Modality.TEXT)
    codes = multitok.load("text-bytes").encode((folder / "part-2/002.txt").read_text())
    by_hand = Interleaver(vocabulary).encode(multitok.Document((multitok.Segment(name, codes),)))
    (found,) = (sequence for sequence in ShardSet(undisturbed) if sequence.id == "mixed/part-2/002.txt")
    assert np.array_equal(found.ids, by_hand.ids)


def test_a_file_that_changes_while_the_job_runs_stops_it(
    folder: Path, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "mixed"
    shutil.copytree(folder, data)
    write = Worker.write_shard
    path = data / "part-2/026.txt"

    def meddled(change: Any) -> Any:
        def first(self: Worker, shard: int, advance: Any = None) -> Any:
            change()
            return write(self, shard, advance)

        return first

    monkeypatch.setattr(Worker, "write_shard", meddled(lambda: path.write_text("longer" * 100)))
    with pytest.raises(JobError, match=r"026.txt had \d+ bytes when the job was planned and has 600 bytes now"):
        inline([data], vocabulary, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(Worker, "write_shard", meddled(lambda: path.unlink(missing_ok=True)))
    with pytest.raises(JobError, match=r"026.txt had 600 bytes when the job was planned and is gone now"):
        inline([data], vocabulary, tmp_path / "out")


def test_the_bar_shows_counts_only_when_asked(
    folder: Path, vocabulary: Vocabulary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inline([folder], vocabulary, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    inline([folder], vocabulary, tmp_path / "shown", progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "100%" in shown.err


def test_a_link_to_a_source_keeps_its_own_name(vocabulary: Vocabulary, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "blob-1234", [{"text": "x"}])
    (tmp_path / "docs.jsonl").symlink_to(tmp_path / "blob-1234")
    inline([tmp_path / "docs.jsonl"], vocabulary, tmp_path / "out")
    assert [sequence.id for sequence in ShardSet(tmp_path / "out")] == ["docs.jsonl:0"]


def test_a_batch_holds_no_raw_bytes_of_what_waits(vocabulary: Vocabulary, tmp_path: Path) -> None:
    from multitok.prepare.encode import ItemEncoder
    from multitok.prepare.sources import Item, Part
    from multitok.prepare.worker import make_routing

    encoder = ItemEncoder(vocabulary, make_routing(vocabulary, {}), Template(), Limits())

    def items() -> Any:
        for number in range(9):
            yield tmp_path, Item(str(number), "t.tar", "", (Part("x.png", None, png(number)),))
            alive.append(sum(type(each) is Part for each in gc.get_objects()))

    alive: list[int] = []
    assert len(list(encoder.encode(items()))) == 9
    assert set(alive) == {alive[0]}, "items that wait for their batch keep their parts"
