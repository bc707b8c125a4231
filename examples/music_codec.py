"""Music through a codec at three bitrates: `python examples/music_codec.py [SOUND] [--checkpoint NAME] [--kind KIND]`.

Encodes once, decodes with a quarter, half and all of the codebooks, and writes a sound file for each. With --kind the
checkpoint is a folder of another project's codec: `--checkpoint downloads/encodec_24khz --kind encodec`.
"""

import argparse
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.metrics.audio_quality import mel_distance_db

parser = argparse.ArgumentParser()
parser.add_argument("sound", nargs="?", type=Path, default=Path(__file__).parent / "data/sounds/piano.flac")
parser.add_argument("--checkpoint", default="codec-16khz", help="a shipped checkpoint or a folder")
parser.add_argument("--kind", help="encodec, dac, mimi or snac, for a folder of theirs")
arguments = parser.parse_args()

tokenizer = multitok.load(arguments.checkpoint, kind=arguments.kind)
wave = media.read(arguments.sound)  # any rate and channel count goes in
codes = tokenizer.encode(wave)  # int32 [K, frames]
rate_hz, total = tokenizer.spec.sample_rate_hz, codes.num_codebooks
print(f"{arguments.sound.name}: {wave.duration_s:.2f} s -> codes {codes.values.shape} at {rate_hz:,} Hz")

original = to_mono(wave, rate_hz)
counts = {max(1, total // 4), max(1, total // 2), total} if tokenizer.level_droppable else {total}
for count in sorted(counts):  # the first codebooks of the same codes
    back = tokenizer.decode(codes, num_codebooks=count)
    kilobits = codes.grid[0] * np.log2(tokenizer.spec.codebook_sizes[:count]).sum() / 1000 / wave.duration_s
    tokens = count * codes.grid[0] / wave.duration_s
    distance = mel_distance_db(original, to_mono(back, rate_hz), rate_hz)
    plural = "s" if count > 1 else " "
    print(
        f"{count:2} codebook{plural} {kilobits:6.2f} kbit/s {tokens:6,.0f} tokens/s  {distance:.2f} dB off in mel bands"
    )
    print("wrote", media.write(Path(f"music-{count}.wav"), tokenizer.spec.modality, back))
