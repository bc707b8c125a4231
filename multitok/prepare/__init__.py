"""Raw sources -> token shards: a job that can be killed at any instant and ends with the same bytes.

    report = prepare(["photos/", "captions.jsonl"], "vocabulary.json", "tokens/")
    status("tokens/")      how far it is
    verify("tokens/")      whether every byte is as it was written, and a sample still encodes to the same IDs

What an output folder holds:

    plan.json                      sources, settings, and what each shard holds
    source-00000.files.jsonl       listing of a folder source
    sources.json                   where the sources lay; the one file that differs between machines
    vocabulary.json                the vocabulary
    shard-00000.{bin,idx,segments.parquet,done.json}
    shard-00000.quarantine.jsonl   items that could not be encoded, with reasons; only where there are any
    manifest.json                  written last
"""

from __future__ import annotations

from multitok.prepare.job import prepare
from multitok.prepare.report import JobReport, ModalityReport, Work
from multitok.prepare.status import JobStatus, status
from multitok.prepare.verify import VerifyReport, verify

__all__ = ["JobReport", "JobStatus", "ModalityReport", "VerifyReport", "Work", "prepare", "status", "verify"]
