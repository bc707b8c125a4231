"""Quality of every shipped tokenizer of sound: `python benchmarks/audio.py [--data DIR]`

DIR is what benchmarks/fetch_heldout_sound.sh made: Dutch, Danish, Greek and English speech and music (the clips of
audio_clips.json) that nothing shipped was trained on. Default: the environment variable MULTITOK_HELDOUT_SOUND;
without either, the few sounds of examples/data, some of which were trained on. Known codecs run on the same clips.
Tokenizers whose codebooks can be dropped are measured at the most codebooks that fit 2, 4, 6, 8 and 12 kbit/s. What
each figure means: docs/evaluation.md.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from machine import describe

import multitok
from multitok.checkpoint import shipped_checkpoints
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.metrics import AudioQuality, measure_audio, stability
from multitok.metrics.audio_peers import AvCodec, Codec2, SoundCodec, mel_griffin_lim
from multitok.metrics.audio_tables import COLUMNS
from multitok.metrics.evaluation import rounded
from multitok.metrics.levels import level_decoders
from multitok.metrics.tables import markdown
from multitok.protocol import Modality, Tokenizer, Waveform

HERE = Path(__file__).resolve().parent
RATES_KBPS = (2, 4, 6, 8, 12)
OPUS_KBPS = {"speech": (6, 8, 12, 16), "music": (6, 8, 12, 16, 24)}
CODEC2_BPS = (2_400, 3_200)
RATE_HZ = 16_000
MUSIC_START_S, MUSIC_LENGTH_S = 30, 8
SPEECH_MEASURES = ("pesq_wb", "stoi", "estoi", "distillmos", "mel_distance_db")
MUSIC_MEASURES = ("mel_distance_db", "spectral_distance_db", "si_sdr_db")
# These speak in an average voice: PESQ and spectra say nothing about them, units do.
SEMANTIC = ("audio-semantic", "audio-units")


@dataclass(frozen=True)
class Row:
    """One line of the table: a name, and what turns a clip into sound and bits a second (None where there is none)."""

    name: str
    run: Callable[[Waveform], tuple[Waveform, float | None]]


def clips(folder: Path | None) -> dict[str, dict[str, list[Waveform]]]:
    """ "speech" and "music" -> language or "music" -> clips."""
    if folder is None:
        sounds = HERE.parent / "examples" / "data" / "sounds"
        found = {path.stem: media.read(path, modality=Modality.AUDIO) for path in sorted(sounds.iterdir())}
        speech = [wave for stem, wave in found.items() if stem.startswith("speech")]
        music = [wave for stem, wave in found.items() if stem in ("guitar", "piano")]
        return {"speech": {"Russian": speech}, "music": {"music": music}}
    listed = json.loads((HERE / "audio_clips.json").read_text(encoding="utf-8"))
    speech_clips = {
        language: [media.read(folder / path, modality=Modality.AUDIO) for path in paths]
        for language, paths in listed["speech"].items()
    }
    return {"speech": speech_clips, "music": {"music": [_cut(folder / path) for path in listed["music"]]}}


def _cut(path: Path) -> Waveform:
    wave = media.read(path, modality=Modality.AUDIO)
    start, length = (seconds * wave.sample_rate_hz for seconds in (MUSIC_START_S, MUSIC_LENGTH_S))
    return Waveform(wave.samples[:, start : start + length], wave.sample_rate_hz)


def rows(tokenizers: Mapping[str, Tokenizer[Any]], kind: str) -> Iterator[Row]:
    """Ours, then the known codecs."""
    for name, tokenizer in tokenizers.items():
        spec, decoders = tokenizer.spec, level_decoders(tokenizer)
        frame_rate = spec.sample_rate_hz / spec.stride[0]
        bps = dict(enumerate(np.cumsum(np.log2(spec.codebook_sizes)) * frame_rate, 1))
        chosen = {max((k for k in decoders if bps[k] <= 1000 * kbps), default=0) for kbps in RATES_KBPS}
        for k in sorted(chosen - {0}) if len(decoders) > 1 else decoders:
            words = f"{name}, {k} codebooks" if len(decoders) > 1 else name
            yield Row(words, partial(_ours, tokenizer, decoders[k], float(bps[k])))
    if kind == "speech":
        yield Row("mel 80 at 80 Hz, not quantised, Griffin-Lim", _griffin_lim)
    for kbps in OPUS_KBPS[kind]:
        yield Row(f"Opus {kbps}k", partial(_coded, AvCodec("Opus"), 1000 * kbps))
    if kind == "speech" and shutil.which("c2enc"):
        for bps_ in CODEC2_BPS:
            yield Row(f"codec2 {bps_}", partial(_coded, Codec2(), bps_))
    if kind == "music":
        for kbps in (16, 24):
            yield Row(f"MP3 {kbps}k", partial(_coded, AvCodec("MP3"), 1000 * kbps))


def _ours(tokenizer: Any, decode: Any, bps: float, wave: Waveform) -> tuple[Waveform, float]:
    return decode(tokenizer.encode(wave)), bps


def _griffin_lim(wave: Waveform) -> tuple[Waveform, None]:
    return Waveform(mel_griffin_lim(wave.samples[0], wave.sample_rate_hz), wave.sample_rate_hz), None


def _coded(codec: SoundCodec, bps: int, wave: Waveform) -> tuple[Waveform, float]:
    coded = codec.encode(wave.samples[0], wave.sample_rate_hz, bps)
    back = codec.decode(coded, wave.samples.shape[1], wave.sample_rate_hz)
    return Waveform(back, wave.sample_rate_hz), coded.num_bits / wave.duration_s


def print_quality(
    tokenizers: Mapping[str, Tokenizer[Any]], groups: Mapping[str, list[Waveform]], kind: str, measures: Sequence[str]
) -> None:
    """One line a setting: the mean over the clips, and for speech PESQ of each language."""
    first = measures[0]
    languages = list(groups) if len(groups) > 1 else []
    header = ["", "kbit/s", *(COLUMNS[name][0] for name in measures), *(f"{COLUMNS[first][0]} {g}" for g in languages)]
    table = []
    # Codecs and tokenizers of 16 kHz get the very same samples.
    mono = {group: [Waveform(to_mono(wave, RATE_HZ), RATE_HZ) for wave in waves] for group, waves in groups.items()}
    for row in rows(tokenizers, kind):
        found: dict[str, list[AudioQuality]] = {}
        rates = []
        for group, waves in mono.items():
            for wave in waves:
                back, bps = row.run(wave)
                found.setdefault(group, []).append(measure_audio(wave, back, measures=measures))
                rates += [] if bps is None else [bps]
        mean = AudioQuality.mean(one for group in found.values() for one in group)
        cells = [rounded(getattr(mean, name), COLUMNS[name][1]) for name in measures]
        cells += [rounded(getattr(AudioQuality.mean(found[g]), first), COLUMNS[first][1]) for g in languages]
        table.append([row.name, f"{fmean(rates) / 1000:.2f}" if rates else "-", *cells])
    print(markdown(header, table).replace("| ---:", "| :---", 1) + "\n")


def print_stability(tokenizers: Mapping[str, Tokenizer[Any]], waves: Sequence[Waveform]) -> None:
    """One line a tokenizer: the mean share of codes that stay equal."""
    table, header = [], [""]
    for name, tokenizer in tokenizers.items():
        found = [stability(tokenizer, wave) for wave in waves]
        header = ["", *found[0]]
        table.append([name, *(f"{fmean(fmean(one[change]) for one in found):.1%}" for change in found[0])])
    print(markdown(header, table).replace("| ---:", "| :---", 1) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MULTITOK_HELDOUT_SOUND"))
    parser.add_argument("--checkpoints", nargs="*", help="names or folders [all that are shipped for sound]")
    parser.add_argument("--no-opinion", action="store_true", help="leave out DistillMOS, which takes most of the time")
    arguments = parser.parse_args()
    names = arguments.checkpoints or [
        name for name in shipped_checkpoints() if multitok.load(name).spec.modality is Modality.AUDIO
    ]
    every = {Path(name).name: multitok.load(name) for name in names}
    acoustic = {name: one for name, one in every.items() if one.spec.kind not in SEMANTIC}
    found = clips(Path(arguments.data) if arguments.data else None)
    counts = ", ".join(f"{len(waves)} {group}" for kind in found.values() for group, waves in kind.items())
    seconds = sum(wave.duration_s for waves in found["speech"].values() for wave in waves)
    what = "held-out clips" if arguments.data else "clips of examples/data"
    print(f"{describe()}; {what}: {counts}; {seconds:.0f} s of speech. Means over the clips, all at 16 kHz, mono.\n")
    measures = [name for name in SPEECH_MEASURES if not (arguments.no_opinion and name == "distillmos")]
    print("### Speech\n")
    print_quality(acoustic, found["speech"], "speech", measures)
    print("### Music\n")
    print_quality(acoustic, found["music"], "music", MUSIC_MEASURES)
    print("### Codes that stay equal, first clip of each language\n")
    print_stability(every, [waves[0] for waves in found["speech"].values()])


if __name__ == "__main__":
    main()
