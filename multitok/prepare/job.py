"""The main job: raw sources become token shards, restartable at any instant and exact.

    plan     sources -> plan.json: which shard holds what. Deterministic, blind to workers, executor and time
    work     workers write whole shards; each counts once its commit record stands
    commit   manifest.json, when all shards stand

Kill it at any instant and run it again: finished shards are kept, the rest is written, and the folder ends up
byte for byte as that of an undisturbed run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from multitok.errors import JobError, MultitokError, ShardError
from multitok.frontend.media import Limits, ReadOptions
from multitok.interleave import Interleaver, Template
from multitok.prepare.executors import EXECUTORS, Executor, Failure
from multitok.prepare.lock import job_lock
from multitok.prepare.plan import PLAN, Plan, check_plan, make_plan
from multitok.prepare.progress import Progress
from multitok.prepare.quarantine import DEFAULT_BUDGET, Budget
from multitok.prepare.report import JobReport, Work, quarantine_of
from multitok.prepare.sources import Source, open_sources
from multitok.prepare.worker import JobContext, make_routing
from multitok.protocol import Json, Modality
from multitok.shards import MANIFEST, Manifest, ShardInfo, remove_unfinished, shard_name
from multitok.shards.files import write_json
from multitok.vocabulary import Vocabulary

VOCABULARY = "vocabulary.json"
DEFAULT_SHARD_BYTES = 64 * 2**20

_OURS = re.compile(r"(source-\d{5}\.files\.jsonl|\..*\.tmp|\.lock|sources\.json|vocabulary\.json)")
_LEFT_OVER = re.compile(r"\..*\.[0-9a-f]{16}\.tmp|shard-\d{5,8}\.failed\.json")
_QUARANTINE = re.compile(r"shard-(\d{5,8})\.quarantine\.jsonl")


def prepare(
    sources: Sequence[str | os.PathLike[str]],
    vocabulary: Vocabulary | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    executor: str = "process",
    template: Template | None = None,
    use: Mapping[str, str] | None = None,
    group_by_stem: bool = False,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    error_budget: float = DEFAULT_BUDGET,
    limits: Limits | None = None,
    reading: ReadOptions | None = None,
    progress: bool | None = None,
) -> JobReport:
    """Turn raw sources into token shards, or go on with that where an earlier run stopped.

    The output depends on the sources, the vocabulary (with its tokenizers' fingerprints), `template`, `use`,
    `group_by_stem`, `shard_bytes`, `limits` and `reading`; the other arguments may change between runs. Memory does not
    grow with the sources. With executor="process", call it under `if __name__ == "__main__":`.

    Args:
        sources: Folders, .jsonl, .parquet and .tar files, or single media files. Documents keep their order.
        vocabulary: A vocabulary or the path of one; it has to know where its tokenizers lie.
        out: A new or empty folder, or that of the job to go on with.
        workers: Processes; None for one per core.
        executor: "process" or "inline".
        template: How documents are written; None for the default.
        use: Modality or file ending (".faa") -> tokenizer name, where several tokenizers could take it.
        group_by_stem: In folders, the files of one stem are one document.
        shard_bytes: Input bytes a shard aims at; a shard is also what a killed run loses.
        error_budget: Items that may end in quarantine: a float is a share (ten may always), an int a number.
        limits: How large an item may be; None for the defaults.
        reading: Frame rate of videos, window of volumes and the like; None for the defaults.
        progress: Show a live bar; None shows it on a terminal.
    Returns:
        What the output holds and what this run did.
    Raises:
        JobError: The job cannot start, may not go on, or a shard failed; says what to do.
        ShardError: A file that an earlier run left is cut short; says which, and what to do.
        VocabularyError: The vocabulary cannot be read or does not fit the template.
    """
    started = time.monotonic()
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary.load(vocabulary)
    workers = os.cpu_count() or 1 if workers is None else workers
    _check_arguments(sources, workers, executor, shard_bytes, error_budget)
    template, limits, use = template or Template(), limits or Limits(), dict(use or {})
    reading = reading or ReadOptions()
    Interleaver(vocabulary, template)  # a template that does not fit shows here, before any work
    routing = make_routing(vocabulary, use)
    # Not resolved: what a link points at may have another name, and with it another kind and label.
    paths = tuple(Path(os.path.abspath(source)) for source in sources)
    opened = open_sources(paths, routing, group_by_stem=group_by_stem)
    settings: dict[str, Json] = {
        "vocabulary": vocabulary.fingerprint,
        "tokenizers": {name: entry.fingerprint for name, entry in vocabulary.entries.items()},
        "template": template.to_json(),
        "use": dict(routing.use),
        "group_by_stem": group_by_stem,
        "shard_bytes": shard_bytes,
        "limits": asdict(limits),
        "reading": reading.to_json(),
    }
    folder = Path(out).resolve()
    _check_place(folder, opened)
    folder.mkdir(parents=True, exist_ok=True)
    context = JobContext(
        out=folder,
        vocabulary=vocabulary.to_json(),
        sources=paths,
        use=use,
        group_by_stem=group_by_stem,
        template=template.to_json(),
        limits=limits,
        reading=reading,
    )
    with job_lock(folder):
        plan = _planned(opened, settings, shard_bytes, folder, vocabulary)
        shards = _standing(folder, plan)
        _clean(folder)
        num_before = len(shards)
        workers = 1 if executor == "inline" else min(workers, max(1, len(plan.shards) - num_before))
        work = _write_shards(
            context, plan, shards, Budget(folder, error_budget), EXECUTORS[executor], workers, progress
        )
        ordered = [shards[number] for number in range(len(plan.shards))]
        manifest = Manifest.build(
            ordered,
            tokenizers={name: entry.fingerprint for name, entry in vocabulary.entries.items()},
            vocab_size=vocabulary.vocab_size,
            vocabulary=vocabulary.fingerprint,
            template=template.to_json(),
            plan=plan.fingerprint,
        )
        if not _declares(folder, manifest):
            manifest.save(folder)
    return JobReport.build(
        folder,
        ordered,
        work,
        skipped=plan.skipped,
        new_shards=len(ordered) - num_before,
        seconds=time.monotonic() - started,
        workers=workers,
    )


def _write_shards(
    context: JobContext,
    plan: Plan,
    shards: dict[int, ShardInfo],
    budget: Budget,
    executor: Executor,
    workers: int,
    progress: bool | None,
) -> dict[Modality, Work]:
    """Write the shards that are missing from `shards`, adding each to it; returns the work done."""
    for info in shards.values():
        budget.add(info)
    todo = [number for number in range(len(plan.shards)) if number not in shards]
    budget.check(finished=not todo)
    if not todo:
        return {}
    work: dict[Modality, Work] = {}
    failures: dict[int, Failure] = {}
    done_bytes = sum(plan.num_bytes(number) for number in shards)
    total_bytes = done_bytes + sum(plan.num_bytes(number) for number in todo)
    with (
        Progress(total_bytes, done_bytes, progress) as bar,
        # Closed here, not when it happens to be collected: workers have to be gone before the lock is.
        closing(executor(context, todo, workers=workers, tick=bar.tick if bar.shown else None)) as finished,
    ):
        for number, result in finished:
            if isinstance(result, Failure):
                failures[number] = result
                continue
            shards[number] = _committed(context.out, number)
            for modality, spent in result.items():
                work[modality] = work.get(modality, Work()) + spent
            bar.finish_shard(plan.num_bytes(number))
            budget.add(shards[number])
            budget.check(finished=len(shards) == len(plan.shards))
    if failures:
        raise _job_error(context.out, failures, len(shards), len(plan.shards))
    return work


def _check_arguments(
    sources: Sequence[object], workers: int, executor: str, shard_bytes: int, error_budget: float
) -> None:
    if isinstance(sources, (str, os.PathLike)):
        raise JobError(f"sources={sources!r}: give a list of paths, [{sources!r}]")
    if not sources:
        raise JobError("no sources: give at least one folder, .jsonl, .parquet or .tar")
    if workers < 1:
        raise JobError(f"workers={workers}: give 1 or more")
    if executor not in EXECUTORS:
        raise JobError(f"executor={executor!r}: known are {', '.join(EXECUTORS)}")
    if shard_bytes < 1:
        raise JobError(f"shard_bytes={shard_bytes}: give 1 or more; the default is {DEFAULT_SHARD_BYTES}")
    if not error_budget >= 0 or (isinstance(error_budget, float) and error_budget > 1):  # NaN is neither
        raise JobError(f"error_budget={error_budget}: give a share from 0.0 to 1.0, or a number of items as an int")


def _check_place(folder: Path, sources: Iterable[Source]) -> None:
    for source in sources:
        if source.kind == "folder" and source.path.resolve() in (folder, *folder.parents):
            raise JobError(
                f"out={folder} lies inside the source {source.path}: a second run would take the shards for input; "
                "give a folder elsewhere"
            )
    if not folder.is_dir():
        if folder.exists():
            raise JobError(f"out={folder} is a file: give a folder")
        return
    if not (folder / PLAN).exists():
        foreign = [path.name for path in sorted(folder.iterdir()) if not _OURS.fullmatch(path.name)]
        # Asked again: a job that was planning here may have come to its end in the meantime.
        if foreign and not (folder / PLAN).exists():
            raise JobError(
                f"out={folder} holds no job of prepare but other files ({', '.join(foreign[:3])}): "
                "give a new or an empty folder"
            )


def _planned(
    sources: Sequence[Source], settings: Mapping[str, Json], shard_bytes: int, folder: Path, vocabulary: Vocabulary
) -> Plan:
    plan = Plan.load(folder)
    if plan is None:
        # Listings of a run that was killed while it planned, perhaps other sources.
        for path in folder.glob("source-*.files.jsonl"):
            path.unlink()
        write_json(folder / VOCABULARY, vocabulary.to_json())
        return make_plan(sources, settings, shard_bytes, folder)
    check_plan(plan, sources, settings, folder)
    if not (folder / VOCABULARY).exists():
        write_json(folder / VOCABULARY, vocabulary.to_json())
    return plan


def _standing(folder: Path, plan: Plan) -> dict[int, ShardInfo]:
    """The shards that need not be written. Where a file of one is gone or cut short, its record goes too."""
    shards = {}
    for number in range(len(plan.shards)):
        info = ShardInfo.load(folder, number)
        if info is None:
            continue
        try:
            for file in (*info.files, *quarantine_of(info)):
                file.check_size(folder)
        except ShardError:
            (folder / f"{info.name}.done.json").unlink()
        else:
            shards[number] = info
    if len(shards) < len(plan.shards):
        # A manifest says that all shards stand.
        (folder / MANIFEST).unlink(missing_ok=True)
    return shards


def _declares(folder: Path, manifest: Manifest) -> bool:
    """Whether this very manifest stands in the folder, whole."""
    try:
        return Manifest.load(folder).to_json() == manifest.to_json()
    except MultitokError:
        return False


def _clean(folder: Path) -> None:
    """Remove what killed runs left: nothing else writes here now."""
    remove_unfinished(folder)
    for path in list(folder.iterdir()):
        quarantine = _QUARANTINE.fullmatch(path.name)
        orphaned = quarantine and not (folder / f"shard-{quarantine[1]}.done.json").exists()
        if orphaned or _LEFT_OVER.fullmatch(path.name):
            path.unlink()


def _committed(folder: Path, number: int) -> ShardInfo:
    info = ShardInfo.load(folder, number)
    if info is None:
        raise JobError(f"{folder}: {shard_name(number)} was reported as written, but its commit record is gone")
    return info


def _job_error(folder: Path, failures: Mapping[int, Failure], num_done: int, num_shards: int) -> JobError:
    for number, failure in failures.items():
        # Only for `status`; on a full disk it may fail, and then the message below has to do.
        try:
            write_json(
                folder / f"{shard_name(number)}.failed.json", {"error": failure.error, "message": failure.message}
            )
        except OSError:
            break
    names = " and ".join(shard_name(number) for number in sorted(failures))
    first = failures[min(failures)]
    return JobError(
        f"{names} could not be written: {first.error}: {first.message}. {num_done} of {num_shards} shards are done "
        f"and kept in {folder}; when the cause is mended, run the same command again to go on"
    )
