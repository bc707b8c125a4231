"""torchdata's StatefulDataLoader, which saves the state of each worker, resumes exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shards.outputs import write_output

RESUME = """
import json, sys
import torch
from torchdata.stateful_dataloader import StatefulDataLoader
from multitok.loader import PackedDataset

def loader():
    dataset = PackedDataset(sys.argv[1], 16, batch_size=2, epochs=2)
    return StatefulDataLoader(dataset, batch_size=None, num_workers=workers)

for workers in (0, 1, 2):
    whole = [batch["input_ids"] for batch in loader()]
    for stop in range(1, len(whole), 3):
        first, second = loader(), loader()
        used = [batch["input_ids"] for _, batch in zip(range(stop), first)]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())) if workers == 0 else first.state_dict())
        rest = [batch["input_ids"] for batch in second]
        assert len(used) + len(rest) == len(whole), (workers, stop)
        assert all(map(torch.equal, used + rest, whole)), (workers, stop)
print("same", len(whole))
"""


@pytest.mark.slow
def test_resumes_between_any_two_batches(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), "torchdata"]
    subprocess.run(install, check=True)
    write_output(tmp_path / "out", [[30, 1, 7, 64, 12], [5, 90, 3, 3]])
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    command = [sys.executable, "-c", RESUME, str(tmp_path / "out")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout == "same 14\n", result.stderr
