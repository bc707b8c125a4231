"""The manifest: which shards make up a finished output, and for which vocabulary.

`manifest.json` is written last of all, so a folder without it is an unfinished output. It repeats each shard's commit
record, so that one file with its fingerprints and sha256 vouches for the whole folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from multitok.errors import FingerprintError, ShardError
from multitok.protocol import Json, Modality
from multitok.shards.files import read_json, write_json
from multitok.shards.info import (
    FORMAT_VERSION,
    Count,
    ShardInfo,
    add_counts,
    check_format_version,
    counts_to_json,
    id_dtype,
)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a finished output holds.

    Args:
        vocab_size: Number of IDs of the vocabulary.
        vocabulary: Fingerprint of the vocabulary.
        tokenizers: Fingerprint of each tokenizer, by its name in the vocabulary.
        shards: Commit records, in order of their index.
        template: The interleaving template as JSON values.
        plan: Fingerprint of the job's plan; None for shards that no job wrote.

    Raises:
        FingerprintError: A shard is of another vocabulary.
        ShardError: Shards are missing, doubled or out of order.
    """

    vocab_size: int
    vocabulary: str
    tokenizers: Mapping[str, str]
    shards: tuple[ShardInfo, ...]
    template: Mapping[str, Json] = field(default_factory=dict)
    plan: str | None = None

    def __post_init__(self) -> None:
        indices = [shard.index for shard in self.shards]
        if indices != list(range(len(indices))):
            raise ShardError(f"shards {indices} in a manifest: give 0 to {len(indices) - 1}, each once and in order")
        for shard in self.shards:
            if (shard.vocabulary, shard.vocab_size) != (self.vocabulary, self.vocab_size):
                raise FingerprintError(
                    f"{shard.name} was written with vocabulary {shard.vocabulary} of {shard.vocab_size} IDs, the "
                    f"manifest is of {self.vocabulary} of {self.vocab_size}: prepare all shards with one vocabulary"
                )

    @classmethod
    def build(
        cls,
        shards: Sequence[ShardInfo],
        *,
        tokenizers: Mapping[str, str],
        vocab_size: int,
        vocabulary: str,
        template: Mapping[str, Json] | None = None,
        plan: str | None = None,
    ) -> Manifest:
        """A manifest over shards given in any order; see the class for the arguments."""
        ordered = tuple(sorted(shards, key=lambda shard: shard.index))
        return cls(vocab_size, vocabulary, dict(tokenizers), ordered, {} if template is None else dict(template), plan)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The payloads' dtype."""
        return id_dtype(self.vocab_size)

    @property
    def num_documents(self) -> int:
        """Documents in all shards."""
        return sum(shard.num_documents for shard in self.shards)

    @property
    def num_tokens(self) -> int:
        """Token IDs in all shards."""
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def counts(self) -> dict[Modality, Count]:
        """Items and tokens of each modality in all shards."""
        return add_counts(self.shards)

    def save(self, folder: Path) -> None:
        """Write `manifest.json`, whole or not at all; the same content gives the same bytes."""
        write_json(Path(folder) / MANIFEST, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder.

        Raises:
            ShardError: There is none (the output is unfinished), or it is damaged or of another version.
            FingerprintError: It lists a shard of another vocabulary.
        """
        path = Path(folder) / MANIFEST
        if not path.exists():
            records = len(list(Path(folder).glob("shard-*.done.json")))
            raise ShardError(
                f"{path} is missing ({records} finished shards lie beside it): "
                "the output is unfinished, run the same prepare command again; or this is another folder"
            )
        return cls.from_json(read_json(path, "manifest", "run prepare again"), str(path))

    def to_json(self) -> dict[str, Json]:
        """The manifest as JSON values; `from_json` inverts it."""
        return {
            "format_version": FORMAT_VERSION,
            "dtype": self.dtype.name,
            "vocab_size": self.vocab_size,
            "vocabulary": self.vocabulary,
            "tokenizers": dict(self.tokenizers),
            "template": dict(self.template),
            "plan": self.plan,
            "num_documents": self.num_documents,
            "num_tokens": self.num_tokens,
            "modalities": counts_to_json(self.counts),
            "shards": [shard.to_json() for shard in self.shards],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = MANIFEST) -> Manifest:
        """Rebuild a manifest from what `to_json` returned.

        Args:
            data: JSON values.
            where: What to call the manifest in a message.
        Raises:
            ShardError: Another format version, a damaged field, or totals that do not fit the shards.
            FingerprintError: A shard of another vocabulary.
        """
        check_format_version(data, where)
        try:
            manifest = cls(
                vocab_size=int(data["vocab_size"]),
                vocabulary=str(data["vocabulary"]),
                tokenizers=dict(data["tokenizers"]),
                shards=tuple(ShardInfo.from_json(shard, f"{where}: a shard record") for shard in data["shards"]),
                template=dict(data["template"]),
                plan=data["plan"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"{where} is damaged ({error!r}): run prepare again") from error
        for key, value in manifest.to_json().items():
            if data.get(key) != value:
                raise ShardError(
                    f"{where} says {key}={data.get(key)!r}, its shards add up to {value!r}: it was altered"
                )
        return manifest
