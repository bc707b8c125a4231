"""Documents by number."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from multitok.errors import FingerprintError
from multitok.interleave import TokenSequence
from multitok.loader import TokenShardDataset
from tests.loader import reference
from tests.shards.outputs import write_output

LENGTHS = [[30, 1, 7], [], [5, 90]]


@pytest.fixture
def documents(tmp_path: Path) -> list[TokenSequence]:
    return write_output(tmp_path, LENGTHS)


def test_fields(tmp_path: Path, documents: list[TokenSequence]) -> None:
    dataset = TokenShardDataset(tmp_path, loss_weights={"text": 0.25})
    assert len(dataset) == 5
    for number, document in enumerate(documents):
        row = [reference.Token(number, at) for at in range(len(document))]
        expected = reference.fields_of_row(row, len(row), documents, {"text": 0.25}, 0)
        item = dataset[number]
        bounds = expected.pop("bounds")
        assert item.pop("cu_seqlens").tolist() == bounds == [0, len(document)]
        assert item.pop("max_seqlen") == len(document)
        assert {name: value.tolist() for name, value in item.items()} == expected
        assert dataset.sequence(number) == document


def test_out_of_range(tmp_path: Path, documents: list[TokenSequence]) -> None:
    dataset = TokenShardDataset(tmp_path)
    for bad in (-1, len(documents)):
        with pytest.raises(IndexError, match=f"document {bad}: there are 5, from 0"):
            dataset[bad]
        with pytest.raises(IndexError, match=f"document {bad}: there are 5, from 0"):
            dataset.sequence(bad)
    assert len(list(dataset)) == 5  # an IndexError ends plain iteration


def test_workers(tmp_path: Path, documents: list[TokenSequence]) -> None:
    loader = DataLoader(TokenShardDataset(tmp_path), batch_size=None, num_workers=2)
    found = [item["input_ids"].tolist() for item in loader]
    assert found == [document.ids.tolist() for document in documents]


def test_pickles(tmp_path: Path, documents: list[TokenSequence]) -> None:
    dataset = pickle.loads(pickle.dumps(TokenShardDataset(tmp_path)))
    assert torch.equal(dataset[4]["input_ids"], torch.tensor(documents[4].ids.tolist()))


def test_foreign_vocabulary(tmp_path: Path, documents: list[TokenSequence]) -> None:
    with pytest.raises(FingerprintError, match="this one is abc"):
        TokenShardDataset(tmp_path, vocabulary="abc")
