"""Memory does not grow with the input: the benchmark's small sizes, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "vision_memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_memory_stays_when_the_input_grows() -> None:
    run = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json"], capture_output=True, text=True, check=True
    )
    rows = json.loads(run.stdout)
    pictures, videos = rows[:2], rows[2:]
    # The larger picture has 66 MB more of pixels, 530 MB in float64, and 3 MB more of codes.
    assert pictures[1]["megapixels"] - pictures[0]["megapixels"] > 20
    assert pictures[1]["encode_peak_mb"] - pictures[0]["encode_peak_mb"] < 45
    assert pictures[1]["decode_peak_mb"] - pictures[0]["decode_peak_mb"] < 160
    # The longer video has 25 MB more of pixels, 200 MB in float64.
    for key in ("encode_peak_mb", "decode_peak_mb"):
        assert videos[1][key] - videos[0][key] < 10
