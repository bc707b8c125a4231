"""Batches: every field against the reference, the same for any ranks, workers and interruptions."""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from multitok.errors import FingerprintError, LoaderError, ShardError, SpecError
from multitok.interleave import TokenSequence
from multitok.loader import MODALITY_IDS, PackedDataset
from multitok.loader.order import DocumentOrder
from multitok.loader.packing import PACKINGS
from tests.loader import reference
from tests.shards.outputs import Layout, write_output

LENGTHS = [[30, 1, 7, 64, 12], [], [5, 90, 3, 3], [17, 41]]
ROW_FIELDS = ("input_ids", "labels", "position_ids", "document_ids", "modality_ids", "loss_weights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    write_output(folder, LENGTHS)
    return folder


def _rows(dataset: PackedDataset) -> dict[str, list[Any]]:
    """All rows of all batches, field by field."""
    rows: dict[str, list[Any]] = {name: [] for name in ROW_FIELDS}
    for batch in dataset:
        for name in ROW_FIELDS:
            rows[name] += batch[name].tolist()
    return rows


def _same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    assert left.keys() == right.keys()
    return all(
        torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        for name, value in left.items()
    )


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 50), max_size=5), min_size=1, max_size=3).filter(any),
    size=st.integers(1, 40),
    packing=st.sampled_from(PACKINGS),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 5),
    epochs=st.integers(1, 2),
    stretch=st.none() | st.integers(1, 60),
)
def test_every_field_equals_the_reference(
    lengths: list[list[int]], size: int, packing: Any, batch_size: int, seed: int, epochs: int, stretch: int | None
) -> None:
    weights = {"image": 0.5, "structure": 0.0, "audio": 2.0}
    with tempfile.TemporaryDirectory() as name:
        documents = write_output(Path(name), lengths, seed=seed)
        keys: dict[str, Any] = {"packing": packing, "batch_size": batch_size, "seed": seed, "epochs": epochs}
        dataset = PackedDataset(name, size, loss_weights=weights, pad_id=999, shuffle_tokens=stretch, **keys)
        batches = list(dataset)
        expected = _expected(documents, size, packing, seed, epochs, weights, stretch)
    assert len(batches) == -(-len(expected) // batch_size)
    for number, batch in enumerate(batches):
        rows = expected[number * batch_size : (number + 1) * batch_size]
        rows += [reference.fields_of_row([], size, documents, weights, 999)] * (batch_size - len(rows))
        for field in ROW_FIELDS:
            assert batch[field].shape == (batch_size, size)
            assert batch[field].dtype == (torch.float32 if field == "loss_weights" else torch.int64)
            assert batch[field].tolist() == [row[field] for row in rows], field
        bounds = sorted({number * size + bound for number, row in enumerate(rows) for bound in row["bounds"]})
        assert batch["cu_seqlens"].dtype == torch.int32
        assert batch["cu_seqlens"].tolist() == bounds
        assert batch["max_seqlen"] == max(np.diff(bounds))


def _expected(
    documents: list[TokenSequence],
    size: int,
    packing: str,
    seed: int,
    epochs: int,
    weights: dict[str, float],
    stretch: int | None,
) -> list[dict[str, list[Any]]]:
    # What is shuffled: (document, first token, length).
    units = [
        (number, start, min(stretch or len(document), len(document) - start))
        for number, document in enumerate(documents)
        for start in range(0, len(document), stretch or len(document))
    ]
    order = DocumentOrder(len(units), seed, shuffle=True)
    lengths = [length for _, _, length in units]
    window = max(256, 256 * size // max(1, sum(lengths) // len(units)))  # units that a fit packing looks at together
    rows = [
        row
        for epoch in range(epochs)
        for row in reference.rows_of_epoch(order.take(epoch, 0, len(units)).tolist(), lengths, size, packing, window)
    ]
    in_documents = [
        [
            reference.Token(units[token.document][0], units[token.document][1] + token.at, token.document)
            for token in row
        ]
        for row in rows
    ]
    return [reference.fields_of_row(row, size, documents, weights, 999) for row in in_documents]


@pytest.mark.parametrize("stretch", [None, 5, 16, 1000])
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_token_once_an_epoch(folder: Path, packing: Any, stretch: int | None) -> None:
    """Every token is an input once, and every token but a document's first is a label once."""
    rows = _rows(PackedDataset(folder, 16, packing=packing, batch_size=2, epochs=3, shuffle_tokens=stretch))
    documents = write_lengths()
    seen: dict[int, list[int]] = {document: [] for document in range(len(documents))}
    num_labels = 0
    for names, labels in zip(rows["document_ids"], rows["labels"], strict=True):
        for name, label in zip(names, labels, strict=True):
            if name >= 0:
                seen[name].append(1)
            num_labels += label != -100
    assert {name: len(tokens) for name, tokens in seen.items()} == {
        name: 3 * length for name, length in enumerate(documents)
    }
    assert num_labels == 3 * (sum(documents) - len(documents))


def test_stretches_of_a_long_document_are_spread_over_the_epoch(tmp_path: Path) -> None:
    write_output(tmp_path, [[1000, *[20] * 50]])

    def runs(stretch: int | None) -> int:
        """How often rows of the long document begin after rows of others."""
        rows = _rows(PackedDataset(tmp_path, 20, batch_size=1, shuffle_tokens=stretch))["document_ids"]
        is_long = [row[0] == 0 for row in rows]
        return sum(now and not before for before, now in zip([False, *is_long], is_long, strict=False))

    assert runs(None) == 1
    assert runs(20) > 10


def write_lengths() -> list[int]:
    """Length of each document of the fixture."""
    return [length for of_shard in LENGTHS for length in of_shard]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("world_size", [2, 4])
def test_global_batches_do_not_depend_on_the_ranks(folder: Path, packing: Any, world_size: int) -> None:
    keys: dict[str, Any] = {"packing": packing, "epochs": 2}
    one = list(PackedDataset(folder, 16, batch_size=8, **keys))
    keys |= {"batch_size": 8 // world_size, "world_size": world_size}
    ranks = [list(PackedDataset(folder, 16, rank=rank, **keys)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {len(one)}  # nobody waits at the end
    for whole, *parts in zip(one, *ranks, strict=True):
        for name in ROW_FIELDS:
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
        assert all(torch.equal(part["place"], whole["place"]) for part in parts)


@pytest.mark.parametrize("packing", PACKINGS)
def test_resuming_anywhere(folder: Path, packing: Any) -> None:
    """After each batch, through real JSON, with another number of ranks and another batch size."""
    keys: dict[str, Any] = {"packing": packing, "epochs": 2}
    whole = _rows(PackedDataset(folder, 16, batch_size=1, **keys))
    dataset = PackedDataset(folder, 16, batch_size=3, **keys)
    for number, batch in enumerate(dataset, start=1):
        state = json.loads(json.dumps(dataset.state_dict()))
        assert state == dataset.state_dict(batch)
        assert state["rows"] == min(3 * number, len(whole["labels"]))
        ranks = [PackedDataset(folder, 16, batch_size=2, rank=rank, world_size=2, **keys) for rank in range(2)]
        for rank in ranks:
            rank.load_state_dict(state)
            assert rank.state_dict() == state
        for name in ROW_FIELDS:
            rest = [row for parts in zip(*ranks, strict=True) for part in parts for row in part[name].tolist()]
            wanted = whole[name][state["rows"] :]
            assert rest[: len(wanted)] == wanted
    final = PackedDataset(folder, 16, **keys)
    final.load_state_dict(dataset.state_dict())
    assert list(final) == []
    final = PackedDataset(folder, 16, packing=packing, epochs=3)  # a longer run goes on where the shorter one ended
    final.load_state_dict(dataset.state_dict())
    assert {int(row["place"][0]) for row in final} == {2, 3}


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_workers_keep_the_order(folder: Path, num_workers: int, batch_size: int | None) -> None:
    dataset = PackedDataset(folder, 16, batch_size=batch_size, epochs=2)
    alone = list(dataset)
    together = list(DataLoader(dataset, batch_size=None, num_workers=num_workers))
    assert all(map(_same, alone, together))
    assert len(alone) == len(together)


def test_workers_and_states(folder: Path) -> None:
    dataset = PackedDataset(folder, 16, batch_size=2)
    alone = list(dataset)
    fresh = PackedDataset(folder, 16, batch_size=2)
    batches = iter(DataLoader(fresh, batch_size=None, num_workers=2))
    used = [next(batches) for _ in range(3)]
    with pytest.raises(LoaderError, match=r"call state_dict\(batch\) with the last batch you used"):
        fresh.state_dict()
    state = fresh.state_dict(used[-1])
    del batches
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    rest = list(DataLoader(fresh, batch_size=None, num_workers=1, multiprocessing_context="spawn"))
    assert all(map(_same, alone, used + rest))
    assert len(alone) == 3 + len(rest)


def test_iterating_again_starts_again(folder: Path) -> None:
    dataset = PackedDataset(folder, 16)
    first = [next(iter(dataset)) for _ in range(2)]
    assert _same(*first)
    assert all(map(_same, dataset, dataset))
    assert all(map(_same, dataset, pickle.loads(pickle.dumps(dataset))))


def test_no_end_without_epochs(folder: Path) -> None:
    epochs = [
        int(batch["place"][0]) for batch, _ in zip(PackedDataset(folder, 64, epochs=None), range(40), strict=False)
    ]
    assert epochs == sorted(epochs)
    assert epochs[-1] >= 5


def test_several_folders(folder: Path, tmp_path: Path) -> None:
    write_output(tmp_path / "more", [[20, 30]], seed=1)
    both = _rows(PackedDataset([folder, tmp_path / "more"], 16, shuffle=False, batch_size=1))
    documents = [name for row in both["document_ids"] for name in row if name >= 0]
    assert sorted(set(documents)) == list(range(len(write_lengths()) + 2))
    assert documents == sorted(documents)
    write_output(tmp_path / "foreign", [[20]], Layout(fingerprint="0" * 64))
    with pytest.raises(FingerprintError, match=f"has vocabulary {'f' * 64}, .*foreign has {'0' * 64}"):
        PackedDataset([folder, tmp_path / "foreign"])


def test_a_state_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    state = PackedDataset(folder, 16, seed=1).state_dict()
    for keys in ({"seed": 2}, {"packing": "best_fit"}, {"shuffle": False}, {"sequence_length": 17}):
        other = PackedDataset(folder, **{"sequence_length": 16, "seed": 1, **keys})
        with pytest.raises(LoaderError, match=r"the state is of settings \{.*\}, this dataset is of \{.*\}"):
            other.load_state_dict(state)
    write_output(tmp_path / "other", LENGTHS, seed=1)
    other = PackedDataset(tmp_path / "other", 16, seed=1)
    with pytest.raises(LoaderError, match=f"of data {state['data']}, this dataset is of {other.state_dict()['data']}"):
        other.load_state_dict(state)
    with pytest.raises(LoaderError, match="state of version 7, this multitok reads 1"):
        PackedDataset(folder, 16, seed=1).load_state_dict({**state, "version": 7})
    with pytest.raises(LoaderError, match="state of version None"):
        PackedDataset(folder, 16, seed=1).load_state_dict({})
    shutil.copytree(folder, tmp_path / "copy")
    PackedDataset(tmp_path / "copy", 16, seed=1).load_state_dict(state)  # the same data in another place


def test_settings_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="rank=2 of world_size=2: give a rank from 0"):
        PackedDataset(folder, rank=2, world_size=2)
    with pytest.raises(SpecError, match="sequence_length=0: give the tokens per row"):
        PackedDataset(folder, 0, batch_size=1)
    with pytest.raises(SpecError, match="batch_size=0: give at least 1 row"):
        PackedDataset(folder, batch_size=0)
    with pytest.raises(SpecError, match=f"'smell': 1.* give numbers >= 0 for any of {', '.join(MODALITY_IDS)}"):
        PackedDataset(folder, loss_weights={"smell": 1})
    with pytest.raises(SpecError, match="give numbers >= 0"):
        PackedDataset(folder, loss_weights={"image": -1.0})
    with pytest.raises(FingerprintError, match="this one is abc"):
        PackedDataset(folder, vocabulary="abc")
    with pytest.raises(LoaderError, match="no folder given"):
        PackedDataset([])
    write_output(tmp_path / "empty", [[], []])
    with pytest.raises(LoaderError, match="no documents in there"):
        PackedDataset(tmp_path / "empty")


def test_unfinished_shards_fail_at_once(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "cut")
    payload = tmp_path / "cut" / "shard-00003.bin"
    payload.write_bytes(payload.read_bytes()[:-2])
    with pytest.raises(ShardError, match=r"shard-00003\.bin has 114 bytes, its record says 116"):
        PackedDataset(tmp_path / "cut")
    (tmp_path / "cut" / "manifest.json").unlink()
    with pytest.raises(ShardError, match="run the same prepare command again"):
        PackedDataset(tmp_path / "cut")


def test_the_state_of_one_worker_is_not_that_of_all(folder: Path) -> None:
    dataset = PackedDataset(folder, 16)
    dataset.load_state_dict({**dataset.state_dict(), "turn": [1, 2]})  # as StatefulDataLoader saves it in a worker
    with pytest.raises(LoaderError, match="that of one of 2 DataLoader workers, here are 0"):
        next(iter(dataset))
