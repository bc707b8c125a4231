"""Codes of one or more items in one file that knows its tokenizer: what `multitok encode` writes and `decode` reads.

A safetensors file: tensor "<i>" holds item i's codes [K, *grid] int32; the header holds the tokenizer's name for
`multitok.load`, its fingerprint and specification, and each item's id and extent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from multitok.checkpoint import fingerprint, load
from multitok.errors import CheckpointError, FingerprintError, MultitokError
from multitok.protocol import Codes, Tokenizer, TokenizerSpec

FORMAT_VERSION = "1"


@dataclass(frozen=True, slots=True, eq=False)
class CodesFile:
    """What a codes file holds: where its tokenizer is found, and the items as (id, codes)."""

    source: str
    fingerprint: str
    spec: TokenizerSpec
    items: tuple[tuple[str, Codes], ...]

    def load_tokenizer(self) -> Tokenizer[Any]:
        """The tokenizer that made these codes.

        Raises:
            CheckpointError: It is not found under `source`.
            FingerprintError: What is found there would decode differently.
        """
        tokenizer = load(self.source)
        if fingerprint(tokenizer) != self.fingerprint:
            raise FingerprintError(
                f"these codes were made by a {self.source!r} with fingerprint {self.fingerprint[:12]}..., the one "
                f"found here has {fingerprint(tokenizer)[:12]}...: name the right checkpoint"
            )
        return tokenizer


def write_codes(path: Path, tokenizer: Tokenizer[Any], source: str, items: Sequence[tuple[str, Codes]]) -> None:
    """Write items' codes; `source` is what `multitok.load` takes to find the tokenizer again."""
    header = {
        "format": "multitok-codes",
        "format_version": FORMAT_VERSION,
        "source": source,
        "fingerprint": fingerprint(tokenizer),
        "spec": json.dumps(tokenizer.spec.to_json()),
        "items": json.dumps([{"id": key, "extent": list(codes.extent)} for key, codes in items]),
    }
    tensors = {str(i): np.ascontiguousarray(codes.values) for i, (_, codes) in enumerate(items)}
    path.write_bytes(safetensors.numpy.save(tensors, metadata=header))


def read_codes(path: Path) -> CodesFile:
    """Read a codes file.

    Raises:
        CheckpointError: The file is none, is cut short, or is of another version.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != "multitok-codes" or header.get("format_version") != FORMAT_VERSION:
                raise CheckpointError(
                    f"{path} is not a codes file of version {FORMAT_VERSION}: `multitok encode` writes them"
                )
            rows = json.loads(header["items"])
            items = tuple(
                (str(row["id"]), Codes(file.get_tensor(str(i)), tuple(row["extent"]))) for i, row in enumerate(rows)
            )
            spec = TokenizerSpec.from_json(json.loads(header["spec"]))
            return CodesFile(header["source"], header["fingerprint"], spec, items)
    except (SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, MultitokError):
            raise
        raise CheckpointError(f"{path} is not a codes file, or is cut short: {error}") from error
