"""Sensor channels to codes and back: `python examples/series.py [TABLE]` (.csv, .tsv, .npy)."""

import sys
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/series/walking.csv"
tokenizer = multitok.load("series-16")  # windows of 16: location, scale and 16 values; missing values stay missing

series = media.read(path)  # float32 [N, C]
codes = tokenizer.encode(series)  # int32 [K, N/16, C]
back = tokenizer.decode(codes)

spread = np.nanmax(series, axis=0) - np.nanmin(series, axis=0)
worst = np.nanmax(np.abs(series - back) / spread)
print(f"{path.name}: {series.shape} -> codes {codes.values.shape}, {codes.num_tokens:,} tokens")
print(f"largest error {100 * worst:.2f}% of a channel's range")
