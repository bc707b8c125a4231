"""Folders that something else cut or altered, and sources written to meanwhile: told, and mended where it can be."""

from __future__ import annotations

import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from multitok.errors import FingerprintError, JobError, ShardError
from multitok.prepare import prepare, status, verify
from multitok.prepare.job import _check_place
from multitok.prepare.quarantine import is_items_fault
from multitok.prepare.worker import Worker
from multitok.vocabulary import Vocabulary
from tests.prepare.corpus import fingerprint_of, inline, quarantined, write_folder, write_jsonl


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = write_folder(tmp_path_factory.mktemp("sources") / "mixed", 20)
    (folder / "bad.png").write_bytes(b"no picture")
    return [folder]


@pytest.fixture(scope="module")
def finished(sources: list[Path], vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    assert inline(sources, vocabulary, out).num_shards >= 3
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


# ---- the output


def test_a_manifest_cut_short_is_written_again(
    sources: list[Path], vocabulary: Vocabulary, finished: Path, out: Path
) -> None:
    _cut(out / "manifest.json")
    with pytest.raises(ShardError, match=r"manifest.json is no manifest .*: run prepare again"):
        verify(out)
    assert inline(sources, vocabulary, out).new_shards == 0
    assert fingerprint_of(out) == fingerprint_of(finished)
    before = (out / "manifest.json").stat().st_mtime_ns
    inline(sources, vocabulary, out)
    assert (out / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["shard-00001.bin", "shard-00001.segments.parquet", "shard-00000.quarantine.jsonl"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_shard_whose_files_are_gone_or_cut_is_written_again(
    sources: list[Path], vocabulary: Vocabulary, finished: Path, out: Path, name: str, gone: bool
) -> None:
    (out / name).unlink() if gone else _cut(out / name)
    with pytest.raises(ShardError, match=f"{name} (is missing|has .* bytes)"):
        verify(out)
    assert inline(sources, vocabulary, out).new_shards == 1
    assert fingerprint_of(out) == fingerprint_of(finished)


def test_a_shard_removed_from_a_finished_output_takes_the_manifest_with_it(
    sources: list[Path], vocabulary: Vocabulary, finished: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in out.glob("shard-00001.*"):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "write_shard", lambda *arguments: 1 / 0)
        with pytest.raises(JobError, match="ZeroDivisionError"):
            inline(sources, vocabulary, out)
    assert not status(out).is_finished
    inline(sources, vocabulary, out)
    assert fingerprint_of(out) == fingerprint_of(finished)


def test_a_commit_record_cut_short_is_named_with_what_to_do(
    sources: list[Path], vocabulary: Vocabulary, finished: Path, out: Path
) -> None:
    record = out / "shard-00001.done.json"
    _cut(record)
    for look in (lambda: inline(sources, vocabulary, out), lambda: status(out), lambda: verify(out)):
        with pytest.raises(ShardError, match=r"done.json is no shard record .*: remove it and run prepare again"):
            look()
    record.unlink()
    with pytest.raises(ShardError, match="commit record of shard-00001 is missing"):
        verify(out)
    assert inline(sources, vocabulary, out).new_shards == 1
    assert fingerprint_of(out) == fingerprint_of(finished)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plan.json", "plan.json is no job plan .*: copy it back, or prepare into a new folder"),
        ("sources.json", "sources.json is no list of sources .*: copy it back, or prepare into a new folder"),
        ("source-00000.files.jsonl", "files.jsonl is missing or not the listing that plan.json records: copy it back"),
    ],
)
def test_a_plan_cut_short_is_refused(
    sources: list[Path], vocabulary: Vocabulary, out: Path, name: str, message: str
) -> None:
    _cut(out / name)
    (out / "shard-00000.done.json").unlink()
    with pytest.raises((JobError, ShardError), match=message):
        inline(sources, vocabulary, out)


def test_the_list_of_sources_is_missed_by_name(sources: list[Path], vocabulary: Vocabulary, out: Path) -> None:
    (out / "sources.json").unlink()
    for look in (lambda: inline(sources, vocabulary, out), lambda: verify(out)):
        with pytest.raises(ShardError, match=r"sources\.json, the list of sources, is missing: copy it back"):
            look()


def test_the_vocabulary_beside_the_shards_is_checked_and_comes_back(
    sources: list[Path], vocabulary: Vocabulary, finished: Path, out: Path
) -> None:
    vocabulary.extend(special_tokens=["<|more|>"]).save(out / "vocabulary.json")
    with pytest.raises(FingerprintError, match=f"the manifest is of {vocabulary.fingerprint}: copy back"):
        verify(out, sample=0)
    (out / "vocabulary.json").unlink()
    inline(sources, vocabulary, out)
    assert fingerprint_of(out) == fingerprint_of(finished)


def test_status_while_another_run_clears_the_failures_of_the_last(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "shard-00001.done.json").unlink()
    (out / "shard-00001.failed.json").write_text('{"error": "OSError", "message": "full"}')
    assert status(out).failed == {1: "OSError: full"}
    read = Path.read_text

    def cleared(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name.endswith(".failed.json"):
            path.unlink()
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", cleared)
    state = status(out)
    assert (state.failed, state.planned) == ({}, 1)


def test_a_job_that_was_planned_meanwhile_is_not_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Path.iterdir

    def planned(folder: Path) -> Any:
        (folder / "plan.json").write_text("{}")
        return names(folder)

    monkeypatch.setattr(Path, "iterdir", planned)
    _check_place(tmp_path, [])


# ---- the sources


def test_a_source_written_to_while_the_job_runs_ends_the_shard(
    vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[Any] = [{"id": str(i), "text": "x" * 4000} for i in range(20)]
    jsonl = write_jsonl(tmp_path / "d.jsonl", lines)
    inline([jsonl], vocabulary, tmp_path / "undisturbed")
    was, content = jsonl.stat(), jsonl.read_bytes()
    encode = Worker.encode

    def disturbed(self: Worker, shard: int) -> Any:
        if shard == 1:
            jsonl.write_bytes(content[7:] + content[:7])
            os.utime(jsonl, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
        return encode(self, shard)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "encode", disturbed)
        with pytest.raises(JobError, match=r"shard-00001 could not .*d.jsonl was written to while the job ran: bring"):
            inline([jsonl], vocabulary, tmp_path / "out")
    assert status(tmp_path / "out").done == 1
    assert quarantined(tmp_path / "out") == {}
    jsonl.write_bytes(content)
    os.utime(jsonl, ns=(was.st_atime_ns, was.st_mtime_ns))
    inline([jsonl], vocabulary, tmp_path / "out")
    assert fingerprint_of(tmp_path / "out") == fingerprint_of(tmp_path / "undisturbed")


# ---- what is not the item's fault


def test_a_tokenizer_that_cannot_be_loaded_is_no_quarantine(
    sources: list[Path], vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failure in (OSError(2, "No such file"), RuntimeError("no driver"), ValueError("bad state")):

        def fails(*arguments: Any, failure: Exception = failure, **options: Any) -> Any:
            raise failure

        monkeypatch.setattr(Vocabulary, "load_tokenizers", fails)
        with pytest.raises(JobError, match=r"JobError: tokenizer '.*' cannot be loaded: .*; mend its installation"):
            inline(sources, vocabulary, tmp_path / "out")
    assert quarantined(tmp_path / "out") == {}


def test_lost_memory_and_missing_modules_are_not_the_items_fault() -> None:
    for error in (
        ModuleNotFoundError("No module named 'soundfile'"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ):
        assert not is_items_fault(error)
    assert is_items_fault(RuntimeError("an odd number of samples"))


def test_a_pool_that_breaks_between_two_shards_ends_the_job_in_words(
    sources: list[Path], vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*arguments: Any) -> Any:
        raise BrokenProcessPool("a child process terminated abruptly")

    monkeypatch.setattr("multitok.prepare.executors.ProcessPoolExecutor.submit", breaks)
    with pytest.raises(JobError, match="shard-00000 could not be written: WorkerDied: its worker process"):
        prepare(sources, vocabulary, tmp_path / "out", workers=2)
