"""Killed at random instants and run again until it is done, the output is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multitok.errors import JobError
from multitok.prepare import prepare, status, verify
from multitok.prepare.lock import job_lock
from multitok.vocabulary import Vocabulary
from tests.prepare import corpus

ROOT = Path(__file__).parents[2]


def _start(vocabulary: Path, out: Path, workers: int, sources: list[Path]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.prepare.run_job", str(vocabulary), str(out), str(workers)]
    return subprocess.Popen(
        [*command, *map(str, sources)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _sources(root: Path, count: int) -> list[Path]:
    """Enough of everything to keep a job busy for a few seconds, bad items included."""
    folder = corpus.write_folder(root / "mixed", count)
    (folder / "bad.png").write_bytes(b"no picture")
    documents = [{"id": str(i), "text": f"Line {i}. " * 60, "image": "mixed/part-0/000.png"} for i in range(count)]
    jsonl = corpus.write_jsonl(root / "docs.jsonl", [*documents, b"{broken"])
    tar = corpus.write_tar(
        root / "t.tar", [(f"{i}.{e}", d) for i in range(9) for e, d in [("txt", b"t"), ("wav", corpus.sound(i))]]
    )
    return [folder, jsonl, tar]


def _kill_until_done(
    root: Path, vocabulary: Vocabulary, workers: int, kills: int, count: int, only_parent: bool
) -> None:
    sources, path, out = _sources(root, count), vocabulary.save(root / "vocabulary.json"), root / "out"
    rng = random.Random(workers)
    began = time.monotonic()
    undisturbed = _start(path, root / "undisturbed", workers, sources)
    assert undisturbed.wait() == 0, undisturbed.communicate()[1]
    duration = time.monotonic() - began
    expected = corpus.fingerprint_of(root / "undisturbed")
    num_kills = 0
    while num_kills < kills:
        # From the first file on, so that planning and start-up are hit too; then some while into the work.
        job = _start(path, out, workers, sources)
        while job.poll() is None and not out.exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5 * duration))
        if job.poll() is None:
            num_kills += 1
            os.kill(job.pid, signal.SIGKILL) if only_parent else os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
        if (out / "manifest.json").exists() and not (out / ".lock").exists():
            assert corpus.fingerprint_of(out) == expected
            shutil.rmtree(out)
    last = _start(path, out, workers, sources)
    errors = last.communicate()[1]
    assert last.returncode == 0, errors
    assert corpus.fingerprint_of(out) == expected
    assert verify(out).num_documents > 0


@pytest.mark.parametrize(("workers", "only_parent"), [(2, True)])
def test_three_kills(vocabulary: Vocabulary, tmp_path: Path, workers: int, only_parent: bool) -> None:
    _kill_until_done(tmp_path, vocabulary, workers, 3, 40, only_parent)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills(vocabulary: Vocabulary, tmp_path: Path, workers: int) -> None:
    _kill_until_done(tmp_path, vocabulary, workers, 20, 250, only_parent=False)


def test_workers_end_with_their_parent(vocabulary: Vocabulary, tmp_path: Path) -> None:
    sources, path, out = _sources(tmp_path, 150), vocabulary.save(tmp_path / "vocabulary.json"), tmp_path / "out"
    job = _start(path, out, 2, sources)
    while job.poll() is None and not list(out.glob("*.done.json")):
        time.sleep(0.01)
    assert job.poll() is None
    assert status(out).is_running
    job.kill()
    job.communicate(timeout=20)  # returns when no process holds the pipes any more
    names = corpus.fingerprint_of(out)
    time.sleep(0.3)
    assert corpus.fingerprint_of(out) == names
    with job_lock(out):
        pass


def test_a_worker_that_dies_is_named_and_the_job_can_go_on(vocabulary: Vocabulary, tmp_path: Path) -> None:
    sources, path, out = _sources(tmp_path, 150), vocabulary.save(tmp_path / "vocabulary.json"), tmp_path / "out"
    job = _start(path, out, 2, sources)
    while job.poll() is None and not list(out.glob("*.done.json")):
        time.sleep(0.01)
    children = (Path("/proc") / str(job.pid) / "task" / str(job.pid) / "children").read_text().split()
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(int(workers[0]), signal.SIGKILL)
    errors = job.communicate()[1]
    assert job.returncode == 1
    assert "JobError: shard-" in errors
    assert "its worker process, or one beside it, ended without a word" in errors
    assert "run the same command again to go on" in errors
    assert status(out).failed
    prepare(sources, vocabulary, out, executor="inline", shard_bytes=20_000)
    assert not status(out).failed


def test_an_interrupted_job_stops_at_once_and_can_go_on(vocabulary: Vocabulary, tmp_path: Path) -> None:
    sources, path, out = _sources(tmp_path, 600), vocabulary.save(tmp_path / "vocabulary.json"), tmp_path / "out"
    job = _start(path, out, 2, sources)
    while job.poll() is None and not list(out.glob("*.done.json")):
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGINT)
    errors = job.communicate(timeout=20)[1]
    assert job.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not status(out).is_running
    assert not status(out).is_finished


def test_a_second_process_is_refused(vocabulary: Vocabulary, tmp_path: Path) -> None:
    sources, path, out = _sources(tmp_path, 30), vocabulary.save(tmp_path / "vocabulary.json"), tmp_path / "out"
    out.mkdir()
    with job_lock(out):
        second = _start(path, out, 1, sources)
        assert "is being prepared by process" in second.communicate()[1]
    with pytest.raises(JobError, match="holds no job"):
        status(out)
