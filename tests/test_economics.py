"""The count of sources equals what a prepare job writes for them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multitok.economics import MAX_REJECTED_KEPT, count_tokens
from multitok.errors import CheckpointError
from multitok.frontend.media import Limits
from multitok.interleave import SegmentTemplate, Template
from multitok.prepare import prepare
from multitok.shards import Manifest
from multitok.vocabulary import Vocabulary

DATA = Path(__file__).parent.parent / "examples" / "data"
PHOTO = DATA / "photos" / "cat.png"
SOUND = next(iter(sorted((DATA / "sounds").iterdir())))

LINES = [
    '{"id": "both", "text": "A cat.", "image": "cat.png"}',
    "no JSON",
    '{"id": "empty", "text": ""}',
    '{"id": "gone", "text": "x", "image": "none.png"}',
    '{"segments": [{"text": "one"}, {"dna": "ACGTNN"}, {"bytes": "two"}, {"image": "cat.png"}, {"protein": "MKV"}]}',
    '{"id": "large", "image": "cat.png", "text": "' + "x" * 600 + '"}',
    '{"text": "no newline at the end"}',
]

OTHER_TEMPLATE = Template(
    segments={
        **Template().segments,
        "image": SegmentTemplate(begin="<|image|>", end="<|/image|>", pattern="flat"),
        "audio": SegmentTemplate(),
        "sequence": SegmentTemplate(begin="<|sequence|>", size="grid"),
    }
)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """One source of each kind, each with something to count, to leave out and to refuse."""
    folder = tmp_path / "a folder ☃"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "a.txt").write_text("hidden")
    (folder / "a.txt").write_text("one two")
    (folder / "bad.txt").write_bytes(b"\xff")
    (folder / "zero.png").touch()
    (folder / "what.xyz").write_text("?")
    (folder / "genes.fa").write_text(">one\nACGT\n>two\nGGGACGTN\n")
    for path in (PHOTO, SOUND):
        shutil.copy(path, folder)
    shutil.copy(PHOTO, folder / "a.png")
    documents = tmp_path / "documents.jsonl"
    documents.write_text("\n".join(LINES), encoding="utf-8")
    shutil.copy(PHOTO, tmp_path / "cat.png")
    photo = PHOTO.read_bytes()
    table = tmp_path / "rows.parquet"
    columns: dict[str, list[Any]] = {"text": ["a b", None, ""], "image": [photo, photo, photo[:100]], "note": [1, 2, 3]}
    pq.write_table(pa.table(columns), table)
    tar = tmp_path / "samples.tar"
    with tarfile.open(tar, "w") as file:
        for name, data in (("a.txt", b"hi"), ("a.png", photo), ("b.xyz", b"?"), ("c.fa", b">x\nAC\n>y\nGT\n")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return [folder, documents, table, tar, SOUND]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"group_by_stem": True, "use": {"text": "bytes"}, "limits": Limits(max_text_bytes=500)},
        {"template": OTHER_TEMPLATE},
    ],
    ids=["defaults", "grouped, other tokenizer, limit", "template"],
)
def test_the_count_is_what_prepare_writes(sources: list[Path], tmp_path: Path, options: dict[str, Any]) -> None:
    vocabulary = Vocabulary.load("base")
    report = prepare(sources, vocabulary, tmp_path / "out", executor="inline", error_budget=1.0, **options)
    count = count_tokens(sources, vocabulary, **options)
    assert (count.num_documents, count.num_tokens) == (report.num_documents, report.num_tokens)
    assert count.num_documents > 5
    assert dict(count.skipped) == dict(sorted(report.skipped.items()))
    assert {modality: (part.items, part.tokens, part.num_bytes) for modality, part in count.modalities.items()} == {
        modality: (part.items, part.tokens, part.bytes_in) for modality, part in report.modalities.items()
    }
    lines = [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "out").glob("*.quarantine.jsonl"))]
    quarantined = [json.loads(line) for line in "".join(lines).splitlines()]
    assert count.num_rejected == report.num_quarantined == len(quarantined)
    assert sorted((r.source, r.place, r.message) for r in count.rejected) == sorted(
        (entry["source"], entry["place"], entry["message"]) for entry in quarantined
    )
    assert Manifest.load(tmp_path / "out").num_tokens == count.num_tokens


def test_a_grid_that_the_template_forbids_is_refused_as_prepare_refuses_it() -> None:
    template = Template(segments={**Template().segments, "image": SegmentTemplate(grid=(4, 4))})
    count = count_tokens([PHOTO], Vocabulary.load("base"), template=template)
    assert (count.num_documents, count.num_rejected) == (0, 1)
    assert "(4, 4)" in count.rejected[0].message


def test_many_refused_items_are_counted_and_the_first_kept(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("[]\n" * (MAX_REJECTED_KEPT + 5))
    count = count_tokens([bad], Vocabulary.load("base"))
    assert (count.num_rejected, len(count.rejected)) == (MAX_REJECTED_KEPT + 5, MAX_REJECTED_KEPT)


def test_what_is_not_the_items_fault_is_raised(tmp_path: Path) -> None:
    data = Vocabulary.load("base").to_json()
    text = json.dumps(data).replace('"bpe-32k"', '"no-such-checkpoint"')
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CheckpointError, match="no-such-checkpoint"):
        count_tokens([tmp_path / "a.txt"], Vocabulary.from_json(json.loads(text)))
