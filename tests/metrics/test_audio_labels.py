"""Phone labels: every format says the same, what is none is refused, frames get the phone at their middle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from multitok.errors import InputError, MediaError
from multitok.metrics.audio_labels import Phone, frame_phones, read_labels, sayings, speaker_of

PHONES = (Phone("sil", 0, 0.1), Phone("HH", 0.1, 0.16), Phone("AY", 0.16, 0.4), Phone("sil", 0.4, 0.5))

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 0.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "say ""hi"" 2"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 0.5
        points: size = 1
        points [1]:
            number = 0.2
            mark = "x"
    item [3]:
        class = "IntervalTier"
        name = "anna - Phones"
        xmin = 0
        xmax = 0.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.1
            text = ""
        intervals [2]:
            xmin = 0.1
            xmax = 0.16
            text = "HH"
        intervals [3]:
            xmin = 0.16
            xmax = 0.4
            text = "AY"
        intervals [4]:
            xmin = 0.4
            xmax = 0.5
            text = "sp"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
0.5
<exists>
1
"IntervalTier"
"mine"
0
0.5
4
0
0.1
"sil"
0.1
0.16
"HH"
0.16
0.4
"AY"
0.4
0.5
""
"""
FESTVOX = "separator ;\nnfields 1\n#\n 0.1 125 pau\n 0.16 125 HH\n 0.4 125 AY ; x\n 0.5 125 pau\n"
HTK = "0 1000000 sil\n1000000 1600000 HH\n1600000 4000000 AY\n4000000 5000000 sp\n"
CTM = ";; made by hand\nanna-1 1 0 0.1 SIL\nanna-1 1 0.1 0.06 HH 0.9\nanna-1 1 0.16 0.24 AY\nanna-1 1 0.4 0.1 SIL\n"
ENDS = json.dumps({"anna-1": [["", 0.1], ["HH", 0.16], ["AY", 0.4], ["#", 0.5]]})
STARTS = json.dumps({"anna-1": [["", 0, 0.1], ["HH", 0.1, 0.16], ["AY", 0.16, 0.4], ["#", 0.4, 0.5]]})


@pytest.mark.parametrize(
    ("suffix", "text"),
    [("TextGrid", LONG), ("TextGrid", SHORT), ("lab", FESTVOX), ("lab", HTK), ("ctm", CTM), ("json", ENDS),
     ("json", STARTS)],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_format_says_the_same(tmp_path: Path, suffix: str, text: str, encoding: str) -> None:
    (tmp_path / f"anna-1.{suffix}").write_text(text, encoding=encoding)
    for path in (tmp_path, tmp_path / f"anna-1.{suffix}"):
        (clip, phones), *others = read_labels(path).items()
        assert (clip, others) == ("anna-1", [])
        assert [phone.name for phone in phones] == ["sil", "HH", "AY", "sil"]
        assert [phone.start_s for phone in phones] == pytest.approx([phone.start_s for phone in PHONES])
        assert [phone.end_s for phone in phones] == pytest.approx([phone.end_s for phone in PHONES])


@pytest.mark.parametrize(
    ("suffix", "text", "words"),
    [
        ("TextGrid", "hello", "does not begin as a TextGrid"),
        ("TextGrid", SHORT.replace("\n4\n0\n", "\n9\n0\n"), "could not convert"),
        ("TextGrid", LONG.replace("anna - Phones", "sounds"), 'tiers words, sounds; one is to be called "phones"'),
        ("lab", "1 2\n", "not the labels"),
        ("lab", "0 10 a\n5 20 b\n", None),
        ("ctm", "a 1 x 0.1 p", "could not convert"),
        ("ctm", "a 1 0.5 0.1 p\na 1 0.2 0.1 q", "'q' from 0.2"),
        ("json", "[1, 2]", "not the labels"),
        ("json", '{"a": [["p", NaN]]}', "from 0.0 to nan"),
    ],
)
def test_what_is_no_label_file_is_named(tmp_path: Path, suffix: str, text: str, words: str | None) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text(text, encoding="utf-8")
    if words is None:  # overlaps below a millisecond are rounding
        assert len(read_labels(path)["a"]) == 2
        return
    with pytest.raises(MediaError, match=words) as caught:
        read_labels(path)
    assert "a." + suffix in str(caught.value)


def test_a_clip_is_labelled_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no label file; give \.textgrid"):
        read_labels(tmp_path)
    (tmp_path / "anna-1.ctm").write_text(CTM)
    (tmp_path / "more.json").write_text(ENDS)
    with pytest.raises(InputError, match="'anna-1' has labels already"):
        read_labels(tmp_path)


def test_a_frame_has_the_phone_at_its_middle() -> None:
    assert frame_phones(PHONES, 27, 50).tolist() == ["sil"] * 5 + ["HH"] * 3 + ["AY"] * 12 + ["sil"] * 5 + ["", ""]
    gap = (Phone("A", 0.1, 0.2), Phone("B", 0.3, 0.4))
    assert frame_phones(gap, 5, 10).tolist() == ["", "A", "", "B", ""]
    assert frame_phones((), 2, 10).tolist() == ["", ""]


def test_sayings_have_neighbours_and_their_frames() -> None:
    phones = (*PHONES[:3], Phone("B", 0.4, 0.44), *PHONES[3:])
    features = np.arange(25)
    (only,) = sayings(features, phones, frame_rate_hz=50, speaker="anna")
    assert (only.phone, only.neighbours, only.speaker) == ("AY", ("HH", "B"), "anna")
    assert only.features.tolist() == list(range(5, 22))  # middles from 0.11 to 0.43
    assert sayings(features[:5], phones, frame_rate_hz=50, speaker="anna") == []


def test_a_speaker_is_the_head_of_the_name() -> None:
    assert [speaker_of(name) for name in ("84-121123-0001", "p225_001", "anna")] == ["84", "p225", "anna"]
