"""How fast token shards become packed batches: `python benchmarks/loader.py [--quick] [--runs N]`

One process, one thread, rows of 4,096 tokens, documents of about 1,000 tokens with one or two segments, in memory
(the files are read once before). Every row of the table emits the same fields, except the baseline:

    baseline     what one writes by hand: a torch DataLoader over single documents, shuffled, joined and cut into rows
                 with labels, positions and document numbers (no modalities, no loss weights, no state)
    PackedDataset, by packing and by rows per batch

Runs alternate between the rows of the table; it shows the median and, in brackets, the extremes; rates per second
of processor time tell the cost on a machine that others use too. Below it: the time from `load_state_dict` to the
first batch, near the start and near the end of the epoch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import describe
from torch.utils.data import DataLoader, Dataset

from multitok.interleave import Span, TokenSequence
from multitok.loader import PackedDataset
from multitok.protocol import Modality
from multitok.shards import Manifest, ShardSet, ShardWriter

ROW_TOKENS = 4096
VOCAB_SIZE = 64_000


class Layout(NamedTuple):
    """What a shard asks of a vocabulary."""

    vocab_size: int
    fingerprint: str


def write_output(folder: Path, num_shards: int, documents_per_shard: int) -> None:
    """Documents of log-normal length, half of them text followed by an image."""
    rng = np.random.default_rng(0)
    layout = Layout(VOCAB_SIZE, "0" * 64)
    infos = []
    for index in range(num_shards):
        with ShardWriter(folder, index, layout) as writer:
            for number in range(documents_per_shard):
                length = int(np.clip(rng.lognormal(6.6, 0.75), 16, 20_000))
                cut = length // 2 if number % 2 else length
                spans = [Span("text", Modality.TEXT, 1, cut - 2, (cut - 2,), (cut - 2,), 1, "raster")]
                if cut < length:
                    image = length - cut - 2
                    spans.append(Span("image", Modality.IMAGE, cut + 1, image, (1, image), (8, 8), 1, "raster"))
                writer.add(TokenSequence(rng.integers(0, VOCAB_SIZE, length), tuple(spans), f"{index}-{number}"))
        infos.append(writer.info)
    Manifest.build(infos, tokenizers={}, vocab_size=VOCAB_SIZE, vocabulary=layout.fingerprint).save(folder)


class Documents(Dataset[torch.Tensor]):
    """Single documents as int64 tensors."""

    def __init__(self, folder: Path) -> None:
        self.shards = ShardSet(folder)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, document: int) -> torch.Tensor:
        return torch.from_numpy(self.shards.ids(document).astype(np.int64))


def baseline(folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    """Rows made by hand from a DataLoader of documents."""
    parts: list[torch.Tensor] = []  # [n, 4] each: token, label, position, document
    held = 0
    for number, ids in enumerate(DataLoader(Documents(folder), batch_size=None, shuffle=True)):
        labels = torch.cat([ids[1:], torch.tensor([-100])])
        parts.append(torch.stack([ids, labels, torch.arange(len(ids)), torch.full_like(ids, number)], dim=1))
        held += len(ids)
        if held >= ROW_TOKENS:
            joined = torch.cat(parts)
            for row in joined[: held - held % ROW_TOKENS].split(ROW_TOKENS):
                names = ("input_ids", "labels", "position_ids", "document_ids")
                yield dict(zip(names, row.T.contiguous(), strict=True))
            parts, held = [joined[held - held % ROW_TOKENS :]], held % ROW_TOKENS


def rate(batches: Iterator[dict[str, Any]]) -> tuple[float, float]:
    """Million tokens in rows, padding included, per second and per second of processor time."""
    start, start_cpu = time.perf_counter(), time.process_time()
    count = sum(batch["input_ids"].numel() for batch in batches) / 1e6
    return count / (time.perf_counter() - start), count / (time.process_time() - start_cpu)


def restore_ms(folder: Path, packing: Any, position: int) -> float:
    """Milliseconds from `load_state_dict` to the first batch."""
    dataset = PackedDataset(folder, ROW_TOKENS, packing=packing, batch_size=8)
    state = dataset.state_dict()
    next(iter(dataset))  # files open, code warm
    start = time.perf_counter()
    dataset.load_state_dict({**state, "position": position})
    next(iter(dataset))
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Time all ways and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few documents, to see that it works")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = 1 if options.quick else options.runs
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_output(folder, 4, 50 if options.quick else 8000)
        shards = ShardSet(folder)
        shards.verify()  # reads every byte once
        print(f"{describe()}; one thread, median of {runs} runs  ")
        print(f"{len(shards):,} documents, {shards.num_tokens:,} tokens, rows of {ROW_TOKENS:,}\n")

        ways: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"baseline": lambda: baseline(folder)}
        for packing in ("concat_split", "first_fit", "best_fit"):
            for rows in (1, 8):
                dataset = PackedDataset(folder, ROW_TOKENS, packing=packing, batch_size=rows)  # type: ignore[arg-type]
                ways[f"{packing}, {rows} a batch"] = dataset.__iter__
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                rates[name].append(rate(way()))
        print("| way | million tokens/s | per processor second | times the baseline |\n|---|---|---|---|")
        for name, found in rates.items():
            wall, processor = zip(*found, strict=True)
            ratio = statistics.median(wall) / statistics.median(pair[0] for pair in rates["baseline"])
            spread = f"{statistics.median(wall):.1f} ({min(wall):.1f} to {max(wall):.1f})"
            print(f"| {name} | {spread} | {statistics.median(processor):.1f} | {ratio:.2f} |")

        print("\n| restore | near the start, ms | near the end, ms |\n|---|---|---|")
        for packing in ("concat_split", "first_fit", "best_fit"):
            times = [
                statistics.median(restore_ms(folder, packing, len(shards) * part // 20) for _ in range(runs))
                for part in (1, 18)
            ]
            print(f"| {packing} | {times[0]:.1f} | {times[1]:.1f} |")


if __name__ == "__main__":
    main()
