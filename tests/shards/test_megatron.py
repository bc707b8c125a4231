"""The real Megatron reader opens what the writer writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.shards.outputs import Layout, write_output

# megatron-core needs torch and NumPy to import its data sets; its other dependencies are not touched.
READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
from megatron.core.datasets.indexed_dataset import IndexedDataset
found = []
for prefix in sys.argv[1:]:
    assert IndexedDataset.exists(prefix)
    data = IndexedDataset(prefix, multimodal=False, mmap=True)
    found.append({
        "dtype": str(data[0].dtype),
        "sequences": [data[k].tolist() for k in range(len(data))],
        "tails": [data.get(k, offset=1).tolist() for k in range(len(data))],
        "lengths": data.sequence_lengths.tolist(),
        "documents": data.document_indices.tolist(),
    })
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), "megatron-core"]
    subprocess.run(install, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("vocab_size", "dtype"), [(50_000, "uint16"), (200_000, "int32")])
def test_megatron_reads_every_sequence(tmp_path: Path, packages: Path, vocab_size: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    lengths = [rng.integers(1, 900, 200).tolist(), rng.integers(1, 20, 300).tolist()]
    documents = write_output(tmp_path / "out", lengths, Layout(vocab_size))
    prefixes = [str(tmp_path / "out" / f"shard-{index:05d}") for index in range(2)]
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    result = subprocess.run(
        [sys.executable, "-c", READ, *prefixes], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(result.stdout.splitlines()[-1])
    for shard, (of_shard, first) in enumerate(zip(lengths, (0, 200), strict=True)):
        sequences = [document.ids.tolist() for document in documents[first : first + len(of_shard)]]
        assert found[shard] == {
            "dtype": dtype,
            "sequences": sequences,
            "tails": [sequence[1:] for sequence in sequences],
            "lengths": of_shard,
            "documents": list(range(len(of_shard) + 1)),
        }
