"""The sample set: every file is accounted for, small, readable as its modality, and referred to correctly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multitok.frontend import media
from multitok.protocol import Modality

DATA = Path(__file__).parents[1] / "examples/data"
FOLDERS = ("text", "photos", "sounds", "video", "volumes", "series", "sequences")
FILES = sorted(path for folder in FOLDERS for path in (DATA / folder).iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DATA)))
def test_every_file_is_readable_and_has_its_origin_and_licence_noted(path: Path) -> None:
    rows = [line for line in (DATA / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    name = f"{path.parent.name}/{path.name}"
    noted = [row for row in rows if name in row or ("`-2.wav`" in row and name == "sounds/speech-russian-2.wav")]
    assert len(noted) == 1
    assert all(cell.strip() for cell in noted[0].split("|")[1:-1])
    assert len(list(media.records(path))) >= 1


def test_every_modality_is_there() -> None:
    assert {modality for path in FILES for modality in media.modalities_of(path.name)} == set(Modality)


def test_the_set_stays_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 6e6


def test_documents_refer_to_files_that_exist() -> None:
    documents = [json.loads(line) for line in (DATA / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({document["id"] for document in documents}) == len(documents) >= 8
    for document in documents:
        for segment in document["segments"]:
            ((key, value),) = segment.items()
            if key not in ("text", "dna", "protein"):
                assert (DATA / value).is_file()
                assert Modality(key) in media.modalities_of(value)
