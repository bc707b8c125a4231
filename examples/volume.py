"""A volume to codes and back: `python examples/volume.py [VOLUME]` (.npy, .npz, .nii, .nii.gz)."""

import sys
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/volumes/brain.npy"
tokenizer = multitok.load("volume-patch4")  # 4 x 4 x 4 voxels -> 4 codes

volume = media.read(path)  # float32 [Z, Y, X]
codes = tokenizer.encode(volume)  # int32 [4, Z/4, Y/4, X/4]
back = tokenizer.decode(codes)

print(f"{path.name}: {volume.shape} -> codes {codes.values.shape}, {codes.num_tokens:,} tokens")
print(f"mean absolute error {np.abs(volume - back).mean():.4f} over the range {volume.min():.2f} to {volume.max():.2f}")
print("wrote", media.write(Path("volume-decoded.npy"), tokenizer.spec.modality, back))
