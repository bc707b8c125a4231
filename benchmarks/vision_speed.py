"""How fast pictures, clips and volumes become codes and come back: `python benchmarks/vision_speed.py [--runs N]`

The shipped tokenizers beside networks of the shape of published ones with random weights, whose time does not depend
on them: VQGAN f16 of taming-transformers (channels 128, [1, 1, 2, 2, 4], 16,384 codes; 76.1 M parameters) and Cosmos
DI8 (128, [2, 4, 4], wavelets of 4; 79.0 M), in float32 and under autocast to bfloat16, on 256 x 256 pixels, the size
that they are published for. One warm-up, then rounds over all of them in turn; what is quick is repeated for a fifth of
a second in each round.
"""

from __future__ import annotations

import os

# Before NumPy loads; threadpoolctl sets the number that each table is for.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.pop(variable, None)

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from threadpoolctl import threadpool_limits

import multitok
from multitok.checkpoint import shipped_checkpoints
from multitok.frontend import media
from multitok.nets.anchors.cosmos import Cosmos, CosmosConfig
from multitok.nets.anchors.lookup import VectorLookup
from multitok.nets.anchors.vqgan import ConvShape, VqganModule
from multitok.protocol import Modality

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
ITEMS = {
    Modality.IMAGE: "photos/coffee.png",
    Modality.VIDEO: "video/rabbit.webp",
    Modality.VOLUME: "volumes/brain.npy",
}
# Repeats of an item along its first axis: pictures and clips of some 3 million pixels keep a core busy.
REPEATS = {Modality.IMAGE: 12, Modality.VIDEO: 8, Modality.VOLUME: 16}
LEAST_S = 0.2
SIDE = 256


@dataclass
class Case:
    """What is timed, and its times so far."""

    name: str
    modality: Modality
    num_units: int
    encode: Callable[[], Any]
    decode: Callable[[], Any]
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)


def shipped_cases() -> list[Case]:
    """The shipped tokenizers of pictures, clips and volumes."""
    cases = []
    for name in shipped_checkpoints():
        tokenizer = multitok.load(name)
        modality = tokenizer.spec.modality
        if modality in ITEMS:
            raw: Any = media.read(DATA / ITEMS[modality], modality=modality)
            raw = np.tile(raw, (REPEATS[modality], *[1] * (raw.ndim - 1)))
            codes = tokenizer.encode(raw)
            cases.append(
                Case(
                    name=name,
                    modality=modality,
                    num_units=int(np.prod(codes.extent)),
                    encode=lambda tokenizer=tokenizer, raw=raw: tokenizer.encode(raw),
                    decode=lambda tokenizer=tokenizer, codes=codes: tokenizer.decode(codes),
                )
            )
    return cases


def vqgan_f16() -> torch.nn.Module:
    """A network of the shape of taming-transformers' f16."""
    shape = ConvShape(128, (128, 128, 256, 256, 512), num_res_blocks=2, attention_levels=(4,), latent_channels=256)
    return VqganModule(shape, VectorLookup(16_384, 256, "l2"), 256, 256, has_decoder=True)


def cosmos_di8() -> torch.nn.Module:
    """A network of the shape of Cosmos-Tokenizer-DI8x8."""
    sizes = {"patch": 4, "channels": 128, "multipliers": (2, 4, 4), "blocks": 2, "latent": 256, "space": 8}
    return Cosmos(CosmosConfig(video=False, **sizes))


def random_cases(bfloat16: bool) -> list[Case]:
    """The networks with random weights."""
    raw: Any = media.read(DATA / ITEMS[Modality.IMAGE], modality=Modality.IMAGE)
    raw = raw[:SIDE, :SIDE]
    pixels = torch.tensor(raw, dtype=torch.float32).permute(2, 0, 1)[None] / 127.5 - 1
    cases = []
    for name, build in (("VQGAN f16", vqgan_f16), ("Cosmos DI8", cosmos_di8)):
        torch.manual_seed(0)
        network: Any = build().eval().requires_grad_(False)
        for table in (one for one in network.modules() if isinstance(one, VectorLookup)):
            torch.nn.init.normal_(table.embedding.weight)  # it is made without values

        def run(action: Callable[[Any], Any], argument: Any) -> Any:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
                return action(argument)

        codes = run(network.encode, pixels)
        cases.append(
            Case(
                name=f"{name} shape, random weights, {'bfloat16' if bfloat16 else 'float32'}",
                modality=Modality.IMAGE,
                num_units=raw.shape[0] * raw.shape[1],
                encode=lambda network=network: run(network.encode, pixels),
                decode=lambda network=network, codes=codes: run(network.decode, codes),
            )
        )
    return cases


def timed(action: Callable[[], Any]) -> float:
    """Seconds of one call: the mean over as many as take a fifth of a second."""
    started, calls = time.perf_counter(), 0
    while True:
        action()
        calls += 1
        elapsed = time.perf_counter() - started
        if elapsed >= LEAST_S:
            return elapsed / calls


def print_table(cases: list[Case], threads: int, runs: int) -> None:
    """Time all cases in turns, and print their medians."""
    for case in cases:
        case.encode_s.clear()
        case.decode_s.clear()
        case.encode()
        case.decode()
    for _ in range(runs):
        for case in cases:
            case.encode_s.append(timed(case.encode))
            case.decode_s.append(timed(case.decode))
    print(f"### {threads} thread{'s' * (threads > 1)}\n")
    print("| | encode | decode | encode and decode |\n|---|---:|---:|---:|")
    for case in cases:
        encode, decode = statistics.median(case.encode_s), statistics.median(case.decode_s)
        unit = "MVoxel/s" if case.modality is Modality.VOLUME else "MPx/s"
        rates = [f"{case.num_units / seconds / 1e6:.3g} {unit}" for seconds in (encode, decode, encode + decode)]
        print(f"| {case.name} | {' | '.join(rates)} |")
    print()


def main() -> None:
    """Time everything for each number of threads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print(f"{describe()}; median of {arguments.runs} runs\n")
    cases = [*shipped_cases(), *random_cases(bfloat16=False), *random_cases(bfloat16=True)]
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            print_table(cases, threads, arguments.runs)


if __name__ == "__main__":
    main()
