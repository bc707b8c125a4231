"""Sound to train on: files of any rate and format decoded once, and clips drawn from them.

    sound.i16     all files one after the other, one channel, 16 bits, at one rate
    sound.json    rate, digest of the files, and [name, first sample, number of samples] of each

Both lie in a folder of the run, 115 MB an hour at 16 kHz; the samples are mapped into memory, not read. A clip depends
on the seed and the step alone, so a resumed run draws the same ones. A file that cannot be read is reported and left
out; of a second call in the same folder for the same files nothing is decoded again.

Shape letters: B clips, N samples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.protocol import Modality, Waveform
from multitok.train.items import Items

SAMPLES, INDEX = "sound.i16", "sound.json"
FULL_SCALE = 32768
# Clips are brought to a random level, dB below full scale (root mean square), and amplified by this much at most.
LEVELS_DB, MOST_GAIN = (-36.0, -14.0), 30.0
# Domains of the random numbers.
_STEP, _HELD_OUT = range(2)


class _File(NamedTuple):
    name: str
    first: int
    num_samples: int


class SoundPool:
    """Decoded sound; `open` makes it.

    Args:
        samples: int16, all files one after the other.
        files: Name, first sample and number of samples of each.
    """

    def __init__(self, samples: NDArray[np.int16], files: list[_File]) -> None:
        self._samples, self._files = samples, files

    @classmethod
    def open(
        cls,
        items: Items,
        folder: Path,
        sample_rate_hz: int,
        *,
        report: Callable[[str, str, str], None] = lambda *_: None,
    ) -> SoundPool:
        """Decode everything, or find it decoded.

        Args:
            items: Sound files.
            folder: Where the samples go, or are.
            sample_rate_hz: Rate that they are resampled to.
            report: Called with name, error and message of each file that cannot be read.

        Returns:
            The pool.

        Raises:
            InputError: None of the files can be read.
        """
        known = {"sample_rate_hz": sample_rate_hz, "digest": items.digest()}
        index = _read_index(folder / INDEX)
        if {key: index.get(key) for key in known} != known:
            folder.mkdir(parents=True, exist_ok=True)
            index = {**known, "files": _decode(items, folder / SAMPLES, sample_rate_hz, report)}
            _write_index(folder / INDEX, index)
        files = [_File(*each) for each in index["files"]]
        if not files:
            raise InputError("none of the sound files can be read")
        return cls(np.memmap(folder / SAMPLES, np.int16, "r"), files)

    @property
    def names(self) -> list[str]:
        """Of the files that clips are drawn from."""
        return [file.name for file in self._files]

    @property
    def num_samples(self) -> int:
        """Of all those files together."""
        return sum(file.num_samples for file in self._files)

    def hold_out(self, count: int, longest: int) -> tuple[SoundPool, list[NDArray[np.float32]]]:
        """Choose files to measure on.

        Args:
            count: How many; at least one stays for training.
            longest: Samples of each at most, its middle.

        Returns:
            The pool without them, and their samples.
        """
        order = np.random.default_rng([0, _HELD_OUT]).permutation(len(self._files))
        chosen = {int(each) for each in order[: min(count, len(self._files) - 1)]}
        rest = [file for number, file in enumerate(self._files) if number not in chosen]
        held = [self.middle(number, longest) for number in sorted(chosen)]
        return SoundPool(self._samples, rest), held

    def middle(self, number: int, longest: int) -> NDArray[np.float32]:
        """The middle of a file, at its own level.

        Args:
            number: Of the file.
            longest: Samples at most.
        """
        file = self._files[number]
        start = file.first + max(file.num_samples - longest, 0) // 2
        return self._floats(start, min(file.num_samples, longest))

    def clips(self, step: int, batch: int, num_samples: int, *, seed: int = 0) -> NDArray[np.float32]:
        """Clips from anywhere, long files more often than short ones, each at a random level.

        Args:
            step: Which batch.
            batch: B.
            num_samples: N; a shorter file is followed by silence.
            seed: Fixes every draw.

        Returns:
            [B, N].
        """
        rng = np.random.default_rng([seed, _STEP, step])
        lengths = np.array([file.num_samples for file in self._files], np.float64)
        chosen = rng.choice(len(lengths), batch, p=lengths / lengths.sum())
        found = np.zeros((batch, num_samples), np.float32)
        for clip, number in zip(found, chosen.tolist(), strict=True):
            file = self._files[number]
            length = min(file.num_samples, num_samples)
            start = int(rng.integers(file.num_samples - length + 1))
            clip[:length] = self._floats(file.first + start, length)
            wanted = 10 ** (rng.uniform(*LEVELS_DB) / 20)
            clip *= min(wanted / (float(np.sqrt(np.mean(clip * clip))) + 1e-5), MOST_GAIN)
        return found

    def _floats(self, start: int, length: int) -> NDArray[np.float32]:
        floats: NDArray[np.float32] = self._samples[start : start + length].astype(np.float32)
        floats *= np.float32(1 / FULL_SCALE)
        return floats


def _decode(
    items: Items, path: Path, sample_rate_hz: int, report: Callable[[str, str, str], None]
) -> list[tuple[str, int, int]]:
    files: list[tuple[str, int, int]] = []
    staging = path.with_name(f".{path.name}.writing")
    first = 0
    with staging.open("wb") as out:
        for index in range(len(items)):
            try:
                pieces = [_samples(piece.data, piece.name, sample_rate_hz) for piece in items.pieces(index)]
            except (InputError, OSError) as error:
                report(items.name(index), type(error).__name__, str(error))
                continue
            for samples in pieces:
                out.write(samples.tobytes())
                files.append((items.name(index), first, samples.size))
                first += samples.size
        out.flush()
        os.fsync(out.fileno())
    staging.replace(path)
    return files


def _samples(data: bytes | Path, name: str, sample_rate_hz: int) -> NDArray[np.int16]:
    wave = media.read(data, name, modality=Modality.AUDIO)
    assert isinstance(wave, Waveform)
    scaled = np.rint(to_mono(wave, sample_rate_hz) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return index


def _write_index(path: Path, index: dict[str, Any]) -> None:
    staging = path.with_name(f".{path.name}.writing")
    staging.write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    staging.replace(path)
