"""How fast each shipped tokenizer encodes and decodes on one core: `python benchmarks/tokenizers.py [--runs N]`

Raw items are those of `examples/data`, repeated until an encode takes a moment. "In" counts raw bytes as they lie in
memory (pixels, float samples, UTF-8). One warm-up, then rounds over all tokenizers in turn.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

import multitok
from multitok.frontend import media
from multitok.protocol import Waveform

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
ITEMS = {
    "text-bytes": "text/world.txt",
    "bpe-32k": "text/world.txt",
    "image-patch8": "photos/coffee.png",
    "video-patch4x8x8": "video/rabbit.webp",
    "volume-patch4": "volumes/brain.npy",
    "dmel-80hz": "sounds/speech-russian-1.wav",
    "series-16": "series/walking.csv",
    "dna-6mer": "sequences/worm.fa",
    "protein-3mer": "sequences/proteins.faa",
}


def enlarge(raw: Any) -> Any:
    """The item repeated along its first axis: long enough to time."""
    if isinstance(raw, str):
        return raw * max(1, 2_000_000 // len(raw))
    if isinstance(raw, Waveform):
        return Waveform(np.tile(raw.samples, 8), raw.sample_rate_hz)
    return np.tile(raw, (max(1, 3_000_000 // raw.size), *[1] * (raw.ndim - 1)))


def num_bytes(raw: Any) -> int:
    """Size in memory; text as UTF-8."""
    if isinstance(raw, str):
        return len(raw.encode())
    return int((raw.samples if isinstance(raw, Waveform) else raw).nbytes)


def unit(raw: Any, seconds: float) -> str:
    """The rate in the unit of the field."""
    if isinstance(raw, Waveform):
        return f"{raw.duration_s / seconds:,.0f} x real time"
    if isinstance(raw, str):
        return f"{num_bytes(raw) / seconds / 1e6:,.1f} MB/s"
    if raw.dtype == np.uint8:
        return f"{raw.size / 3 / seconds / 1e6:,.1f} MPx/s"
    return f"{raw.size / seconds / 1e6:,.1f} M values/s"


def main() -> None:
    """Time all tokenizers and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    cases = []
    for checkpoint, name in ITEMS.items():
        raw = enlarge(next(iter(media.records(DATA / name)))[1])
        tokenizer = multitok.load(checkpoint)
        codes = tokenizer.encode(raw)
        tokenizer.decode(codes)
        cases.append((checkpoint, tokenizer, raw, codes))
    encode_s: dict[str, list[float]] = {checkpoint: [] for checkpoint in ITEMS}
    decode_s: dict[str, list[float]] = {checkpoint: [] for checkpoint in ITEMS}
    for _ in range(runs):
        for checkpoint, tokenizer, raw, codes in cases:
            for action, argument, times in ((tokenizer.encode, raw, encode_s), (tokenizer.decode, codes, decode_s)):
                started = time.perf_counter()
                action(argument)
                times[checkpoint].append(time.perf_counter() - started)
    print(f"{describe()}, 1 used; median of {runs} runs\n")
    print("| tokenizer | in | tokens | encode | decode | encode, tokens/s |\n|---|---|---|---|---|---|")
    for checkpoint, _, raw, codes in cases:
        encode, decode = (statistics.median(times[checkpoint]) for times in (encode_s, decode_s))
        print(
            f"| {checkpoint} | {num_bytes(raw) / 1e6:.1f} MB | {codes.num_tokens:,} | {unit(raw, encode)} | "
            f"{unit(raw, decode)} | {codes.num_tokens / encode:,.0f} |"
        )


if __name__ == "__main__":
    main()
