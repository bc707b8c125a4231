"""How far a job is, from its folder alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multitok.errors import JobError
from multitok.prepare.lock import is_locked
from multitok.prepare.plan import Plan
from multitok.prepare.report import num_quarantined
from multitok.protocol import Modality
from multitok.shards import MANIFEST, Count, ShardInfo, shard_name
from multitok.shards.info import add_counts


@dataclass(frozen=True)
class JobStatus:
    """The state of a job.

    Args:
        planned: Shards that nobody has begun, or that an interrupted run left unfinished.
        running: Shards being written now.
        done: Shards that stand.
        failed: Shards that ended the last run, each with the reason.
        is_running: A process is at work in the folder.
        is_finished: The manifest stands.
        num_documents: Documents in shards that stand.
        num_tokens: Token IDs in them.
        num_quarantined: Items that could not be encoded, in them.
        counts: Items and tokens of each modality, in them.
        bytes_share: Share of the planned input bytes that is done, from 0 to 1.
    """

    planned: int
    running: int
    done: int
    failed: Mapping[int, str]
    is_running: bool
    is_finished: bool
    num_documents: int
    num_tokens: int
    num_quarantined: int
    counts: Mapping[Modality, Count]
    bytes_share: float


def status(out: str | Path) -> JobStatus:
    """How far the job in `out` is; reads commit records only, and may be called while it runs.

    Raises:
        JobError: There is no job in the folder.
        ShardError: A commit record or the plan is cut short; says what to do.
    """
    folder = Path(out)
    plan = Plan.load(folder)
    if plan is None:
        raise JobError(f"{folder} holds no job of prepare (no plan.json)")
    at_work = is_locked(folder)
    begun = {path.name[1:].partition(".")[0] for path in folder.glob(".shard-*.tmp")} if at_work else set()
    shards: list[ShardInfo] = []
    failed: dict[int, str] = {}
    running = done_bytes = 0
    for number in range(len(plan.shards)):
        info = ShardInfo.load(folder, number)
        reason = folder / f"{shard_name(number)}.failed.json"
        if info is not None:
            shards.append(info)
            done_bytes += plan.num_bytes(number)
        elif shard_name(number) in begun:
            running += 1
        else:
            # A run that begins now removes what the last one left: gone means planned.
            with contextlib.suppress(FileNotFoundError):
                data = json.loads(reason.read_text(encoding="utf-8"))
                failed[number] = f"{data['error']}: {data['message']}"
    return JobStatus(
        planned=len(plan.shards) - len(shards) - running - len(failed),
        running=running,
        done=len(shards),
        failed=failed,
        is_running=at_work,
        is_finished=(folder / MANIFEST).exists(),
        num_documents=sum(shard.num_documents for shard in shards),
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_quarantined=sum(num_quarantined(shard) for shard in shards),
        counts=add_counts(shards),
        bytes_share=done_bytes / max(1, sum(plan.num_bytes(number) for number in range(len(plan.shards)))),
    )
