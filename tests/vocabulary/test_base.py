"""The shipped vocabulary: its IDs are an ID format for ever, and it is made of what ships."""

from __future__ import annotations

import numpy as np

from multitok.checkpoint import shipped_checkpoints, shipped_vocabularies
from multitok.vocabulary import Vocabulary

FINGERPRINT = "8c17ec5ed8f5304bd8aeb6ee154e5d3e35cfc2d8065e002fd035a5af3da0fcad"


def test_its_ids_never_change() -> None:
    assert Vocabulary.load("base").fingerprint == FINGERPRINT


def test_it_joins_every_shipped_checkpoint_as_it_is() -> None:
    vocabulary = Vocabulary.load("base")
    assert {entry.source for entry in vocabulary.entries.values()} == set(shipped_checkpoints())
    assert set(vocabulary.load_tokenizers()) == set(vocabulary.entries)


def test_its_ids_fit_uint16() -> None:
    assert Vocabulary.load("base").dtype == np.uint16


def test_a_path_is_loaded_like_a_name() -> None:
    path = shipped_vocabularies()["base"]
    assert Vocabulary.load(str(path)) == Vocabulary.load(path) == Vocabulary.load("base")
