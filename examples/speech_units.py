"""Speech as units, and back to sound without any text: `python examples/speech_units.py [SOUND] [--checkpoint NAME]`.

units     one for every 20 ms, which say what sound is spoken and little of who speaks
runs      a token for each run of a unit, and its duration: exactly the units again
merges    runs that often follow each other as one token: the shortest sequence, for language models
"""

import argparse
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media

parser = argparse.ArgumentParser()
parser.add_argument("sound", nargs="?", type=Path, default=Path(__file__).parent / "data/sounds/speech-russian-1.wav")
parser.add_argument("--checkpoint", default="semantic-stream", help="a shipped checkpoint or a folder")
arguments = parser.parse_args()

units = multitok.load(arguments.checkpoint)
wave = media.read(arguments.sound)
print(f"{arguments.sound.name}: {wave.duration_s:.2f} s")

runs, merges = units.deduplicated(), units.merged()
codes = {"units": units.encode(wave), "runs": runs.encode(wave), "merges": merges.encode(wave)}
for name, tokenizer in {"units": units, "runs": runs, "merges": merges}.items():
    found = codes[name]
    rate = found.grid[0] / wave.duration_s
    bits, size = rate * tokenizer.spec.bits_per_position, tokenizer.spec.codebook_sizes[0]
    shown = " ".join(map(str, found.values[0, :12]))
    print(f"{name:6} {found.values.shape!s:9} {rate:5.1f} tokens/s of {size}, {bits:4.0f} bit/s: {shown} ...")

# Runs with durations lose nothing.
assert np.array_equal(runs.units_of(codes["runs"]), codes["units"].values[0])

# Sound again, in an average voice: what was said is in the units, who said it is not.
for name, tokenizer in {"units": units, "merges": merges}.items():
    back = tokenizer.decode(codes[name])
    print("wrote", media.write(Path(f"speech-from-{name}.wav"), tokenizer.spec.modality, back))
