"""A clip to codes and back: `python examples/video.py [CLIP]` (animated WebP, PNG or GIF; mp4 with multitok[video])."""

import sys
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/video/rabbit.webp"
tokenizer = multitok.load("video-patch4x8x8")  # tubelets of 4 frames x 8 x 8 pixels

video = media.read(path)  # uint8 [T, H, W, 3]
codes = tokenizer.encode(video)  # int32 [4, T/4, H/8, W/8]
back = tokenizer.decode(codes)

error = np.mean((video.astype(np.float64) - back) ** 2)
print(f"{path.name}: {video.shape} -> codes {codes.values.shape}, {codes.num_tokens:,} tokens")
print(f"PSNR {10 * np.log10(255**2 / error):.2f} dB")
print("wrote", media.write(Path("video-decoded.webp"), tokenizer.spec.modality, back))
