"""Speed of every shipped tokenizer of sound on one core: `python benchmarks/audio_speed.py [--rounds N]`

Beside EnCodec 24 kHz, DAC 16 kHz and Mimi of transformers, at their published sizes and with random weights (speed
does not depend on them; nothing is downloaded), in eval mode without gradients, one thread. Each codes clips of the
same length, alone or four at once, whichever is faster for it; rounds go in turns. Figures are medians.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import describe

import multitok
from multitok.checkpoint import shipped_checkpoints
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.metrics.tables import markdown
from multitok.protocol import Modality, Waveform

ROOT = Path(__file__).resolve().parent.parent
CLIP_S = 4.0
BATCHES = (1, 4)


@dataclass
class Candidate:
    """What is timed: encode of a batch of B clips, decode of what it gave."""

    name: str
    bitrate: str
    encode: Callable[[int], Any]
    decode: Callable[[Any, int], Any]
    encode_rtf: list[float] = field(default_factory=list)
    decode_rtf: list[float] = field(default_factory=list)
    best: dict[str, int] = field(default_factory=dict)

    def choose(self) -> None:
        """Warm up, and find the better batch each way."""
        times: dict[str, dict[int, float]] = {"encode": {}, "decode": {}}
        for batch in BATCHES:
            codes, times["encode"][batch] = _timed(lambda batch=batch: self.encode(batch))
            _, times["decode"][batch] = _timed(lambda batch=batch, codes=codes: self.decode(codes, batch))
        self.best = {way: min(BATCHES, key=lambda b, way=way: times[way][b] / b) for way in times}

    def run(self) -> None:
        """One round."""
        codes, seconds = _timed(lambda: self.encode(self.best["encode"]))
        self.encode_rtf.append(seconds / self.best["encode"] / CLIP_S)
        if self.best["decode"] != self.best["encode"]:
            codes = self.encode(self.best["decode"])
        _, seconds = _timed(lambda: self.decode(codes, self.best["decode"]))
        self.decode_rtf.append(seconds / self.best["decode"] / CLIP_S)


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    outcome = action()
    return outcome, time.perf_counter() - started


def clip(rate_hz: int) -> np.ndarray:
    """[N] of speech."""
    samples = to_mono(media.read(ROOT / "examples/data/sounds/speech-russian-1.wav"), rate_hz)
    return np.resize(samples, int(CLIP_S * rate_hz)).astype(np.float32)


def ours() -> Iterator[Candidate]:
    """The shipped checkpoints."""
    for name in shipped_checkpoints():
        tokenizer = multitok.load(name)
        spec = tokenizer.spec
        if spec.modality is not Modality.AUDIO:
            continue
        wave = Waveform(clip(spec.sample_rate_hz), spec.sample_rate_hz)
        frames = spec.sample_rate_hz / spec.stride[0] if spec.stride[0] else 0.0
        bitrate = f"{spec.bits_per_position * frames / 1000:.1f}" if frames else "-"
        yield Candidate(
            name,
            bitrate,
            lambda batch, tokenizer=tokenizer, wave=wave: tokenizer.encode_batch([wave] * batch),
            lambda codes, batch, tokenizer=tokenizer: tokenizer.decode_batch(codes),
        )


def peers() -> Iterator[Candidate]:
    """Random weights at published sizes."""
    sys.path.remove(str(ROOT / "benchmarks"))  # tokenizers.py there is not the package that transformers wants
    from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

    torch.manual_seed(0)
    encodec = EncodecModel(EncodecConfig()).eval()  # the defaults are those of facebook/encodec_24khz
    yield _peer(
        "EnCodec 24 kHz", "6.0", encodec, 24_000,
        lambda model, x: model.encode(x, bandwidth=6.0),
        lambda model, codes: model.decode(codes.audio_codes, codes.audio_scales),
    )  # fmt: skip
    # descript/dac_16khz
    dac_config = DacConfig(
        sampling_rate=16_000, downsampling_ratios=[2, 4, 5, 8], encoder_hidden_size=64, decoder_hidden_size=1536,
        n_codebooks=12, codebook_size=1024, codebook_dim=8,
    )  # fmt: skip
    yield _peer(
        "DAC 16 kHz", "6.0", DacModel(dac_config).eval(), 16_000,
        lambda model, x: model.encode(x),
        lambda model, codes: model.decode(codes.quantized_representation),
    )  # fmt: skip
    yield _peer(
        "Mimi 24 kHz", "1.1", MimiModel(MimiConfig()).eval(), 24_000,  # the defaults are those of kyutai/mimi
        lambda model, x: model.encode(x, num_quantizers=8),
        lambda model, codes: model.decode(codes.audio_codes),
    )  # fmt: skip


def _peer(name: str, bitrate: str, model: Any, rate_hz: int, encode: Any, decode: Any) -> Candidate:
    samples = torch.from_numpy(clip(rate_hz))

    def coded(batch: int) -> Any:
        with torch.inference_mode():
            return encode(model, samples.expand(batch, 1, -1).contiguous())

    def decoded(codes: Any, batch: int) -> Any:
        with torch.inference_mode():
            return decode(model, codes)

    return Candidate(name, bitrate, coded, decoded)


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="leave out the other codecs, which take most of the time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    candidates = [*ours(), *([] if arguments.ours else peers())]
    for candidate in candidates:
        candidate.choose()
    for _ in range(arguments.rounds):
        for candidate in candidates:
            candidate.run()
    rows = []
    for candidate in candidates:
        encode, decode = median(candidate.encode_rtf), median(candidate.decode_rtf)
        batches = "/".join(str(candidate.best[way]) for way in ("encode", "decode"))
        hours = [f"{1 / encode:,.0f}", f"{1 / decode:,.0f}"]
        rows.append([candidate.name, candidate.bitrate, f"{encode:.4f}", f"{decode:.4f}", *hours, batches])
    print(f"{describe()}; one thread, clips of {CLIP_S:.0f} s, median of {arguments.rounds} rounds.\n")
    header = ["tokenizer", "kbit/s", "encode, of real time", "decode, of real time", "hours an hour, encode", "decode",
              "batch"]  # fmt: skip
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
