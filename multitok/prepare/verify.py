"""Whether an output still is what was written, and whether its sources still encode to it."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitok.errors import FingerprintError, JobError, ShardError
from multitok.frontend.media import Limits, ReadOptions
from multitok.prepare.job import VOCABULARY
from multitok.prepare.plan import Plan, source_places
from multitok.prepare.report import quarantine_of
from multitok.prepare.sources import Rejected
from multitok.prepare.worker import JobContext, Worker
from multitok.shards import ShardInfo, ShardReader, ShardSet
from multitok.vocabulary import Vocabulary

_SHARDS = 8


@dataclass(frozen=True)
class VerifyReport:
    """What was found to be right.

    Args:
        num_files: Files whose sha256 was compared.
        num_bytes: Their size.
        num_documents: Documents that were encoded again and gave the same IDs.
    """

    num_files: int
    num_bytes: int
    num_documents: int


def verify(out: str | Path, *, sample: int = 100) -> VerifyReport:
    """Read every file of a finished output, and encode some documents again.

    Args:
        out: The output folder.
        sample: Documents to encode again, the first ones of shards picked by the plan's fingerprint; 0 for none.
    Returns:
        What was found to be right.
    Raises:
        ShardError: A byte differs (names the file), or a document encodes to other IDs (names it).
        FingerprintError: The vocabulary beside the shards is not theirs.
        JobError: The output has no plan, or sources to encode again are gone.
    """
    folder = Path(out)
    shards = ShardSet(folder)
    shards.verify()
    plan = Plan.load(folder)
    if plan is None or plan.fingerprint != shards.manifest.plan:
        found = "missing" if plan is None else f"of plan {plan.fingerprint}"
        raise JobError(f"{folder}: the manifest is of plan {shards.manifest.plan}, but plan.json is {found}")
    others = [source.listing for source in plan.sources if source.listing is not None]
    for info in shards.manifest.shards:
        others += quarantine_of(info)
        if ShardInfo.load(folder, info.index) != info:
            raise ShardError(
                f"{folder}: the commit record of {info.name} is missing or not that in the manifest: run prepare again"
            )
    for file in others:
        file.check_content(folder)
    vocabulary = Vocabulary.load(folder / VOCABULARY)
    if vocabulary.fingerprint != shards.manifest.vocabulary:
        raise FingerprintError(
            f"{folder / VOCABULARY} is vocabulary {vocabulary.fingerprint}, the manifest is of "
            f"{shards.manifest.vocabulary}: copy back the one that the job wrote"
        )
    files = [*others, *(file for info in shards.manifest.shards for file in info.files)]
    checked = _encode_again(folder, plan, shards, vocabulary, sample) if sample else 0
    return VerifyReport(len(files), sum(file.size_bytes for file in files), checked)


def _encode_again(folder: Path, plan: Plan, shards: ShardSet, vocabulary: Vocabulary, sample: int) -> int:
    settings: Any = plan.settings
    paths = tuple(Path(place["path"]) for place in source_places(folder))
    for path in paths:
        if not path.exists():
            raise JobError(
                f"source {path} is gone, so that nothing can be encoded again: bring it back, or use sample=0"
            )
    context = JobContext(
        out=folder,
        vocabulary=vocabulary.to_json(),
        sources=paths,
        use=settings["use"],
        group_by_stem=settings["group_by_stem"],
        template=settings["template"],
        limits=Limits(**settings["limits"]),
        reading=ReadOptions.from_json(settings.get("reading") or ReadOptions().to_json()),
    )
    worker = Worker(context)
    chosen = random.Random(plan.fingerprint).sample(range(len(plan.shards)), min(_SHARDS, sample, len(plan.shards)))
    share = -(-sample // len(chosen))
    return sum(_compare(worker, shards.reader(shard), share) for shard in sorted(chosen))


def _compare(worker: Worker, reader: ShardReader, limit: int) -> int:
    outcomes = worker.encode(reader.info.index)
    documents = (outcome.sequence for outcome in outcomes if not isinstance(outcome, Rejected))
    count = 0
    for sequence in itertools.islice(documents, limit):
        if count >= len(reader) or reader.sequence(count) != sequence:
            raise ShardError(
                f"{reader.info.name} document {count} ({sequence.id!r}) encodes to other IDs now: "
                "its source changed, or a tokenizer gives another result on this machine"
            )
        count += 1
    if count < min(limit, len(reader)):
        raise ShardError(f"{reader.info.name} has {len(reader)} documents, encoding its sources again gives {count}")
    return count
