"""A spectrogram seen as tokens: `python examples/spectrogram_tokens.py [SOUND] [--checkpoint NAME] [--out PNG]`.

Three pictures under each other, time to the right: the sound's mel spectrogram, its codes (a row for each codebook, the
brighter the larger the code), and the mel spectrogram of what the codes decode to. With dMel a code is the loudness of
one band, so the codes are a picture of the sound; with `--checkpoint mel-vq` they are names of vectors.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import multitok
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram

SECONDS, WIDTH, HEIGHT, MARGIN, LABEL = 4.0, 1200, 240, 12, 26
MEL = MelSpectrogram(16_000, 200, 600, 1024, 80)
LOWEST, HIGHEST = -6.0, 1.5  # log10 of the energies that are black and white
COLOURS = np.array([[0, 0, 0], [70, 10, 110], [190, 40, 70], [240, 125, 20], [250, 210, 80], [255, 255, 255]])


def main() -> None:
    """Encode, decode, draw."""
    parser = argparse.ArgumentParser()
    sounds = Path(__file__).parent / "data/sounds"
    parser.add_argument("sound", nargs="?", type=Path, default=sounds / "speech-russian-1.wav")
    parser.add_argument("--checkpoint", default="dmel-80hz", help="a shipped checkpoint or a folder")
    parser.add_argument("--out", type=Path, default=Path("spectrogram-tokens.png"))
    arguments = parser.parse_args()

    tokenizer = multitok.load(arguments.checkpoint)
    wave = media.read(arguments.sound)
    wave = multitok.Waveform(wave.samples[:, : round(SECONDS * wave.sample_rate_hz)], wave.sample_rate_hz)
    codes = tokenizer.encode(wave)
    back = tokenizer.decode(codes)
    rate = codes.num_tokens / wave.duration_s
    print(f"{arguments.sound.name}: {wave.duration_s:.2f} s -> codes {codes.values.shape}, {rate:,.0f} tokens/s")

    sizes = np.array(tokenizer.spec.codebook_sizes)[:, None]
    panels = {
        f"mel spectrogram of {arguments.sound.name}, {wave.duration_s:.2f} s": mel_picture(wave),
        f"its codes: {codes.num_codebooks} x {codes.grid[0]}, {rate:,.0f} a second": codes.values
        / np.maximum(sizes - 1, 1),
        "mel spectrogram of what they decode to": mel_picture(back),
    }
    draw_sheet(panels).save(arguments.out)
    print("wrote", arguments.out)


def mel_picture(wave: multitok.Waveform) -> np.ndarray:
    """Energies [bands, frames] from 0 to 1, the lowest band first."""
    energies = MEL.energies(to_mono(wave, MEL.sample_rate_hz)).T
    logs = np.log10(np.maximum(energies, 10.0**LOWEST))
    return np.clip((logs - LOWEST) / (HIGHEST - LOWEST), 0, 1)


def draw_sheet(panels: dict[str, np.ndarray]) -> Image.Image:
    """The panels [rows, columns] of numbers from 0 to 1, row 0 at the bottom, all as wide as the sheet."""
    sheet = Image.new("RGB", (WIDTH + 2 * MARGIN, MARGIN + (HEIGHT + LABEL) * len(panels)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    steps = np.linspace(0, 1, len(COLOURS))
    for i, (label, values) in enumerate(panels.items()):
        coloured = np.stack([np.interp(values[::-1], steps, channel) for channel in COLOURS.T], axis=2)
        picture = Image.fromarray(coloured.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
        top = MARGIN + i * (HEIGHT + LABEL)
        draw.text((MARGIN, top), label, "black", font)
        sheet.paste(picture, (MARGIN, top + LABEL - 4))
    return sheet


if __name__ == "__main__":
    main()
