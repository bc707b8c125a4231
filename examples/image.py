"""A photo to codes and back: `python examples/image.py [PHOTO]`."""

import sys
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/photos/coffee.png"
tokenizer = multitok.load("image-patch8")  # 8 x 8 pixels -> 4 codes of 10 bits

image = media.read(path)  # uint8 [H, W, 3]; EXIF rotation, palettes, alpha and CMYK are dealt with
codes = tokenizer.encode(image)  # int32 [4, H/8, W/8]
back = tokenizer.decode(codes)  # uint8 [H, W, 3], the photo's own size

error = np.mean((image.astype(np.float64) - back) ** 2)
bits = codes.values[0].size * tokenizer.spec.bits_per_position
print(f"{path.name}: {image.shape} -> codes {codes.values.shape}, {codes.num_tokens:,} tokens")
print(f"{bits / (image.shape[0] * image.shape[1]):.3f} bits per pixel, PSNR {10 * np.log10(255**2 / error):.2f} dB")
print("wrote", media.write(Path("image-decoded.png"), tokenizer.spec.modality, back))
