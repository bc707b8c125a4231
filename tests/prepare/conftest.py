from __future__ import annotations

from pathlib import Path

import pytest

from multitok.vocabulary import Vocabulary
from tests.prepare import corpus


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return corpus.build_vocabulary(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus.write_folder(tmp_path_factory.mktemp("sources") / "mixed")


@pytest.fixture(scope="module")
def undisturbed(folder: Path, vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a job that nothing disturbed; copy it before changing it."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    report = corpus.inline([folder], vocabulary, out)
    assert report.num_shards == report.new_shards >= 5
    return out
