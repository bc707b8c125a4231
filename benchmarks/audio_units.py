"""What speech units tell of phones and speakers: `python benchmarks/audio_units.py --data DATA [--tiny MODEL]`

The set is that of `audio_units_set.py`: English prompts by one recorded and three synthetic speakers, none of whose
texts were trained on. Rows marked "fitted" have clusters fitted to the very clips that are judged, as the usual
baselines have; the others are shipped checkpoints as they are. ABX is given for the features and for the code vectors
of the units, errors in %; chance is 50.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from audio_units_set import make_set
from machine import describe
from numpy.typing import NDArray

import multitok
from multitok.codebook import Codebook
from multitok.frontend.resample import to_mono
from multitok.metrics.audio_abx import abx
from multitok.metrics.audio_labels import frame_phones, read_labels, sayings, speaker_of
from multitok.metrics.audio_units import cluster_purity, phone_purity, pnmi, speaker_nmi
from multitok.protocol import Waveform
from multitok.tokenizers._semantic_front_ends import FrontEnd
from multitok.tokenizers.audio_semantic import AudioSemantic
from multitok.train.semantic import best_rq, fit_codebooks, make_front_end

FRAME_RATE_HZ = 50.0
SHIPPED = ("semantic-whisper-base", "semantic-stream")
# Components that fitted clusters are made of, for features of more values than that.
COMPONENTS = 128

Features = dict[str, NDArray[np.float32]]


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = os.environ.get("MULTITOK_SPEECH_UNITS")
    parser.add_argument("--data", type=Path, default=known, required=not known, help="folder for packages and the set")
    parser.add_argument("--tiny", type=Path, help="model.bin of Whisper tiny.en, for one more row")
    parser.add_argument("--prompts", type=int, help="only so many of the prompts")
    parser.add_argument("--tokenizers", nargs="*", default=SHIPPED, help="checkpoints to judge")
    arguments = parser.parse_args()
    judged = Judged(make_set(arguments.data), arguments.prompts)
    print(describe())
    print(f"{len(judged.labels)} clips, {judged.num_frames:,} frames, {judged.speech_share:.0%} of them speech\n")
    print("| units | V | PNMI | phone purity | cluster purity | speaker NMI | ABX within / across | of units |")
    print("|---|---|---|---|---|---|---|---|")
    judged.fitted("MFCC, fitted", judged.of_front_end(make_front_end("mfcc", 0)), (100, 500))
    judged.fitted("log-mel of 7 frames, fitted", judged.of_front_end(make_front_end("log-mel", 0)), (100, 500))
    random = best_rq((wave for _, wave in judged.waves()), codebook_size=500)
    judged.shipped("BEST-RQ", random, judged.of_tokenizer(random))
    if arguments.tiny:
        tiny = judged.of_front_end(make_front_end(f"whisper:{arguments.tiny}", 3))
        judged.fitted("Whisper tiny.en layer 3, fitted", tiny, (500,))
    tokenizers = {name: multitok.load(name) for name in arguments.tokenizers}
    for name, tokenizer in tokenizers.items():
        assert isinstance(tokenizer, AudioSemantic)
        features = judged.of_tokenizer(tokenizer)
        judged.shipped(name, tokenizer, features)
        judged.fitted(f"{name}, fitted", features, (500,))
    print("\n| merged units | V | tokens/s | PNMI of their frames |\n|---|---|---|---|")
    for name, tokenizer in tokenizers.items():
        assert isinstance(tokenizer, AudioSemantic)
        judged.merged(name, tokenizer)


class Judged:
    """The set, and rows of figures.

    Args:
        folder: As `make_set` leaves it.
        prompts: How many of the prompts; None for all.
    """

    def __init__(self, folder: Path, prompts: int | None) -> None:
        labels = read_labels(folder / "labels.json")
        chosen = set(sorted({clip.split("-", 1)[1] for clip in labels})[:prompts])
        self._folder = folder
        self.labels = {clip: phones for clip, phones in labels.items() if clip.split("-", 1)[1] in chosen}
        frames = []
        for clip, wave in self.waves():
            frames.append(frame_phones(self.labels[clip], -(-wave.samples.shape[1] // 320), FRAME_RATE_HZ))
        self._phones = np.concatenate(frames)
        self._phones[self._phones == ""] = "sil"
        self._speakers = np.repeat([speaker_of(clip) for clip in self.labels], [len(each) for each in frames])
        self.num_frames = len(self._phones)
        self.speech_share = float((self._phones != "sil").mean())

    def waves(self) -> Iterator[tuple[str, Waveform]]:
        """Each clip and its sound."""
        for clip in self.labels:
            samples, rate = soundfile.read(self._folder / f"{clip}.wav", dtype="float32", always_2d=True)
            yield clip, Waveform(samples.T, rate)

    def of_front_end(self, front_end: FrontEnd) -> Features:
        """Features of each clip."""
        found = {}
        for clip, wave in self.waves():
            state, first = front_end.step(front_end.initial_state(), to_mono(wave, 16_000))
            found[clip] = np.concatenate([first, front_end.finish(state)])
        return found

    def of_tokenizer(self, tokenizer: AudioSemantic) -> Features:
        """What the units of each clip are looked for with."""
        return {clip: tokenizer.features(wave) for clip, wave in self.waves()}

    def fitted(self, name: str, features: Features, sizes: tuple[int, ...]) -> None:
        """Rows of clusters of these very features."""
        rows = np.concatenate(list(features.values()))
        codebooks = fit_codebooks(rows, sizes, components=COMPONENTS if rows.shape[1] > COMPONENTS else None)
        normalised = {clip: codebooks.normalised(row) for clip, row in features.items()}
        for size in sizes:
            self._row(name, normalised, codebooks.of_size(size), continuous=size == sizes[-1])

    def shipped(self, name: str, tokenizer: AudioSemantic, features: Features) -> None:
        """Rows of a tokenizer's own codebooks."""
        tensors, sizes = tokenizer.get_tensors(), tokenizer.available_codebook_sizes
        vectors = tensors["codebooks"].astype(np.float32) * tensors.get("codebook_scale", np.float32(1))
        for size, codebook in zip(sizes, np.split(vectors, np.cumsum(sizes)[:-1]), strict=True):
            self._row(name, features, codebook, continuous=size == 500)

    def merged(self, name: str, tokenizer: AudioSemantic) -> None:
        """A row of merged units: how many there are, and what the units that they stand for tell."""
        shorter = tokenizer.merged(durations=True)
        codes = [shorter.encode(wave) for _, wave in self.waves()]
        units = np.concatenate([shorter.units_of(each) for each in codes])
        rate = sum(each.values.shape[1] for each in codes) / (self.num_frames / FRAME_RATE_HZ)
        size = tokenizer.spec.codebook_sizes[0]
        print(f"| {name} | {size} | {rate:.1f} | {pnmi(units, self._phones):.3f} |", flush=True)

    def _row(self, name: str, features: Features, codebook: NDArray[np.float32], *, continuous: bool) -> None:
        search = Codebook(codebook)
        units = {clip: search.search(row).codes for clip, row in features.items()}
        flat = np.concatenate(list(units.values()))
        said = self._phones != "sil"
        figures = [
            pnmi(flat, self._phones),
            phone_purity(flat, self._phones),
            cluster_purity(flat, self._phones),
            speaker_nmi(flat[said], self._speakers[said]),
        ]
        errors = self._abx(features) if continuous else "-"
        # Units compared by their code vectors, around the mean of all, as angles need.
        of_units = self._abx({clip: (codebook - codebook.mean(axis=0))[row] for clip, row in units.items()})
        cells = " | ".join(f"{figure:.3f}" for figure in figures)
        print(f"| {name} | {len(codebook)} | {cells} | {errors} | {of_units} |", flush=True)

    def _abx(self, features: Features) -> str:
        said = []
        for clip, row in features.items():
            said += sayings(row, self.labels[clip], frame_rate_hz=FRAME_RATE_HZ, speaker=speaker_of(clip))
        errors = abx(said)
        assert errors.within is not None
        assert errors.across is not None
        return f"{100 * errors.within:.1f} / {100 * errors.across:.1f}"


if __name__ == "__main__":
    main()
