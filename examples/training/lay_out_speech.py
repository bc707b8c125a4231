"""Lay out speech by voice, and other sound beside it, for `multitok train student`.

    bash examples/training/fetch_speech.sh DIR all
    python examples/training/lay_out_speech.py DIR OUT [--synthesise]
    multitok train student OUT/speech --noise OUT/noise --out my-units --minutes 70

writes OUT/speech/<voice>/<number>.flac, one channel at 16 kHz, and OUT/noise. A voice is one speaker where packages
tell speakers apart, and else one language of one package. Left out, for judging: Danish and Greek, and every English
prompt that `benchmarks/audio_units_set.py` holds out. `--synthesise` adds English by espeak-ng and by flite's voice
"kal16" (apt-get install espeak-ng flite fortunes), whose other voices are for judging. Needs av and soundfile.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import random
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 16_000
SHORTEST = RATE_HZ // 5
PROMPTS = "asterisk-core-sounds-{}-g722"
LEFT_OUT_LANGUAGES = {"da", "el"}
SINGLE = {
    "ru": ("festvox-ru", "*.wav"),
    "cs": ("fillets-ng-data-cs", "*.ogg"),
    "klettres": ("klettres-data", "*.ogg"),
    "gcin": ("gcin-voice", "*.ogg"),
}
MUSIC = {"sonic-pi-samples": "*.flac", "wesnoth-1.16-music": "*.ogg", "warzone2100-music": "*.opus"}
TALKIE = "flight-of-the-amazon-queen"
VARIANTS = (
    "adam", "Alicia", "Andrea", "Andy", "Annie", "antonio", "belinda", "benjamin", "boris", "caleb", "david",
    "Denis", "Diogo", "ed", "edward", "gustave", "Henrique", "Hugo", "iven2", "Jacky", "john", "Lee", "linda",
    "Marco", "max", "Michael", "michel", "miguel", "Mike", "pablo", "paul", "pedro", "quincy", "rob", "robert",
    "steph", "steph2", "steph3", "zac", "anika", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt4", "m1",
    "m2", "m3", "m4", "m5", "m6", "m7", "m8", "norbert", "shelby", "travis", "victor",
)  # fmt: skip
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-us-nyc", "en-gb-x-rp", "en-gb-x-gbclan")
VARIANT_S, KAL_S = 41, 480

Samples = NDArray[np.float32]


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that fetch_speech.sh filled")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--synthesise", action="store_true", help="add synthetic English")
    arguments = parser.parse_args()
    data, speech = arguments.data, arguments.out / "speech"
    for voice, (package, pattern) in SINGLE.items():
        write(speech / voice, map(read, sorted((data / package).rglob(pattern))))
    for language in ("es", "fr", "it", "ru"):
        write(speech / f"prompts-{language}", map(read, sorted((data / PROMPTS.format(language)).rglob("*.g722"))))
    write(speech / "prompts-en", map(read, training_prompts(data)))
    for language, paths in stamps(data / "tuxpaint-stamps-default").items():
        write(speech / f"stamps-{language}", map(read, paths))
    for hero in (True, False):
        write(speech / f"talkie-{'hero' if hero else 'others'}", talkie(data / TALKIE, hero=hero))
    if arguments.synthesise:
        for voice, seconds in {**dict.fromkeys(VARIANTS, VARIANT_S), "kal16": KAL_S}.items():
            write(speech / f"synthetic-{voice}", synthesised(voice, seconds))
    for package, pattern in MUSIC.items():
        write(arguments.out / "noise" / package, map(read, sorted((data / package).rglob(pattern))))


def write(folder: Path, clips: Iterable[Samples]) -> None:
    """Clips that are long enough, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    for number, clip in enumerate(each for each in clips if each.size >= SHORTEST):
        soundfile.write(folder / f"{number:05d}.flac", clip, RATE_HZ)
        seconds += clip.size / RATE_HZ
    print(f"{folder.name:24}{seconds / 60:8.1f} min", flush=True)


def read(source: Path | bytes, form: str | None = None) -> Samples:
    """Mono sound at 16 kHz; nothing where it cannot be read."""
    if isinstance(source, Path) and source.suffix == ".g722":
        form = "g722"
    resampler = av.AudioResampler("flt", "mono", RATE_HZ)
    parts: list[Samples] = []
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), format=form) as container:
            for frame in container.decode(audio=0):
                parts += [each.to_ndarray()[0] for each in resampler.resample(frame)]
            parts += [each.to_ndarray()[0] for each in resampler.resample(None)]
    except av.error.FFmpegError:
        return np.zeros(0, np.float32)
    return np.concatenate([np.zeros(0, np.float32), *parts])


def training_prompts(data: Path) -> Iterator[Path]:
    """English prompts but those that are judged on: the rule is that of `benchmarks/audio_units_set.py`."""
    listing = gzip.decompress(next((data / "asterisk-core-sounds-en").rglob("core-sounds-en.txt.gz")).read_bytes())
    rows = [re.match(r"([\w/-]+): *(.+)$", line) for line in listing.decode().splitlines() if "[" not in line]
    root = data / PROMPTS.format("en")
    for row in rows:
        words = [] if row is None else re.sub(r"[^a-z' ]+", " ", row[2].lower().replace("-", " ")).split()
        if row is not None and words and hashlib.sha256(" ".join(words).encode()).digest()[0] % 2 == 0:
            yield from root.rglob(f"en_US_f_Allison/{row[1]}.g722")


def stamps(package: Path) -> dict[str, list[Path]]:
    """Language -> its descriptions of stamps, each file once."""
    found: dict[str, list[Path]] = {}
    seen = set()
    for path in sorted([*package.rglob("*.ogg"), *package.rglob("*.wav")]):
        digest = hashlib.sha256(path.read_bytes()).digest()
        match = re.search(r"_desc_([A-Za-z_@]+?)\.|_([a-z]{2,3}(?:_[A-Z]{2})?)\.(?:ogg|wav)$", path.name)
        language = (match[1] or match[2]) if match else "en"
        if digest not in seen and language not in LEFT_OUT_LANGUAGES:
            seen.add(digest)
            found.setdefault(language, []).append(path)
    # Of a few words nothing is learned of a voice.
    return {language: paths for language, paths in found.items() if len(paths) >= 20}


def talkie(package: Path, *, hero: bool) -> Iterator[Samples]:
    """Spoken lines of the game, MP3 files inside its resource file: of its hero, or of all others."""
    resource = next(package.rglob("queen.1c")).read_bytes()
    (count,) = struct.unpack_from(">H", resource, 13)
    first = re.search(rb"[0-9A-Z]{8,}\.SB", resource)
    assert first is not None
    for number in range(count):
        entry = resource[first.start() + 21 * number :][:21]
        name = entry[:12].rstrip(b"\0").decode("latin1")
        offset, size = struct.unpack(">II", entry[13:])
        if name.endswith(".SB") and ("J" in name[5:8]) == hero:
            yield read(resource[offset : offset + size], "mp3")


def synthesised(voice: str, seconds: float) -> Iterator[Samples]:
    """Sentences from fortunes, read by one voice."""
    rng = random.Random(voice)
    accent, pitch, speed = rng.choice(ACCENTS), rng.randrange(20, 80), rng.randrange(125, 190)
    left = seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        for sentence in rng.sample(sentences(), 1000):
            if voice == "kal16":
                command = ["flite", "-voice", voice, "-t", sentence, "-o", str(path)]
            else:
                command = ["espeak-ng", "-v", f"{accent}+{voice}", "-p", str(pitch), "-s", str(speed)]
                command += ["-w", str(path), sentence]
            subprocess.run(command, check=True, capture_output=True)
            clip = read(path)
            yield clip
            left -= clip.size / RATE_HZ
            if left <= 0:
                return


def sentences() -> list[str]:
    """Plain English sentences out of fortunes."""
    found: list[str] = []
    for name in ("science", "people", "wisdom", "education", "food", "law", "work", "sports", "kids", "computers"):
        text = Path("/usr/share/games/fortunes", name).read_text(encoding="utf-8", errors="ignore")
        for fortune in text.split("\n%\n"):
            plain = re.sub(r"\s+", " ", re.sub(r"[^A-Za-z0-9 ,.;:?!'\n-]+", " ", fortune.split("\n\t\t--")[0])).strip()
            found += re.split(r"(?<=[.?!]) ", plain)
    return [each for each in found if re.fullmatch(r"[A-Za-z](?!.*[A-Z]{3})[^0-9]{24,138}", each)]


if __name__ == "__main__":
    main()
