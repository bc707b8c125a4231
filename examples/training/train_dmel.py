"""Fit the checkpoint `dmel-80hz`: `python examples/training/train_dmel.py PACKAGES OUT`.

PACKAGES is what fetch_speech.sh filled. Held out, and never fitted to: every tenth speech clip, every fifth
sample, and the clips in examples/data/sounds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import soundfile

import multitok
from multitok.protocol import Waveform
from multitok.train.dmel import train_dmel

IN_EXAMPLES = {"ru_0003", "ru_0006", "ambi_piano", "guit_harmonics", "misc_crow"}


def split(packages: Path) -> tuple[list[Path], list[Path]]:
    """Clips to fit to, and clips held out."""
    speech = sorted(packages.glob("festvox-ru/**/wav/*.wav"))
    sounds = sorted(packages.glob("sonic-pi-samples/**/samples/*.flac"))
    held = [path for i, path in enumerate(speech) if i % 10 == 2 or path.stem in IN_EXAMPLES]
    held += [path for i, path in enumerate(sounds) if i % 5 == 2 or path.stem in IN_EXAMPLES]
    speech_fitted = [path for path in speech if path not in held]
    # Every sixth speech clip, so that one voice does not outweigh all other sound.
    return speech_fitted[::6] + [path for path in sounds if path not in held], held


def read(paths: list[Path]) -> Iterator[Waveform]:
    """The clips as waveforms, one at a time."""
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        yield Waveform(samples.T, rate)


def main() -> None:
    """Fit and save."""
    packages, out = Path(sys.argv[1]), Path(sys.argv[2])
    fitted, _ = split(packages)
    tokenizer = train_dmel(read(fitted), seed=0)
    card = f"# {out.name}\n\nFitted to {len(fitted)} clips by examples/training/train_dmel.py, seed 0.\n"
    print(multitok.save(tokenizer, out, card=card), multitok.fingerprint(tokenizer))


if __name__ == "__main__":
    main()
