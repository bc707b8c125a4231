"""Are the words still there: a recogniser listens to decoded speech, and its errors are counted.

Word error rate is the least number of words to put in, leave out or exchange, over the words that there should be;
character error rate the same of characters, spaces counting. Texts are lowered and freed of all but letters, digits
and apostrophes first. Where no transcript is known, the recogniser's own of the original stands for it: then the rate
tells what decoding changed, not how good the recogniser is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MissingExtraError

RATE_HZ = 16_000
# Mono float32 samples at 16 kHz -> what is said.
Recogniser = Callable[[NDArray[np.float32]], str]
_NOT_SPOKEN = re.compile(r"[^\w' ]+|_")


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Error rates of one text.

    Args:
        wer: Of words; None where there should be none.
        cer: Of characters.
    """

    wer: float | None
    cer: float | None


def word_errors(wanted: str, found: str) -> WordErrors:
    """Error rates of a recognised text.

    Args:
        wanted: What was said.
        found: What was heard.

    Returns:
        From 0 on; above 1 where more is heard than was said.
    """
    left, right = plain(wanted), plain(found)
    return WordErrors(_rate(left.split(), right.split()), _rate(left, right))


def plain(text: str) -> str:
    """Lower-case words of letters, digits and apostrophes, one space between them."""
    return " ".join(_NOT_SPOKEN.sub(" ", text.lower()).split())


def recogniser(name: str) -> Recogniser:
    """A recogniser that needs no net.

    Args:
        name: "pocketsphinx" (English, with its own small model), or a folder in the Hugging Face format with a model
            for speech recognition, such as Whisper.

    Returns:
        What takes samples and gives text.

    Raises:
        InputError: It is neither.
        MissingExtraError: pocketsphinx or transformers is not installed.
    """
    if name == "pocketsphinx":
        return _pocketsphinx()
    if (Path(name) / "config.json").is_file():
        return _transformers(name)
    raise InputError(f"recogniser {name!r}: give pocketsphinx, or a folder that holds a model's config.json")


@cache
def _pocketsphinx() -> Recogniser:
    try:
        import pocketsphinx
    except ImportError as error:
        raise MissingExtraError("pocketsphinx is not installed: pip install pocketsphinx", name=error.name) from error
    decoder = pocketsphinx.Decoder(samprate=RATE_HZ, loglevel="FATAL")

    def recognise(samples: NDArray[np.float32]) -> str:
        pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        heard = decoder.hyp()
        return heard.hypstr if heard else ""

    return recognise


@cache
def _transformers(folder: str) -> Recogniser:
    try:
        import transformers
    except ImportError as error:
        reason = "a model in the Hugging Face format needs transformers: pip install 'multitok[hf]'"
        raise MissingExtraError(reason, name=error.name) from error
    pipeline: Any = transformers.pipeline("automatic-speech-recognition", model=folder, device="cpu")

    def recognise(samples: NDArray[np.float32]) -> str:
        return str(pipeline({"raw": samples, "sampling_rate": RATE_HZ})["text"])

    return recognise


def _rate(wanted: Sequence[str], found: Sequence[str]) -> float | None:
    """Edit distance over the length of what was wanted."""
    if not wanted:
        return None if found else 0.0
    row = np.arange(len(found) + 1)
    codes = {part: at for at, part in enumerate(dict.fromkeys([*wanted, *found]))}
    others = np.array([codes[part] for part in found], np.int64)
    places = np.arange(len(found) + 1)
    for at, part in enumerate(wanted, 1):
        exchanged = row[:-1] + (others != codes[part])
        best = np.concatenate([[at], np.minimum(row[1:] + 1, exchanged)])
        # Putting in costs one more for each step to the right: a running minimum of what is left without it.
        row = np.minimum.accumulate(best - places) + places
    return float(row[-1]) / len(wanted)
