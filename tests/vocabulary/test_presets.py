"""Published ID layouts, checked against the numbers their authors give."""

from __future__ import annotations

import random

import numpy as np
import pytest

from multitok.errors import VocabularyError
from multitok.protocol import Codes, Modality
from multitok.vocabulary import Run, Vocabulary, presets
from tests.vocabulary.toy import entry


def chameleon_tokens(seed: int = 0) -> dict[str, int]:
    """A vocabulary file of Chameleon's shape: its special and image tokens, other words made up."""
    letters = "ABCDEFGHIJ"
    names = ["IMGIMG" + "".join(letters[int(d)] for d in str(code)) + "Z" for code in range(8_192)]
    random.Random(seed).shuffle(names)
    head = ["<s>", "<pad>", "</s>", "<unk>", *names, "<eoss>", "<racm3:break>"]
    reserved = [f"<reserved{i:05d}>" for i in range(8_194, 8_707)]
    words = [f"word{i}" for i in range(65_536 - len(head) - len(reserved))]
    return {token: i for i, token in enumerate([*head, *reserved, *words])}


def test_emu3() -> None:
    v = presets.emu3(entry("text", (151_643,)), entry("image", (32_768,), Modality.IMAGE))
    assert v.vocab_size == 184_622
    # Numbers of configuration_emu3.py.
    published = {
        "<|endoftext|>": 151_643,
        "<|extra_200|>": 151_846,
        "<|extra_201|>": 151_847,
        "<|extra_203|>": 151_849,
        "<|extra_204|>": 151_850,
        "<|image token|>": 151_851,
        "<|image start|>": 151_852,
        "<|image end|>": 151_853,
    }
    assert {token: v.id_of(token) for token in published} == published
    assert (v.id_of("image:0:0"), v.id_of("image:0:32767")) == (151_854, 184_621)
    assert v.reserved == ()
    assert v.dtype == np.int32
    with pytest.raises(
        VocabularyError, match=r"'image' has codebooks of \(8192,\) codes, Emu3's layout takes \(32768,\)"
    ):
        presets.emu3(entry("text", (151_643,)), entry("image", (8_192,)))
    with pytest.raises(VocabularyError, match="two tokenizers named 'text'"):
        presets.emu3(entry("text", (151_643,)), entry("text", (32_768,)))


def test_anygpt() -> None:
    v = presets.anygpt(
        entry("text", (32_000,)),
        entry("image", (8_192,)),
        entry("speech", (1_024,), Modality.AUDIO),
        entry("music", (2_048,) * 4, Modality.AUDIO),
    )
    assert v.vocab_size == 49_418 == 32_000 + 4 + 8_192 + 2 + 1_024 + 2 + 8_192 + 2
    assert [v.id_of(t) for t in ("[Human]", "<eos>", "<soim>", "<eoim>", "<sosp>", "<somu>", "<eomu>")] == [
        *(32_000, 32_003, 40_196, 40_197, 41_222, 49_416, 49_417)
    ]
    music = Codes(np.asarray([[1], [2], [3], [4]], np.int32), (1,))
    assert v.to_ids("music", music)[:, 0].tolist() == [41_224 + 2_048 * k + k + 1 for k in range(4)]


def test_chameleon_finds_image_ids_by_name() -> None:
    tokens = chameleon_tokens()
    num_words = sum(token.startswith("word") for token in tokens)
    v = presets.chameleon(entry("text", (num_words,)), entry("image", (8_192,), Modality.IMAGE), tokens)
    assert v.vocab_size == 65_536
    assert [v.id_of(t) for t in ("<s>", "<pad>", "</s>", "<eoss>", "<racm3:break>", "<reserved08706>")] == [
        *(0, 1, 2, 8_196, 8_197, 8_710)
    ]
    assert v.id_of("image:0:1234") == tokens["IMGIMGBCDEZ"]
    assert v.id_of("image:0:0") == tokens["IMGIMGAZ"]
    assert v.blocks_of("image")[0].lookup is not None
    codes = Codes(np.arange(8_192, dtype=np.int32).reshape(1, 64, 128), (64, 128))
    ids = v.to_ids("image", codes)
    assert sorted(ids.ravel().tolist()) == list(range(4, 8_196))
    assert not (np.diff(ids.ravel()) == 1).all()
    assert v.to_codes("image", ids) == codes
    stream = np.concatenate([[8_197], ids.ravel()[:5], [8_196, 8_711, 65_535]])
    assert v.split(stream) == [
        Run("special", "<racm3:break>", None, 0, 1),
        Run("codes", "image", None, 1, 5),
        Run("special", "<eoss>", None, 6, 1),
        Run("codes", "text", None, 7, 2),
    ]
    assert Vocabulary.from_json(v.to_json()) == v


def test_chameleon_needs_every_image_code() -> None:
    tokens = chameleon_tokens()
    del tokens["IMGIMGBCDEZ"]
    with pytest.raises(VocabularyError, match="tokens of 8191 image codes, Chameleon has 8192; code 1234 is missing"):
        presets.chameleon(entry("text", (9,)), entry("image", (8_192,)), tokens)
    tokens["IMGIMGBCDEZ"] = 70_000
    tokens["IMGIMGJJJJZ"] = 70_001
    with pytest.raises(VocabularyError, match="tokens of 8193 image codes, Chameleon has 8192: give"):
        presets.chameleon(entry("text", (9,)), entry("image", (8_192,)), tokens)
