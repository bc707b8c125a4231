"""A job in a process of its own, for tests that kill it: `run_job.py VOCABULARY OUT WORKERS SOURCE...`"""

from __future__ import annotations

import signal
import sys

from multitok.prepare import prepare

if __name__ == "__main__":
    # Whoever starts tests in the background has them ignore interrupts, and their children would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    vocabulary, out, workers, *sources = sys.argv[1:]
    report = prepare(sources, vocabulary, out, workers=int(workers), shard_bytes=20_000)
    print(report.num_shards, report.new_shards)
