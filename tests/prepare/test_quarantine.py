"""Bad input lands in quarantine with its reason, the rest goes on, and too much of it stops the job."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitok.errors import InputError, JobError, MissingExtraError
from multitok.prepare import prepare, status
from multitok.prepare.quarantine import is_items_fault
from multitok.prepare.report import JobReport
from multitok.shards import ShardSet
from multitok.vocabulary import Vocabulary
from tests.prepare.corpus import bomb, fingerprint_of, jpeg, png, quarantined, sound, write_jsonl, write_tar


def inline(sources: Any, vocabulary: Vocabulary, out: Path, **options: Any) -> JobReport:
    return prepare(sources, vocabulary, out, **{"executor": "inline", **options})


def _bad_files() -> dict[str, tuple[bytes, str, str]]:
    """Name -> content, error, and words of the message."""
    broken_rate = bytearray(sound(3))
    broken_rate[24:28] = struct.pack("<I", 0)
    nan = sound(4, subtype="FLOAT", samples=np.array([0.0, np.nan, 0.1] * 100))
    return {
        "bomb.png": (bomb(), "InputError", "60"),
        "cut.flac": (sound(2, "FLAC")[:2000], "MediaError", "cannot be decoded as FLAC audio"),
        "cut.jpg": (jpeg(2)[:-40], "MediaError", "truncated"),
        "cut.png": (png(2)[:700], "MediaError", "cut short"),
        "cut.wav": (sound(2)[:3000], "MediaError", "cut short"),
        "empty.png": (b"", "InputError", "empty"),
        "empty.txt": (b"", "InputError", "empty"),
        "latin.txt": ("Füße".encode("latin-1"), "MediaError", "not UTF-8"),
        "letters.fa": (b">one\nAC!GT\n", "InputError", "!"),
        "nan.wav": (nan, "InputError", "sample 1 is nan"),
        "rate.wav": (bytes(broken_rate), "InputError", "a sample rate of 0 Hz"),
        "really-a.png": (sound(5), "MediaError", "holds RIFF/WAVE audio"),
        "words.csv": (b"a,b\n1,two\n", "MediaError", "two"),
    }


def test_every_bad_file_is_quarantined_and_the_good_ones_are_not(vocabulary: Vocabulary, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    bad = _bad_files()
    for name, (data, _, _) in bad.items():
        (root / name).write_bytes(data)
    good = {"a.png": png(1), "b.jpg": jpeg(1), "c.wav": sound(1), "d.flac": sound(1, "FLAC"), "z.txt": b"the end"}
    for name, data in good.items():
        (root / name).write_bytes(data)
    (root / "linked.txt").symlink_to(root / "z.txt")
    report = inline([root], vocabulary, tmp_path / "out", error_budget=len(bad))
    found = quarantined(tmp_path / "out")
    assert set(found) == {f"data/{name}" + ("#one" if name == "letters.fa" else "") for name in bad}
    for name, (_, error, words) in bad.items():
        got = found[f"data/{name}" + ("#one" if name == "letters.fa" else "")]
        assert got[0] == error, (name, got)
        assert words in got[1], (name, got)
        assert str(tmp_path) not in got[1]
    assert {sequence.id for sequence in ShardSet(tmp_path / "out")} == {f"data/{n}" for n in [*good, "linked.txt"]}
    assert report.num_quarantined == len(bad)


def test_bad_documents_are_quarantined_and_the_good_ones_are_not(vocabulary: Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "cut.png").write_bytes(png(1)[:300])
    (tmp_path / "folder.png").mkdir()
    jsonl = write_jsonl(
        tmp_path / "docs.jsonl",
        [
            {"id": "good", "text": "x", "image": "a.png"},
            {"id": "missing", "text": "x", "image": "gone.png"},
            {"id": "cut", "text": "x", "image": "cut.png"},
            {"id": "folder", "image": "folder.png"},
            {"id": "long name", "image": "x" * 300 + ".png"},
            {"id": "sound as image", "audio": "a.png"},
            {"id": "empty", "text": ""},
            {"id": "bases", "sequence": "AC?"},
            {"id": "late", "text": "also good"},
            b"{broken",
        ],
    )
    tar = write_tar(tmp_path / "t.tar", [("0.txt", b"good"), ("../1.txt", b"bad"), ("2.png", b"no picture")])
    report = inline([jsonl, tar], vocabulary, tmp_path / "out", error_budget=0.9)
    found = quarantined(tmp_path / "out")
    assert {key: value[0] for key, value in found.items()} == {
        "missing": "FileNotFoundError",
        "cut": "MediaError",
        "folder": "IsADirectoryError",
        "long name": "OSError",
        "sound as image": "MediaError",
        "empty": "InputError",
        "bases": "InputError",
        f"docs.jsonl:{jsonl.stat().st_size - len(b'{broken') - 1}": "InputError",
        "t.tar/../1": "InputError",
        "t.tar/2": "MediaError",
    }
    assert found["missing"][1] == "gone.png: No such file or directory"
    assert [sequence.id for sequence in ShardSet(tmp_path / "out")] == ["good", "late", "t.tar/0"]
    assert report.num_quarantined == len(found)


def test_one_bad_text_does_not_spoil_its_batch(
    vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multitok.tokenizers.text_bytes import TextBytes

    encode = TextBytes.encode

    def picky(self: TextBytes, raw: str) -> Any:
        if "bad" in raw:
            raise InputError(f"{raw!r} at {object()!r} is not to my taste")
        return encode(self, raw)

    monkeypatch.setattr(TextBytes, "encode", picky)
    monkeypatch.setattr(TextBytes, "encode_batch", lambda self, raws: [picky(self, raw) for raw in raws])
    jsonl = write_jsonl(tmp_path / "d.jsonl", [{"id": str(i), "text": "bad" if i % 4 == 1 else "ok"} for i in range(9)])
    inline([jsonl], vocabulary, tmp_path / "out", error_budget=3)
    assert [sequence.id for sequence in ShardSet(tmp_path / "out")] == ["0", "2", "3", "4", "6", "7", "8"]
    # No address of this run's memory: the quarantine is as deterministic as the shards.
    message = "'bad' at <object object at 0x...> is not to my taste"
    assert quarantined(tmp_path / "out") == dict.fromkeys(["1", "5"], ("InputError", message))


def test_too_many_bad_items_stop_the_job_and_a_larger_budget_goes_on(vocabulary: Vocabulary, tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "d.jsonl", [{"text": "ok"} if i % 3 else {"image": f"{i}.png"} for i in range(99)])
    for _ in range(2):
        with pytest.raises(JobError) as caught:
            inline([jsonl], vocabulary, tmp_path / "out", shard_bytes=500)
        message = str(caught.value)
        assert "items could not be encoded, more than error_budget=0.01 allows" in message
        assert "11 x FileNotFoundError (first: d.jsonl:0: 0.png: No such file or directory)" in message
        assert f"{tmp_path / 'out'}/shard-*.quarantine.jsonl" in message
    assert not (tmp_path / "out/manifest.json").exists()
    before = status(tmp_path / "out").done
    report = inline([jsonl], vocabulary, tmp_path / "out", shard_bytes=500, error_budget=0.4)
    assert (report.num_quarantined, report.num_documents) == (33, 66)
    assert report.new_shards == report.num_shards - before
    whole = tmp_path / "whole"
    inline([jsonl], vocabulary, whole, shard_bytes=500, error_budget=33)
    assert fingerprint_of(tmp_path / "out") == fingerprint_of(whole)


def test_a_job_of_bad_items_only_does_not_pass(vocabulary: Vocabulary, tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "d.jsonl", [b"{", b"{"])
    with pytest.raises(JobError, match="2 of 2 items could not be encoded"):
        inline([jsonl], vocabulary, tmp_path / "out")
    assert inline([jsonl], vocabulary, tmp_path / "out", error_budget=2).num_documents == 0


def test_names_that_are_not_utf8_are_written_readably(vocabulary: Vocabulary, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in (b"good-\xff.txt", b"bad-\xff.png"):
        with open(bytes(root) + b"/" + name, "wb") as file:
            file.write(b"x")
    inline([root], vocabulary, tmp_path / "out")
    assert [sequence.id for sequence in ShardSet(tmp_path / "out")] == [r"data/good-\udcff.txt"]
    assert list(quarantined(tmp_path / "out")) == [r"data/bad-\udcff.png"]


def test_which_errors_are_the_items_fault() -> None:
    assert is_items_fault(InputError("bad"))
    assert is_items_fault(KeyError("a decoder's accident"))
    assert is_items_fault(FileNotFoundError(2, "gone"))
    for error in (MemoryError(), OSError(28, "full"), MissingExtraError("no av"), JobError("stop")):
        assert not is_items_fault(error)
        wrapped = InputError("cannot be decoded")
        wrapped.__cause__ = error
        assert not is_items_fault(wrapped)
