"""How fast raw sources become token shards, end to end: `python benchmarks/prepare.py [--quick]`

Three jobs, each with 1 and 2 workers, start-up of the processes included:

    images   JPEG files, 384 x 256, through image-patch8        images/s
    audio    16 kHz WAV files of 10 s, through dmel-80hz         seconds of sound a second (real-time factor)
    text     JSONL of about 4 kB a document, through bpe-32k     MB/s

The data are the samples of `examples/data`, cut, mirrored and shifted by a fixed seed, so that no two items are
equal. Runs alternate; the table shows the median and, in brackets, the extremes. Two independent jobs of one worker
each, at once, show what the machine allows: their summed rate over that of one is the ceiling of the scaling.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from machine import describe
from PIL import Image

from multitok.frontend.media import read
from multitok.frontend.resample import to_mono
from multitok.prepare import JobReport, prepare
from multitok.vocabulary import Vocabulary

DATA = Path(__file__).parent.parent / "examples" / "data"
CHECKPOINTS = {"images": "image-patch8", "audio": "dmel-80hz", "text": "bpe-32k"}
SOUND_S = 10


@dataclass(frozen=True)
class Job:
    """A job to time.

    Args:
        write: Writes `count` items into a folder and returns the source.
        count: Number of items.
        unit: What a second yields.
        amount: How much of the unit a report stands for.
    """

    write: Callable[[Path, int], Path]
    count: int
    unit: str
    amount: Callable[[JobReport], float]


def write_images(folder: Path, count: int) -> Path:
    """Crops of the sample photos, mirrored and brightened."""
    rng = np.random.default_rng(1)
    photos = [Image.open(path).convert("RGB") for path in sorted((DATA / "photos").iterdir())]
    for index in range(count):
        photo = photos[index % len(photos)]
        left, top = rng.integers(0, photo.width - 384 + 1), rng.integers(0, photo.height - 256 + 1)
        pixels = np.asarray(photo.crop((left, top, left + 384, top + 256)))[:, :: rng.choice([-1, 1])]
        shifted = np.clip(pixels.astype(np.int16) + rng.integers(-20, 20), 0, 255).astype(np.uint8)
        Image.fromarray(shifted).save(folder / f"{index:06d}.jpg", quality=90)
    return folder


def write_audio(folder: Path, count: int) -> Path:
    """The sample sounds in a row from a random start on, at a random loudness."""
    rng = np.random.default_rng(2)
    sounds = [to_mono(read(path), 16_000) for path in sorted((DATA / "sounds").iterdir())]
    loop = np.tile(np.concatenate(sounds), 3)
    for index in range(count):
        start = rng.integers(0, len(loop) - SOUND_S * 16_000)
        samples = loop[start : start + SOUND_S * 16_000] * rng.uniform(0.5, 1)
        soundfile.write(folder / f"{index:06d}.wav", samples, 16_000, subtype="PCM_16")
    return folder


def write_text(folder: Path, count: int) -> Path:
    """Documents of shuffled lines of the sample texts."""
    rng = np.random.default_rng(3)
    lines = [line for path in sorted((DATA / "text").iterdir()) for line in path.read_text("utf-8").splitlines()]
    with (folder / "documents.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(count):
            text = "\n".join(lines[k] for k in rng.integers(0, len(lines), 32))
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return folder / "documents.jsonl"


def jobs(quick: bool) -> dict[str, Job]:
    """The jobs, in the size of a test with `quick`."""
    return {
        "images": Job(write_images, 20 if quick else 1000, "images/s", lambda r: r.num_documents),
        "audio": Job(write_audio, 4 if quick else 400, "x real time", lambda r: SOUND_S * r.num_documents),
        "text": Job(write_text, 50 if quick else 20_000, "MB/s", lambda r: r.bytes_in / 1e6),
    }


def one_job(source: Path, vocabulary: Vocabulary, workers: int, shard_bytes: int) -> JobReport:
    """Prepare into a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as out:
        return prepare([source], vocabulary, out, workers=workers, shard_bytes=shard_bytes, progress=False)


def run(name: str, job: Job, runs: int, work: Path) -> str:
    """Time one job; returns its row of the table."""
    (work / name).mkdir()
    source = job.write(work / name, job.count)
    num_bytes = sum(path.stat().st_size for path in (work / name).iterdir())
    vocabulary, shard_bytes = Vocabulary.build([CHECKPOINTS[name]]), max(1, num_bytes // 16)
    rates: dict[str, list[float]] = {"1 worker": [], "2 workers": [], "two jobs": []}
    for _ in range(runs):
        for workers in (1, 2):
            report = one_job(source, vocabulary, workers, shard_bytes)
            rates[f"{workers} worker{'s'[: workers - 1]}"].append(job.amount(report) / report.seconds)
        with ThreadPoolExecutor(2) as pool:
            reports = list(pool.map(one_job, [source] * 2, [vocabulary] * 2, [1] * 2, [shard_bytes] * 2))
        rates["two jobs"].append(sum(job.amount(report) / report.seconds for report in reports))
    one, two, both = (statistics.median(found) for found in rates.values())
    cells = [f"{statistics.median(found):,.1f} ({min(found):,.1f} to {max(found):,.1f})" for found in rates.values()]
    what = f"{CHECKPOINTS[name]}, {job.count:,} items, {num_bytes / 1e6:,.1f} MB"
    return f"| {name} ({what}) | {job.unit} | {' | '.join(cells)} | {two / one:.2f} | {both / one:.2f} |"


def main() -> None:
    """Time all jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few items, to see that it works")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=CHECKPOINTS, help="one job")
    options = parser.parse_args()
    runs = 1 if options.quick else options.runs
    print(f"{describe()}; median of {runs} runs, in brackets the extremes\n")
    print("| job | rate | 1 worker | 2 workers | two jobs at once | scaling | ceiling |\n|---|---|---|---|---|---|---|")
    for name, job in jobs(options.quick).items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as work:
                print(run(name, job, runs, Path(work)), flush=True)


if __name__ == "__main__":
    main()
