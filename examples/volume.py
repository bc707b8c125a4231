"""A volume as codes: `python examples/volume.py [VOLUME] [--tokenizer NAME] [--out PNG]`.

Encodes it, decodes it with the first 1 to K codebooks, and writes a sheet: its three middle slices, what each level
gives back, and where the last one is wrong. VOLUME is an .npy, .npz, .nii or .nii.gz; with multitok[volume] also DICOM.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import multitok
from multitok.frontend import media
from multitok.metrics import decode_prefix, psnr

CELL, MARGIN, LABEL = 240, 12, 44  # longest side of a slice on the sheet, what lies between, height of the labels
FULL_ERROR = 1 / 8  # of the window; from here on an error is white


def main() -> None:
    """Encode, decode every level, draw."""
    parser = argparse.ArgumentParser(description="What each codebook gives of a volume.")
    parser.add_argument("volume", type=Path, nargs="?", default=Path(__file__).parent / "data/volumes/brain.npy")
    parser.add_argument("--tokenizer", default="volume-4", help="a shipped checkpoint or a folder")
    parser.add_argument("--out", type=Path, default=Path("volume-levels.png"))
    arguments = parser.parse_args()
    tokenizer = multitok.load(arguments.tokenizer)

    volume, place = media.read_volume(arguments.volume)  # float32 [Z, Y, X] in [0, 1], and where its voxels lie
    codes = tokenizer.encode(volume)  # int32 [K, Z/4, Y/4, X/4] with patches of 4
    print(f"{arguments.volume.name}: {volume.shape} -> codes {codes.values.shape}, {codes.num_tokens:,} tokens")
    low, high = tokenizer.window
    columns, labels = [volume], ["volume"]
    for k in range(1, tokenizer.spec.num_codebooks + 1):
        columns.append(decode_prefix(tokenizer, codes, k))
        rate = codes.values[0].size * np.log2(tokenizer.spec.codebook_sizes[:k]).sum() / volume.size
        quality = psnr(volume, columns[-1], peak=high - low)
        print(f"{k} codebook{'s'[: k > 1]:1}  {rate:.3f} bits per voxel  {quality:.2f} dB")
        labels.append(f"{k} codebook{'s' * (k > 1)}\n{rate:.3f} bits, {quality:.2f} dB")
    print("wrote", media.write(Path("volume-decoded.nii.gz"), tokenizer.spec.modality, columns[-1], place=place))

    errors = np.abs(volume - columns[-1]) / (high - low) / FULL_ERROR
    least, span = volume.min(), max(np.ptp(volume), 1e-6)  # the volume's own range is black to white
    shown = [*((column - least) / span for column in columns), errors]
    labels.append(f"error, black to white:\n0 to {FULL_ERROR:.1%} of the window")
    draw_sheet(shown, labels, place.spacing).save(arguments.out)
    print("wrote", arguments.out)


def draw_sheet(columns: list[np.ndarray], labels: list[str], spacing: tuple[float, float, float]) -> Image.Image:
    """A column for each volume in [0, 1], a row for each direction of looking."""
    millimetres = [voxels * step for voxels, step in zip(columns[0].shape, spacing, strict=True)]
    width = CELL + MARGIN
    sheet = Image.new("RGB", (MARGIN + width * len(columns), LABEL + 3 * (CELL + MARGIN)), "white")
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(14), LABEL
    for row in range(3):
        # Upwards on the sheet is the front of the head in the first row, seen from above, and its top in the others.
        sides = [side for axis, side in enumerate(millimetres) if axis != row]
        height, breadth = (max(1, round(side * CELL / max(millimetres))) for side in sides)
        for column, volume in enumerate(columns):
            plane = np.take(volume, volume.shape[row] // 2, axis=row)[::-1]
            grey = Image.fromarray(np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8))
            at = MARGIN + column * width + (CELL - breadth) // 2, top
            sheet.paste(grey.resize((breadth, height), Image.Resampling.BOX), at)
            pen.text((MARGIN + column * width, 4), labels[column], "black", font)
        top += height + MARGIN
    return sheet.crop((0, 0, sheet.width, top))


if __name__ == "__main__":
    main()
