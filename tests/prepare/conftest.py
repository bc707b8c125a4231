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
