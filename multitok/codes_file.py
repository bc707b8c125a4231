"""Codes of one or more items in one file that knows its tokenizer: what `multitok encode` writes and `decode` reads.

A safetensors file: tensor "<i>" holds item i's codes [K, *grid] int32; the header holds the tokenizer's name for
`multitok.load`, its fingerprint and specification, and each item's id and extent, with what its file said besides:
where a volume lies, and how fast a clip runs. Files without it are read too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from multitok.checkpoint import fingerprint, load
from multitok.errors import CheckpointError, FingerprintError, MultitokError
from multitok.frontend.media import VolumeInfo
from multitok.protocol import Codes, Json, Tokenizer, TokenizerSpec

FORMAT_VERSION = "1"


@dataclass(frozen=True, slots=True)
class ItemInfo:
    """What an item's file said besides its values.

    Args:
        place: Where a volume's voxels lie, and its window; None where nothing is known.
        frame_rate_hz: Frames a second of a clip; None where nothing is known.
    """

    place: VolumeInfo | None = None
    frame_rate_hz: Fraction | None = None

    def to_json(self) -> dict[str, Json]:
        """The record as JSON values, what is not known left out; `from_json` inverts it."""
        place: dict[str, Json] = {} if self.place is None else {"place": self.place.to_json()}
        rate: dict[str, Json] = {} if self.frame_rate_hz is None else {"frame_rate_hz": str(self.frame_rate_hz)}
        return place | rate

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ItemInfo:
        """Rebuild a record from what `to_json` returned."""
        place, rate = data.get("place"), data.get("frame_rate_hz")
        return cls(None if place is None else VolumeInfo.from_json(place), None if rate is None else Fraction(rate))


@dataclass(frozen=True, slots=True, eq=False)
class CodesFile:
    """What a codes file holds: where its tokenizer is found, the items as (id, codes), and `about` each of them."""

    source: str
    fingerprint: str
    spec: TokenizerSpec
    items: tuple[tuple[str, Codes], ...]
    about: tuple[ItemInfo, ...]

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


def write_codes(
    path: Path,
    tokenizer: Tokenizer[Any],
    source: str,
    items: Sequence[tuple[str, Codes]],
    about: Sequence[ItemInfo] | None = None,
) -> None:
    """Write items' codes.

    Args:
        path: Where to.
        tokenizer: What made them.
        source: What `multitok.load` takes to find the tokenizer again.
        items: Ids and codes.
        about: What each item's file said besides; None for nothing.
    """
    told = [info.to_json() for info in about or [ItemInfo()] * len(items)]
    header = {
        "format": "multitok-codes",
        "format_version": FORMAT_VERSION,
        "source": source,
        "fingerprint": fingerprint(tokenizer),
        "spec": json.dumps(tokenizer.spec.to_json()),
        "items": json.dumps(
            [{"id": key, "extent": list(codes.extent)} | info for (key, codes), info in zip(items, told, strict=True)]
        ),
    }
    tensors = {str(i): np.ascontiguousarray(codes.values) for i, (_, codes) in enumerate(items)}
    safetensors.numpy.save_file(tensors, path, metadata=header)


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
            about = tuple(ItemInfo.from_json(row) for row in rows)
            return CodesFile(header["source"], header["fingerprint"], spec, items, about)
    except (SafetensorError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, MultitokError):
            raise
        raise CheckpointError(f"{path} is not a codes file, or is cut short: {error}") from error
