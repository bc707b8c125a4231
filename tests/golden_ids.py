"""Golden IDs: one folder per checkpoint, written once. A changed code means a new kind or a new checkpoint.

    tests/golden/<checkpoint>/raw.npz     the raw item (`text`, `array`, or `samples` and `sample_rate_hz`)
    tests/golden/<checkpoint>/codes.npz   `values` and `extent`

Write a new one with `python tests/golden_ids.py CHECKPOINT PATH/TO/raw.npz`; an existing one is never rewritten.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

import multitok
from multitok.protocol import Codes, Waveform

ROOT = Path(__file__).parent / "golden"


def read_raw(path: Path) -> Any:
    """The raw item in a `raw.npz`."""
    with np.load(path) as data:
        if "text" in data:
            return bytes(data["text"]).decode("utf-8")
        if "samples" in data:
            return Waveform(data["samples"], int(data["sample_rate_hz"]))
        return data["array"]


def write_raw(path: Path, raw: Any) -> None:
    """Store a raw item of any modality as a `raw.npz`."""
    if isinstance(raw, str):
        np.savez_compressed(path, text=np.frombuffer(raw.encode("utf-8"), np.uint8))
    elif isinstance(raw, Waveform):
        np.savez_compressed(path, samples=raw.samples, sample_rate_hz=raw.sample_rate_hz)
    else:
        np.savez_compressed(path, array=raw)


def read_codes(path: Path) -> Codes:
    """The expected codes in a `codes.npz`."""
    with np.load(path) as data:
        return Codes(data["values"], tuple(data["extent"].tolist()))


def main() -> None:
    """Write one golden folder."""
    checkpoint, source = sys.argv[1], Path(sys.argv[2])
    folder = ROOT / checkpoint
    if (folder / "codes.npz").exists():
        raise SystemExit(f"{folder} exists: golden IDs are written once. Changed output needs a new checkpoint name")
    folder.mkdir(parents=True, exist_ok=True)
    if source.resolve() != (folder / "raw.npz").resolve():
        shutil.copyfile(source, folder / "raw.npz")
    codes = multitok.load(checkpoint).encode(read_raw(folder / "raw.npz"))
    np.savez_compressed(folder / "codes.npz", values=codes.values, extent=np.asarray(codes.extent, np.int64))


if __name__ == "__main__":
    main()
