"""Finished outputs with made-up documents, for the tests of shards and loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multitok.interleave import Span, TokenSequence
from multitok.protocol import Modality
from multitok.shards import Manifest, ShardWriter


@dataclass(frozen=True)
class Layout:
    """What a shard asks of a vocabulary."""

    vocab_size: int = 1000
    fingerprint: str = "f" * 64


def document(rng: np.random.Generator, length: int, name: str, vocab_size: int = 1000) -> TokenSequence:
    """Random IDs with random spans of random modalities, some of them empty, some side by side."""
    cuts = np.sort(rng.integers(0, length + 1, 2 * int(rng.integers(0, 4)))).tolist()
    modalities = rng.choice(np.array(list(Modality), object), len(cuts) // 2)
    spans = tuple(
        Span(f"{modality}-x", modality, start, stop - start, (1, stop - start), (8, 8 * (stop - start)), 1, "raster")
        for modality, start, stop in zip(modalities, cuts[::2], cuts[1::2], strict=True)
    )
    return TokenSequence(rng.integers(0, vocab_size, length).astype(np.int32), spans, name)


def write_output(
    folder: Path, lengths: Sequence[Sequence[int]], layout: Layout = Layout(), seed: int = 0
) -> list[TokenSequence]:
    """Write one shard per list of document lengths, and the manifest; the documents in their order."""
    rng = np.random.default_rng(seed)
    documents, infos = [], []
    for index, of_shard in enumerate(lengths):
        with ShardWriter(folder, index, layout) as writer:
            for length in of_shard:
                documents.append(document(rng, length, f"document {len(documents)}", layout.vocab_size))
                writer.add(documents[-1])
        infos.append(writer.info)
    Manifest.build(
        infos, vocab_size=layout.vocab_size, vocabulary=layout.fingerprint, tokenizers={"text-x": "a" * 64}
    ).save(folder)
    return documents
