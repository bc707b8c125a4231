"""Your photo as codes: `python examples/image.py [PHOTO] [--tokenizer NAME] [--out PNG]`.

Encodes it once, decodes it with the first 1 to K codebooks, and writes a sheet: photo and levels, below them where each
level is wrong, and below that the hardest spot, enlarged.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import multitok
from multitok.frontend import media
from multitok.metrics import decode_prefix, psnr

CELL, MARGIN, LABEL = 360, 12, 44  # longest side of a picture on the sheet, what lies between, height of its label
FULL_ERROR = 32  # of 255; from here on an error is white
ERROR_COLOURS = np.array([[0, 0, 0], [70, 10, 110], [190, 40, 70], [240, 125, 20], [250, 210, 80], [255, 255, 255]])


def main() -> None:
    """Encode, decode every level, draw."""
    parser = argparse.ArgumentParser(description="What each codebook gives of a photo.")
    parser.add_argument("photo", type=Path, nargs="?", default=Path(__file__).parent / "data/photos/coffee.png")
    parser.add_argument("--tokenizer", default="image-f8", help="a shipped checkpoint or a folder")
    parser.add_argument("--out", type=Path, default=Path("image-levels.png"))
    arguments = parser.parse_args()
    tokenizer = multitok.load(arguments.tokenizer)

    photo = media.read(arguments.photo)  # uint8 [H, W, 3]; EXIF rotation, palettes, alpha and CMYK are dealt with
    codes = tokenizer.encode(photo)  # int32 [K, H/8, W/8] with patches of 8
    print(f"{arguments.photo.name}: {photo.shape} -> codes {codes.values.shape}, {codes.num_tokens:,} tokens")
    levels, labels = [photo], ["photo\n24 bpp"]
    for k in range(1, tokenizer.spec.num_codebooks + 1):
        levels.append(decode_prefix(tokenizer, codes, k))
        bits = codes.values[0].size * np.log2(tokenizer.spec.codebook_sizes[:k]).sum()
        rate, quality = bits / photo[..., 0].size, psnr(photo, levels[-1])
        print(f"{k} codebook{'s'[: k > 1]:1}  {rate:.3f} bits per pixel  {quality:.2f} dB")
        labels.append(f"{k} codebook{'s' * (k > 1)}\n{rate:.3f} bpp, {quality:.2f} dB")
    draw_sheet(levels, labels).save(arguments.out)
    print("wrote", arguments.out)


def draw_sheet(levels: list[np.ndarray], labels: list[str]) -> Image.Image:
    """A column for the photo and one for each of its levels."""
    height, width = levels[0].shape[:2]
    w, h = (max(1, round(side * CELL / max(height, width))) for side in (width, height))
    errors = [np.abs(levels[0].astype(np.float32) - level).mean(2) for level in levels]
    small = [np.array(Image.fromarray(error).resize((w, h), Image.Resampling.BOX)) for error in errors]

    # The spot where the last level is furthest off, a quarter of a cell wide so that it shows four times as large.
    side_x, side_y = min(width, max(1, w // 4)), min(height, max(1, h // 4))
    y, x = np.unravel_index(small[-1].argmax(), small[-1].shape)
    left = min(max(0, x * width // w - side_x // 2), width - side_x)
    top = min(max(0, y * height // h - side_y // 2), height - side_y)
    spots = [level[top : top + side_y, left : left + side_x] for level in levels]
    scale = np.repeat(np.linspace(FULL_ERROR, 0, h)[:, None], 16, axis=1)  # the colours' legend, below the photo
    step = max(w, 150) + MARGIN
    sheet = Image.new("RGB", (MARGIN + step * len(levels), LABEL + 3 * (h + MARGIN)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, label in enumerate(labels):
        pictures = levels[column], error_colours(small[column] if column else scale), spots[column]
        pen.text((MARGIN + column * step, 4), label, "black", font)
        for row, pixels in enumerate(pictures):
            size = (16, h) if row == 1 and column == 0 else (w, h)
            cell = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
            sheet.paste(cell, (MARGIN + column * step, LABEL + row * (h + MARGIN)))
    pen.text((MARGIN + 22, LABEL + h + MARGIN), f"error {FULL_ERROR} of 255\nor more, down to 0", "black", font)
    return sheet


def error_colours(error: np.ndarray) -> np.ndarray:
    """Mean absolute errors [H, W] as colours: black, violet, red, orange, yellow, white."""
    at = error / FULL_ERROR * (len(ERROR_COLOURS) - 1)  # np.interp clips
    return np.stack([np.interp(at, range(len(ERROR_COLOURS)), each) for each in ERROR_COLOURS.T], -1).astype(np.uint8)


if __name__ == "__main__":
    main()
