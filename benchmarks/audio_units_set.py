"""Make the phone-labelled set that speech units are judged on: one English text by four speakers, phones timed.

    apt-get install flite && pip install pocketsphinx==5.1.1 av soundfile
    python benchmarks/audio_units_set.py DATA            (needs a Debian or Ubuntu system after `apt-get update`)

writes DATA/audio-units/{speaker}-{prompt}.wav, 16 kHz, and labels.json, clip -> [[phone, end_s], ...]. The texts are
the prompts of Debian's asterisk-core-sounds-en. "allison" is the person who recorded them; her phones are timed by
pocketsphinx's forced alignment. "awb", "rms" and "slt" are voices of flite, a speech synthesiser made from recordings
of three people; flite itself says where its phones end. Half of the prompts are left out, for training: those where
`is_held_out` is false.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

VOICES = ("awb", "rms", "slt")
PACKAGES = ("asterisk-core-sounds-en", "asterisk-core-sounds-en-g722")
SILENCE = "SIL"
# Phones of flite that pocketsphinx's dictionary writes otherwise.
SAME = {"ax": "AH", "pau": SILENCE, "axr": "ER", "ix": "IH", "en": "N", "em": "M", "el": "L", "hv": "HH"}
# Lists of letters and digits: no speech in context.
LEFT_OUT = ("letters/", "phonetic/", "digits/")
RATE_HZ, EDGE = 16_000, 1_600

Phones = list[tuple[str, float]]


def main() -> None:
    """Fetch, read, synthesise, align, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder for the packages and the set")
    out = make_set(parser.parse_args().data)
    labels = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    print(f"{out}: {len(labels)} clips, {sum(len(phones) for phones in labels.values())} phones")


def make_set(data: Path) -> Path:
    """The folder of the set, made if it is not there."""
    out = data / "audio-units"
    if (out / "labels.json").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    fetch(data, PACKAGES)
    aligner = Aligner()
    texts = prompts(data / PACKAGES[0])
    labels: dict[str, Phones] = {}
    for path in sorted((data / PACKAGES[1]).rglob("*.g722")):
        name = path.relative_to(next(parent for parent in path.parents if parent.name == "en_US_f_Allison"))
        key = name.with_suffix("").as_posix()
        text = texts.get(key, "")
        if key.startswith(LEFT_OUT) or re.search(r"\d", text) or not is_held_out(text):
            continue
        spoken = words(text)
        samples = read_g722(path)
        phones = aligner.phones(samples, spoken)
        if phones is None:
            continue
        clip = key.replace("/", "_")
        labels[f"allison-{clip}"] = phones
        soundfile.write(out / f"allison-{clip}.wav", samples, RATE_HZ)
        for voice in VOICES:
            labels[f"{voice}-{clip}"] = synthesised(voice, " ".join(spoken) + ".", out / f"{voice}-{clip}.wav")
    (out / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    return out


def fetch(data: Path, packages: Sequence[str]) -> None:
    """Unpack Debian packages into folders of their names."""
    for package in packages:
        if not (data / package).exists():
            subprocess.run(["apt-get", "download", package], cwd=data, check=True, capture_output=True)
            file = next(data.glob(f"{package}_*.deb"))
            subprocess.run(["dpkg-deb", "--extract", file.name, package], cwd=data, check=True)
            file.unlink()


def prompts(package: Path) -> dict[str, str]:
    """Prompt -> its text, without those that describe a sound in brackets."""
    listing = gzip.decompress(next(package.rglob("core-sounds-en.txt.gz")).read_bytes()).decode()
    rows = [re.match(r"([\w/-]+): *(.+)$", line) for line in listing.splitlines() if "[" not in line]
    return {row[1]: row[2] for row in rows if row}


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.sub(r"[^a-z' ]+", " ", text.lower().replace("-", " ")).split()


def is_held_out(text: str) -> bool:
    """Whether a text is for judging; the others may be trained on."""
    return bool(words(text)) and hashlib.sha256(" ".join(words(text)).encode()).digest()[0] % 2 == 1


def read_g722(path: Path) -> NDArray[np.int16]:
    """Samples of a headerless G.722 file at 16 kHz."""
    import av

    with av.open(str(path), format="g722") as container:
        return np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)]).astype(np.int16)


def synthesised(voice: str, text: str, path: Path) -> Phones:
    """Write a text as flite says it, and return its phones."""
    command = ["flite", "-voice", voice, "-t", text, "-psdur", "-o", str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [row.split(":") for row in said.split()]
    return [(SAME.get(phone, phone.upper()), float(end)) for phone, end in rows]


class Aligner:
    """Forced alignment by pocketsphinx's English model."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder, get_model_path

        folder = Path(get_model_path()) / "en-us"
        dictionary = folder / "cmudict-en-us.dict"
        self._known = {line.split()[0] for line in dictionary.read_text(encoding="utf-8").splitlines() if line}
        self._decoder = Decoder(
            hmm=str(folder / "en-us"), dict=str(dictionary), lm=None, loglevel="FATAL", bestpath=False
        )

    def phones(self, samples: NDArray[np.int16], spoken: Sequence[str]) -> Phones | None:
        """The phones of a clip and where they end; None where a word is unknown or the clip does not fit."""
        if not set(spoken) <= self._known:
            return None
        edge = np.zeros(EDGE, np.int16)  # the model wants some silence around
        padded = np.concatenate([edge, samples, edge]).tobytes()
        try:
            self._decoder.set_align_text(" ".join(spoken))
            self._run(padded)
            if not self._decoder.seg():
                return None
            self._decoder.set_alignment()
            self._run(padded)
        except RuntimeError:
            return None
        found = [phone for word in self._decoder.get_alignment() for phone in word]
        shift = EDGE / RATE_HZ
        return [
            (
                SILENCE if phone.name[0] in "+<" or phone.name == "SIL" else phone.name,
                max(0.0, (phone.start + phone.duration) / 100 - shift),
            )
            for phone in found
        ]

    def _run(self, data: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()


if __name__ == "__main__":
    main()
