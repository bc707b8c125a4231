"""The main job on the sample data: raw files of every modality -> token shards -> back to files.

    python examples/demo.py [--data FOLDER] [--out FOLDER] [--workers N]

What `multitok prepare` does, called from Python, followed by one item of each modality decoded to a file.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import multitok
from multitok.cli.tables import human_bytes
from multitok.frontend import media
from multitok.interleave import Template
from multitok.prepare import prepare
from multitok.protocol import Modality
from multitok.shards import ShardSet

FOLDERS = ("text", "photos", "sounds", "video", "volumes", "series", "sequences", "documents.jsonl")
SHARD_BYTES = 2**20  # small, so that the samples make several shards and two workers share them


def main() -> None:
    """Prepare, print the table, decode."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Tokenize the sample data and decode one item of each modality.")
    parser.add_argument("--data", type=Path, default=here / "data")
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)

    vocabulary = multitok.Vocabulary.load("base")
    sources = [arguments.data / name for name in FOLDERS]
    shards = arguments.out / "shards"
    report = prepare(sources, vocabulary, shards, workers=arguments.workers, shard_bytes=SHARD_BYTES)
    print_report(report)
    decode_one_of_each(report.out, vocabulary, arguments.out / "decoded")


def print_report(report) -> None:
    """One row per modality."""
    table = Table(title="\nRaw files to token shards", title_justify="left", box=None)
    table.add_column("modality")
    for name in ("items", "tokens", "tokens/s", "bytes in", "bytes out"):
        table.add_column(name, justify="right")
    bytes_per_token = report.bytes_out / report.num_tokens
    for modality, part in report.modalities.items():
        size = human_bytes(part.tokens * bytes_per_token)
        rate = f"{part.tokens_per_s:,.0f}" if part.tokens_per_s else ""
        table.add_row(modality.value, f"{part.items:,}", f"{part.tokens:,}", rate, human_bytes(part.bytes_in), size)
    rate = f"{report.num_tokens / report.seconds:,.0f}"
    table.add_section()
    table.add_row(
        "all", f"{report.num_documents:,} documents", f"{report.num_tokens:,}", rate,
        human_bytes(report.bytes_in), human_bytes(report.bytes_out),
    )  # fmt: skip
    console = Console(width=110)
    console.print(table)
    console.print(
        f"{report.num_shards} shards, {report.num_quarantined} items in quarantine, {report.seconds:.1f} s with "
        f"{report.workers} workers, start-up included; tokens/s of a modality is per worker.",
        highlight=False,
    )


def decode_one_of_each(shards_folder: Path, vocabulary: multitok.Vocabulary, out: Path) -> None:
    """The first item of every modality, from its token IDs to a file."""
    out.mkdir(parents=True)
    shards = ShardSet(shards_folder, vocabulary)
    interleaver = multitok.Interleaver(vocabulary, Template.from_json(shards.manifest.template))
    tokenizers = vocabulary.load_tokenizers()
    table = Table(title="\nToken IDs back to files", title_justify="left", box=None)
    for name in ("modality", "document", "ids", "raw", "file"):
        table.add_column(name, overflow="fold")
    done: set[Modality] = set()
    for sequence in shards:
        for span, segment in zip(sequence.spans, interleaver.decode(sequence).segments, strict=True):
            if span.modality in done:
                continue
            done.add(span.modality)
            raw = tokenizers[segment.name].decode(segment.codes)
            path = media.write(out / span.modality.value, span.modality, raw)
            size = str(list(raw.shape)) if isinstance(raw, np.ndarray) else f"{span.extent[0]:,}"
            table.add_row(span.modality.value, sequence.id, f"{span.length:,}", size, str(path))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
