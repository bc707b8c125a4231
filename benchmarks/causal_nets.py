"""How fast exact causal nets run: `python benchmarks/causal_nets.py [--cpu-time]`

The shapes of the shipped nets with random weights, whose time does not depend on them: whole clips, pushes of a few
frames as they come in from a microphone, and as a peer the float net that they were frozen from, by torch in float32 on
whole clips. One thread. The real-time factor is seconds of computing for a second of sound, the best of rounds over all
of them in turn; a push is the median. What is lost by freezing is measured on these random nets as well, as the
signal-to-noise ratio of the outputs.

    --cpu-time   counts the thread's own processor time: for machines on which others compute
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy and torch load
    os.environ[name] = "1"

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from machine import describe

from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.exact import ExactCausalNet
from multitok.nets.causal.freeze import freeze
from multitok.nets.causal.module import CausalNet

# Name -> shape and input frames in a second.
SHAPES = {
    "units, 10 blocks of 256": (
        CausalConfig(
            in_dim=80, out_dim=128, channels=256, hidden=768, taps=5, dilations=(1, 2, 4, 8) * 2 + (1, 2), stack=2,
            lookahead=3,
        ),
        100,
    ),
    "vocoder, 8 blocks of 256": (
        CausalConfig(
            in_dim=80, out_dim=802, channels=256, hidden=768, taps=7, dilations=(1,) * 8, lookahead=2
        ),
        80,
    ),
    "codec decoder, 8 blocks of 384": (
        CausalConfig(
            in_dim=64, out_dim=642, channels=384, hidden=1152, taps=5, dilations=(1,) * 8, unstack=2, lookahead=1
        ),
        50,
    ),
}  # fmt: skip
CLIP_S, PUSH_S, PUSHES, ROUNDS = 20, 0.04, 200, 5


def random_net(config: CausalConfig) -> CausalNet:
    """A net whose blocks all matter; new ones begin with updates of 0."""
    torch.manual_seed(0)
    net = CausalNet(config)
    for block in net.blocks:
        torch.nn.init.normal_(block.contract.weight, std=config.hidden**-0.5)
    return net.eval()


def push_s(net: ExactCausalNet, frames: np.ndarray, count: int, clock: Callable[[], float]) -> float:
    """Median time of a push of `count` frames."""
    state, taken = net.initial_state(), []
    for first in range(0, min(PUSHES * count, len(frames) - count), count):
        start = clock()
        state, _ = net.step(state, frames[first : first + count])
        taken.append(clock() - start)
    return float(np.median(taken))


def best_s(work: dict[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """The least time of each of several things, in turns."""
    best = dict.fromkeys(work, np.inf)
    for _ in range(ROUNDS):
        for name, do in work.items():
            start = clock()
            do()
            best[name] = min(best[name], clock() - start)
    return best


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu-time", action="store_true")
    clock = time.process_time if parser.parse_args().cpu_time else time.perf_counter
    torch.set_num_threads(1)
    print(f"{describe()}; 1 thread. Clips of {CLIP_S} s, pushes of {1000 * PUSH_S:.0f} ms of sound.\n")
    print("| net | real-time factor | torch, float32 | a push | checkpoint | signal-to-noise ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (config, rate_hz) in SHAPES.items():
        net = random_net(config)
        frames = np.random.default_rng(0).normal(size=(CLIP_S * rate_hz, config.in_dim)).astype(np.float32)
        clip = torch.from_numpy(frames)[None]
        exact = freeze(net, [clip])
        spent = best_s({"exact": lambda e=exact, f=frames: e.run(f), "torch": lambda n=net, c=clip: n(c)}, clock)
        wanted = net(clip)[0, config.lookahead * config.unstack :].numpy().astype(np.float64)
        error = exact.run(frames)[: len(wanted)] - wanted
        ratio_db = 10 * np.log10((wanted**2).mean() / (error**2).mean())
        size_mb = sum(value.nbytes for value in exact.tensors().values()) / 1e6
        push_ms = 1000 * push_s(exact, frames, round(PUSH_S * rate_hz), clock)
        factors = f"{spent['exact'] / CLIP_S:.4f} | {spent['torch'] / CLIP_S:.4f}"
        print(f"| {name} | {factors} | {push_ms:.2f} ms | {size_mb:.1f} MB | {ratio_db:.0f} dB |", flush=True)


if __name__ == "__main__":
    main()
