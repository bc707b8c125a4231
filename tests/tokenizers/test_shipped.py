"""Every shipped checkpoint: the contract, and its golden IDs."""

from __future__ import annotations

from pathlib import Path

import pytest

import multitok
from multitok.checkpoint import shipped_checkpoints
from multitok.registry import KINDS
from tests import golden_ids, samples
from tests.contract import check_tokenizer, same_raw


@pytest.mark.parametrize("checkpoint", sorted(shipped_checkpoints()))
def test_contract(checkpoint: str, tmp_path: Path) -> None:
    tokenizer = multitok.load(checkpoint)
    check_tokenizer(tokenizer, samples.raws(tokenizer), tmp_path)


@pytest.mark.parametrize("checkpoint", sorted(shipped_checkpoints()))
def test_golden_ids(checkpoint: str) -> None:
    tokenizer = multitok.load(checkpoint)
    folder = golden_ids.ROOT / checkpoint
    raw, expected = golden_ids.read_raw(folder / "raw.npz"), golden_ids.read_codes(folder / "codes.npz")
    assert tokenizer.encode(raw) == expected
    if tokenizer.spec.lossless:
        assert same_raw(tokenizer.decode(expected), raw)


def test_every_kind_ships_a_checkpoint() -> None:
    assert {multitok.load(name).spec.kind for name in shipped_checkpoints()} == set(KINDS)


@pytest.mark.parametrize("checkpoint", sorted(shipped_checkpoints()))
def test_card_says_what_a_user_must_know(checkpoint: str) -> None:
    card = (shipped_checkpoints()[checkpoint] / "card.md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Licence", "## Training", "## Quality", "## Use"):
        assert heading in card
