"""Who says which phone when: phone labels from files, for each frame of codes, and as sayings for ABX.

| file        | what it holds                                                                               |
|-------------|---------------------------------------------------------------------------------------------|
| .TextGrid   | Praat, long or short; the tier "phones" (any case, or "... - phones"), or the only tier      |
| .lab        | festvox ("end_s colour phone" after a line "#"), or HTK ("start end phone" in 100 ns)        |
| .ctm        | "clip channel start_s duration_s phone" a line; many clips                                   |
| .json       | clip -> phones, each [phone, end_s] or [phone, start_s, end_s]; many clips                   |

A clip is called by its sound file's name without folder and suffix. Its speaker is what stands before the first "-"
or "_" of that name, as in LibriSpeech and VCTK. All names of silence become "sil".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.metrics.audio_abx import Saying

SILENCE = "sil"
SILENCES = frozenset({"", "sil", "sp", "spn", "pau", "#", "h#", "_", "<p:>", "<sil>", "{sl}", "ssil"})
SUFFIXES = (".textgrid", ".lab", ".ctm", ".json")
_PHONE_TIERS = re.compile(r"(.* - )?(phones?|phonemes?|segments?|mau)$", re.IGNORECASE)
# What counts in a TextGrid: strings, flags, and numbers that stand by themselves; all else is comment.
_TEXTGRID_VALUE = re.compile(r'"((?:[^"]|"")*)"|(<\w+>)|(?<![\w\[.-])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\]])')
_HTK_STEPS_PER_S = 1e7


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone of a clip.

    Args:
        name: The label; "sil" for silence.
        start_s: Where it begins.
        end_s: Where it ends, after it began.
    """

    name: str
    start_s: float
    end_s: float


def read_labels(path: Path) -> dict[str, tuple[Phone, ...]]:
    """The phones of each clip in a file, or in all label files below a folder.

    Args:
        path: A file of one of the formats above, or a folder.

    Returns:
        Clip -> its phones in order.

    Raises:
        InputError: There is no label file, or two files label one clip.
        MediaError: A file is not of its format.
    """
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES)
    else:
        files = [path] if path.suffix.lower() in SUFFIXES else []
    if not files:
        raise InputError(f"{path}: no label file; give {', '.join(SUFFIXES)}, or a folder of them")
    found: dict[str, tuple[Phone, ...]] = {}
    for file in files:
        for clip, phones in _read_file(file).items():
            if clip in found:
                raise InputError(f"{file}: clip {clip!r} has labels already; leave one of the files out")
            found[clip] = phones
    return found


def speaker_of(clip: str) -> str:
    """What stands before the first "-" or "_" of a clip's name; the whole name where there is none."""
    return re.split(r"[-_]", clip, maxsplit=1)[0]


def frame_phones(phones: Sequence[Phone], num_frames: int, frame_rate_hz: float) -> NDArray[np.str_]:
    """The phone at the middle of each frame.

    Args:
        phones: Of a clip, in order.
        num_frames: F.
        frame_rate_hz: Frame f covers f / rate to (f + 1) / rate.

    Returns:
        [F] names; "" where nothing is labelled.
    """
    names = np.array(["", *(phone.name for phone in phones)])
    middles = (np.arange(num_frames) + 0.5) / frame_rate_hz
    starts = np.array([phone.start_s for phone in phones])
    at = np.searchsorted(starts, middles, side="right")
    ends = np.array([0.0, *(phone.end_s for phone in phones)])
    return np.asarray(names[np.where(middles < ends[at], at, 0)])


def sayings(features: NDArray[Any], phones: Sequence[Phone], *, frame_rate_hz: float, speaker: str) -> list[Saying]:
    """Every phone of a clip that has two neighbours, none of the three silent, for `multitok.metrics.audio_abx.abx`.

    Args:
        features: [F, D] floats or [F] units of the whole clip.
        phones: Of the clip, in order.
        frame_rate_hz: Frames a second.
        speaker: Who speaks.

    Returns:
        Sayings with the frames whose middles lie between the start of the phone before and the end of the one after.
    """
    middles = (np.arange(len(features)) + 0.5) / frame_rate_hz
    found = []
    for before, phone, after in zip(phones, phones[1:], phones[2:], strict=False):
        frames = slice(*np.searchsorted(middles, (before.start_s, after.end_s)))
        if SILENCE not in (before.name, phone.name, after.name) and frames.start < frames.stop:
            found.append(Saying(features[frames], phone.name, (before.name, after.name), speaker))
    return found


def _read_file(path: Path) -> dict[str, tuple[Phone, ...]]:
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    suffix = path.suffix.lower()
    try:
        text = data.decode(encoding)
        if suffix == ".json":
            clips: Mapping[str, Any] = json.loads(text)
            rows = {clip: _timed(listed) for clip, listed in clips.items()}
        elif suffix == ".ctm":
            rows = _ctm(text)
        else:
            rows = {path.stem: list(_textgrid(text) if suffix == ".textgrid" else _lab(text))}
        return {clip: _checked(found) for clip, found in rows.items()}
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise MediaError(f"{path}: not the labels that {path.suffix} files hold: {error}") from error


_Row = tuple[str, float, float]


def _checked(rows: Iterable[_Row]) -> tuple[Phone, ...]:
    phones: list[Phone] = []
    for name, start, end in rows:
        before = phones[-1].end_s if phones else 0.0
        if not (math.isfinite(end) and start >= before - 1e-3 and end >= start):
            raise ValueError(f"{name!r} from {start} to {end} s, after {before} s")
        if end > start:
            phones.append(Phone(SILENCE if name.strip().lower() in SILENCES else name.strip(), start, end))
    return tuple(phones)


def _timed(listed: Iterable[Sequence[Any]]) -> list[_Row]:
    rows: list[_Row] = []
    for name, *times in listed:
        start = times[0] if len(times) == 2 else rows[-1][2] if rows else 0.0
        rows.append((str(name), float(start), float(times[-1])))
    return rows


def _ctm(text: str) -> dict[str, list[_Row]]:
    rows: dict[str, list[_Row]] = {}
    for line in text.splitlines():
        fields = line.split()
        if fields and not line.startswith(";;"):
            start = float(fields[2])
            rows.setdefault(fields[0], []).append((fields[4], start, start + float(fields[3])))
    return rows


def _lab(text: str) -> list[_Row]:
    lines = [line.split(None, 2) for line in text.splitlines() if line.strip()]
    if ["#"] in lines:
        return _timed([(fields[2].split(";")[0], float(fields[0])) for fields in lines[lines.index(["#"]) + 1 :]])
    return [(name, int(start) / _HTK_STEPS_PER_S, int(end) / _HTK_STEPS_PER_S) for start, end, name in lines]


def _textgrid(text: str) -> list[_Row]:
    values = iter([string or flag or number for string, flag, number in _TEXTGRID_VALUE.findall(text)])
    if [next(values, None), next(values, None)] != ["ooTextFile", "TextGrid"]:
        raise ValueError("it does not begin as a TextGrid")
    take = [next(values, "") for _ in range(4)]
    tiers: dict[str, list[_Row]] = {}
    for _ in range(int(take[3])):
        kind, name, _, _, count = (next(values, "") for _ in range(5))
        if kind == "IntervalTier":
            times = [(next(values, ""), next(values, ""), next(values, "")) for _ in range(int(count))]
            tiers[name] = [(label.replace('""', '"'), float(start), float(end)) for start, end, label in times]
        else:
            for _ in range(2 * int(count)):
                next(values, None)
    fitting = [name for name in tiers if _PHONE_TIERS.match(name)] or list(tiers)
    if len(fitting) != 1:
        raise ValueError(f'tiers {", ".join(tiers) or "of intervals: none"}; one is to be called "phones"')
    return tiers[fitting[0]]
