"""Published models' documents, token by token."""

from __future__ import annotations

import numpy as np
import pytest

from multitok.errors import PatternError
from multitok.interleave import Document, Interleaver, Segment
from multitok.interleave import presets as templates
from multitok.protocol import Codes, Modality
from multitok.vocabulary import presets
from tests.vocabulary.test_presets import chameleon_tokens
from tests.vocabulary.toy import entry


def line(*codes: int) -> Codes:
    return Codes(np.asarray([codes], np.int32), (len(codes),))


def test_emu3_writes_the_size_as_text_and_ends_rows_and_frames() -> None:
    v = presets.emu3(entry("text", (151_643,)), entry("image", (32_768,), Modality.IMAGE, stride=8))
    interleaver = Interleaver(v, templates.emu3())
    image = Codes(np.arange(20, dtype=np.int32).reshape(1, 2, 10), (16, 80))
    document = Document((Segment("text", line(100, 200)), Segment("image", image), Segment("text", line(17))))
    sequence = interleaver.encode(document)
    eol, eof = 151_846, 151_847
    assert sequence.ids.tolist() == [
        *(151_849, 100, 200),
        # "2*10": in Qwen's BPE the ranks of single bytes run from "!" = 0
        *(151_852, ord("2") - ord("!"), ord("*") - ord("!"), ord("1") - ord("!"), ord("0") - ord("!"), 151_851),
        *range(151_854, 151_864),
        eol,
        *range(151_864, 151_874),
        *(eol, eof, 151_853),
        *(17, 151_850),
    ]
    assert interleaver.decode(sequence) == document
    assert interleaver.parse(np.append(sequence.ids, [151_643] * 3)) == document
    assert interleaver.count(document) == len(sequence)


def test_chameleon_images_have_one_size() -> None:
    tokens = chameleon_tokens(1)
    words = entry("text", (sum(token.startswith("word") for token in tokens),))
    v = presets.chameleon(words, entry("image", (8_192,), Modality.IMAGE, stride=16), tokens)
    interleaver = Interleaver(v, templates.chameleon())
    codes = np.random.default_rng(0).integers(0, 8_192, (1, 32, 32)).astype(np.int32)
    document = Document((Segment("text", line(1, 2)), Segment("image", Codes(codes, (512, 512)))))
    ids = interleaver.encode(document).ids
    assert len(ids) == 1 + 2 + 1 + 1_024 + 1 + 1
    assert ids[[0, 3, -2, -1]].tolist() == [0, 8_197, 8_196, 2]
    # the names of the first four image tokens spell the codes
    names = {i: token for token, i in tokens.items()}
    for i, code in zip(ids[4:8].tolist(), codes.ravel()[:4].tolist(), strict=True):
        assert names[i] == "IMGIMG" + "".join("ABCDEFGHIJ"[int(d)] for d in str(code)) + "Z"
    assert interleaver.parse(ids) == document
    small = Segment("image", Codes(codes[:, :16], (256, 512)))
    with pytest.raises(PatternError, match=r"'image' with the grid \(16, 32\): the template fixes \(32, 32\)"):
        interleaver.encode(Document((small,)))


def test_anygpt_keeps_speech_and_music_apart_and_interleaves_frames() -> None:
    v = presets.anygpt(
        entry("text", (32_000,)),
        entry("image", (8_192,)),
        entry("speech", (1_024,), Modality.AUDIO),
        entry("music", (2_048,) * 4, Modality.AUDIO),
    )
    interleaver = Interleaver(v, templates.anygpt())
    music = Codes(np.asarray([[1, 5], [2, 6], [3, 7], [4, 8]], np.int32), (2,))
    document = Document(
        (
            Segment("text", line(500, 501)),
            Segment("speech", line(149, 149, 285)),
            Segment("image", line(*range(32))),
            Segment("music", music),
            Segment("text", line(502)),
        )
    )
    ids = interleaver.encode(document).ids
    first = 41_224
    assert ids.tolist() == [
        *(1, 500, 501),
        *(41_222, 40_198 + 149, 40_198 + 149, 40_198 + 285, 41_223),
        *(40_196, *range(32_004, 32_036), 40_197),
        *(49_416, first + 1, first + 2_050, first + 4_099, first + 6_148),
        *(first + 5, first + 2_054, first + 4_103, first + 6_152, 49_417),
        *(502, 2),
    ]
    assert interleaver.parse(ids) == document
