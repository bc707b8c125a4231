"""The shipped vocabularies: their IDs are an ID format for ever, and they are made of what ships."""

from __future__ import annotations

import numpy as np
import pytest

from multitok.checkpoint import shipped_checkpoints, shipped_vocabularies
from multitok.vocabulary import Vocabulary

FINGERPRINTS = {
    "base": "8c17ec5ed8f5304bd8aeb6ee154e5d3e35cfc2d8065e002fd035a5af3da0fcad",
    "neural": "5842b828692cc38640e10561f45b6069865d0404d2819c5968273ab48a63e9ea",
    "speech": "ead1a9bd29b7fca800fb7aa8c7941a31462de560e5e0dd75d7ec0df41409d604",
}


def test_these_are_all() -> None:
    assert set(shipped_vocabularies()) == set(FINGERPRINTS)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_its_ids_never_change(name: str) -> None:
    assert Vocabulary.load(name).fingerprint == FINGERPRINTS[name]


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_it_joins_shipped_checkpoints_as_they_are(name: str) -> None:
    vocabulary = Vocabulary.load(name)
    assert {entry.source for entry in vocabulary.entries.values()} <= set(shipped_checkpoints())
    assert set(vocabulary.load_tokenizers()) == set(vocabulary.entries)


def test_they_differ_in_the_tokenizers_of_pictures_clips_and_volumes() -> None:
    base, neural = Vocabulary.load("base"), Vocabulary.load("neural")
    sources = [{name: entry.source for name, entry in each.entries.items()} for each in (base, neural)]
    assert {name for name in sources[0] if sources[0][name] != sources[1][name]} == {"image", "video", "volume"}
    assert neural.vocab_size == base.vocab_size


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_its_ids_fit_uint16(name: str) -> None:
    assert Vocabulary.load(name).dtype == np.uint16


def test_a_path_is_loaded_like_a_name() -> None:
    path = shipped_vocabularies()["base"]
    assert Vocabulary.load(str(path)) == Vocabulary.load(path) == Vocabulary.load("base")
