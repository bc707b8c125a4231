"""Fingerprints, files, and loading the tokenizers a vocabulary was built with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import multitok
from multitok import registry
from multitok.errors import CheckpointError, FingerprintError, VocabularyError
from multitok.protocol import Modality
from multitok.vocabulary import Block, TokenizerEntry, Vocabulary
from tests.vocabulary.toy import Letters, entry

GOLDEN = Path(__file__).parent / "golden.json"
# Written once: a vocabulary saved today must be the same vocabulary for ever.
GOLDEN_FINGERPRINT = "7ad9cdf007036a208b8d10f36f9ec0ef28c20aa8205150178a55a29dc3861dde"


def golden() -> Vocabulary:
    text, image = entry("text", (3,)), entry("image", (2, 2), Modality.IMAGE, stride=8, source="image-patch8")
    blocks = (
        Block("text", 0, 3, start=4),
        Block("image", 0, 2, lookup=(9, 2)),
        Block("image", 1, 2, start=7, input_only=True),
    )
    return Vocabulary({"text": text, "image": image}, {"<|pad|>": 0, "<|Ω|>": 1}, blocks, 12)


def test_golden_file_and_fingerprint() -> None:
    assert Vocabulary.load(GOLDEN) == golden()
    assert golden().fingerprint == GOLDEN_FINGERPRINT
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == golden().to_json()


def test_save_writes_the_golden_bytes(tmp_path: Path) -> None:
    assert golden().save(tmp_path / "v.json").read_bytes() == GOLDEN.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["v.json"]


def test_the_fingerprint_names_all_but_the_sources() -> None:
    base = golden()

    def other(**changes: Any) -> str:
        fields = {"entries": base.entries, "specials": base.specials, "blocks": base.blocks, "vocab_size": 12}
        return Vocabulary(**{**fields, **changes}).fingerprint

    moved = TokenizerEntry(base.spec("image"), base.entry("image").fingerprint, "elsewhere")
    assert other(entries={**base.entries, "image": moved}) == base.fingerprint
    retrained = TokenizerEntry(base.spec("image"), "0" * 64, "image-patch8")
    plain = (base.blocks[0], base.blocks[1], Block("image", 1, 2, start=7))
    changed = [
        other(entries={**base.entries, "image": retrained}),
        other(specials={"<|pad|>": 1, "<|Ω|>": 0}),
        other(blocks=plain),
        other(vocab_size=13),
        base.name_reserved(["<|x|>"]).fingerprint,
        base.fingerprint,
    ]
    assert len(set(changed)) == len(changed)
    assert (base == golden(), base == other, hash(base) == hash(golden())) == (True, False, True)


def test_another_vocabulary_is_refused_by_name() -> None:
    golden().require_same(GOLDEN_FINGERPRINT, where="the manifest")
    expected = (
        f"the manifest in runs/a was made with the vocabulary ffffffffffff..., this one is {GOLDEN_FINGERPRINT[:12]}"
    )
    with pytest.raises(FingerprintError, match=re.escape(expected)):
        golden().require_same("f" * 64, where="the manifest in runs/a")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format_version": 2}, VocabularyError, "a vocabulary of format_version 2, this multitok reads 1: upgrade"),
        ({"vocab_size": 13}, FingerprintError, "altered after it was written"),
        ({"special_tokens": {"<|pad|>": 1, "<|Ω|>": 0}}, FingerprintError, "altered after it was written"),
        ({"fingerprint": None}, FingerprintError, "says its fingerprint is None"),
        ({"blocks": None}, VocabularyError, "not a vocabulary: TypeError"),
        ({"blocks": [{"name": "text"}]}, VocabularyError, "not a vocabulary: KeyError"),
        ({"tokenizers": [{"spec": {}}]}, VocabularyError, "not a vocabulary: SpecError"),
        ({"vocab_size": 5}, VocabularyError, "vocab_size is 5"),
    ],
)
def test_altered_files_are_refused(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps({**golden().to_json(), **change}), encoding="utf-8")
    with pytest.raises(error, match=re.escape(str(path)) + ".*" + re.escape(message)):
        Vocabulary.load(path)


def test_files_that_are_no_vocabulary(tmp_path: Path) -> None:
    for content, message in (("{", "is not JSON"), ("[]", "format_version None"), ('"x"', "format_version None")):
        (tmp_path / "v.json").write_text(content, encoding="utf-8")
        with pytest.raises(VocabularyError, match=f"v.json.*{message}"):
            Vocabulary.load(tmp_path / "v.json")
    with pytest.raises(VocabularyError, match=r"none.json cannot be read \(No such file"):
        Vocabulary.load(tmp_path / "none.json")
    doubled = golden().to_json()
    doubled["tokenizers"] = doubled["tokenizers"] * 2  # type: ignore[operator]
    with pytest.raises(VocabularyError, match="two tokenizers of one name"):
        Vocabulary.from_json(doubled)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = golden().save(tmp_path / "v.json")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        golden().name_reserved(["<|x|>"]).save(path)
    assert Vocabulary.load(path) == golden()
    assert [each.name for each in tmp_path.iterdir()] == ["v.json"]


@pytest.fixture
def letters_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.KINDS, "letters", Letters.registered())


@pytest.mark.usefixtures("letters_kind")
def test_tokenizers_load_from_where_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multitok.save(Letters(shift=3, name="shifted"), tmp_path / "shifted", card="# card\n")
    monkeypatch.chdir(tmp_path)
    built = Vocabulary.build(["letters", "shifted"], special_tokens=["<a>"])
    v = Vocabulary.load(built.save(tmp_path / "v.json"))
    monkeypatch.chdir("/")  # a relative source would be lost here
    loaded = v.load_tokenizers()
    assert list(loaded) == ["letters", "shifted"]
    assert loaded["shifted"].decode(loaded["shifted"].encode("zebra")) == "zebra"
    assert v.to_ids("shifted", loaded["shifted"].encode("a")).tolist() == [[1 + 26 + 3]]
    assert list(v.load_tokenizers(["shifted"])) == ["shifted"]
    (tmp_path / "shifted").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"tokenizer 'shifted' is not where the vocabulary says.*give sources="):
        v.load_tokenizers()
    assert list(v.load_tokenizers(["shifted"], sources={"shifted": str(tmp_path / "moved")})) == ["shifted"]


@pytest.mark.usefixtures("letters_kind")
def test_another_tokenizer_under_the_same_name_is_refused(tmp_path: Path) -> None:
    v = Vocabulary.build([Letters(shift=3)])
    with pytest.raises(VocabularyError, match="does not say where tokenizer 'letters' lies: give sources="):
        v.load_tokenizers()
    expected = f"letters is a tokenizer 'letters' with fingerprint {multitok.fingerprint(Letters())[:12]}"
    with pytest.raises(FingerprintError, match=expected) as caught:
        v.load_tokenizers(sources={"letters": "letters"})
    with pytest.raises(VocabularyError, match="give a list of names"):
        v.load_tokenizers("letters")
    assert v.entry("letters").fingerprint[:12] in str(caught.value)
    v.check_tokenizer(Letters(shift=3))
    with pytest.raises(FingerprintError, match="the given tokenizer is a tokenizer 'letters'"):
        v.check_tokenizer(Letters(shift=4))
    with pytest.raises(VocabularyError, match="no tokenizer 'other'"):
        v.check_tokenizer(Letters(name="other"))
