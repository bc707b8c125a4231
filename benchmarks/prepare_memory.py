"""Whether memory grows with the input: `python benchmarks/prepare_memory.py [--quick] [--gigabytes 1 4]`

Writes JSONL of the given sizes, prepares each in a process of its own with one worker, and prints the peak resident
memory (VmHWM of /proc) of the parent and of the worker, and the ratio between the largest and the smallest input.
The temporary folder needs about four times the largest input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import shutil
import tempfile
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from machine import describe

from multitok.prepare import prepare
from multitok.vocabulary import Vocabulary

DATA = Path(__file__).parent.parent / "examples" / "data"


def write_jsonl(path: Path, num_bytes: int) -> None:
    """Documents of about 4 kB from the sample texts, each another cut of them."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted((DATA / "text").iterdir()))
    rng = np.random.default_rng(4)
    written = 0
    with path.open("wb") as file:
        while written < num_bytes:
            start = int(rng.integers(0, len(text) - 4000))
            document = {"text": text[start : start + int(rng.integers(1000, 4000))]}
            written += file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")


def peak_mb(pid: int | str) -> float:
    """VmHWM of a process in MB; 0 where it is gone."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return 0.0


def watch_children(found: dict[int, float], done: threading.Event) -> None:
    """Keep the highest peak of each child process until `done`."""
    while not done.wait(0.05):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    found[int(child)] = max(found.get(int(child), 0.0), peak_mb(child))


def measure(source: Path, checkpoint: str, out: Path, answer: Connection) -> None:
    """Prepare `source` and send the peaks of this process and of its largest child, in MB."""
    found: dict[int, float] = {}
    done = threading.Event()
    watcher = threading.Thread(target=watch_children, args=(found, done))
    watcher.start()
    try:
        report = prepare([source], Vocabulary.build([checkpoint]), out, workers=1, progress=False)
    finally:
        done.set()
        watcher.join()
    answer.send((peak_mb("self"), max(found.values()), report.num_shards, report.seconds))


def main() -> None:
    """Measure all sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--checkpoint", default="text-bytes")
    parser.add_argument("--quick", action="store_true", help="70 and 200 MB, to see that it works")
    options = parser.parse_args()
    sizes = [0.07, 0.2] if options.quick else options.gigabytes
    spawn = multiprocessing.get_context("spawn")
    peaks = []
    print(f"{describe()}; JSONL of about 3 kB a document through {options.checkpoint}, one worker\n")
    print("| input | shards | time | parent, peak | worker, peak |\n|---|---|---|---|---|")
    for size in sizes:
        folder = Path(tempfile.mkdtemp())
        try:
            write_jsonl(folder / "documents.jsonl", int(size * 1e9))
            answer, question = spawn.Pipe(duplex=False)
            process = spawn.Process(
                target=measure, args=(folder / "documents.jsonl", options.checkpoint, folder / "out", question)
            )
            process.start()
            question.close()
            parent, worker, num_shards, seconds = answer.recv()
            process.join()
        finally:
            shutil.rmtree(folder)
        peaks.append((parent, worker))
        print(f"| {size:g} GB | {num_shards} | {seconds:.0f} s | {parent:.0f} MB | {worker:.0f} MB |", flush=True)
    ratios = [last / first for first, last in zip(peaks[0], peaks[-1], strict=True)]
    print(f"\nlargest input / smallest: parent {ratios[0]:.2f}, worker {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
