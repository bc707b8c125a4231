"""How fast the integer stacks of neural tokenizers run: `python benchmarks/integer_stacks.py [--cpu-time]`

The encoder, context and decoder of an image tokenizer of patch 8 at its shipped sizes, with random weights, whose time
does not depend on them: the native library on every path that this machine has, the engine of torch, and as a peer the
nets that they were trained as, by torch in float32. One thread; each figure is the best of rounds over all of them in
turn. GMAC/s counts the products of weights and values, MPx/s the pixels of the picture.

    --cpu-time   counts the thread's own processor time: for machines on which others compute
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch load

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import describe

from multitok.nets import native
from multitok.nets.program import ConvOp, Fold2Op, Op, Output, QuantizeOp, ResidualOp, StackProgram, Unfold2Op
from multitok.nets.stacks import ContextStack, DecoderStack, EncoderStack
from multitok.nets.torch_engine import TorchStack

RANDOM = np.random.default_rng(0)
FINE, COARSE, CONTEXT, LATENTS = 64, 128, 96, 32
VALUES = 48  # of half a patch: 4 x 4 pixels of 3 channels
BLOCKS = ((1, 1), (2, 2))
SIDES = (256, 1024)
ROUNDS, LEAST_S = 9, 0.1
Work = Callable[[], Any]


def conv(inputs: int, outputs: int, side: int, output: Output) -> ConvOp:
    """Random weights at which values keep about their size."""
    weights = RANDOM.integers(-8, 9, (outputs, side, side, inputs)).astype(np.int8)
    scale = np.full(outputs, 0.3 / np.sqrt(side * side * inputs), np.float32)
    return ConvOp(weights, RANDOM.integers(-999, 999, outputs).astype(np.int32), scale, output)


def residuals(channels: int, number: int) -> list[Op]:
    """Residual blocks."""
    one = ResidualOp(conv(channels, channels, 3, "u8"), conv(channels, channels, 3, "s16"))
    return [one] * number


def cases() -> list[tuple[str, int, StackProgram, torch.nn.Module]]:
    """Name, pixels from one position of the input to the next, the stack and the net it was trained as."""
    found: list[tuple[str, int, StackProgram, torch.nn.Module]] = []
    for fine, coarse in BLOCKS:
        ops = [conv(VALUES, FINE, 3, "s16"), *residuals(FINE, fine), QuantizeOp(), Fold2Op()]
        ops += [conv(4 * FINE, COARSE, 1, "s16"), *residuals(COARSE, coarse), QuantizeOp()]
        encoder = StackProgram((*ops, conv(COARSE, LATENTS, 1, "s32")))
        net = EncoderStack(VALUES, FINE, COARSE, LATENTS, (fine, coarse))
        found.append((f"encoder, {fine} + {coarse} blocks", 4, encoder, net))
    context = (conv(LATENTS, CONTEXT, 3, "u8"), conv(CONTEXT, CONTEXT, 3, "u8"), conv(CONTEXT, LATENTS, 1, "s32"))
    found.append(("context", 8, StackProgram(context), ContextStack(LATENTS, CONTEXT, LATENTS)))
    for fine, coarse in BLOCKS:
        ops = [conv(LATENTS, COARSE, 3, "s16"), *residuals(COARSE, coarse), QuantizeOp()]
        ops += [conv(COARSE, 4 * FINE, 1, "s16"), Unfold2Op(), *residuals(FINE, fine), QuantizeOp()]
        decoder = StackProgram((*ops, conv(FINE, VALUES, 3, "s32")))
        found.append(
            (
                f"decoder, {fine} + {coarse} blocks",
                8,
                decoder,
                DecoderStack(LATENTS, COARSE, FINE, VALUES, (fine, coarse)),
            )
        )
    return found


def engines(program: StackProgram, net: torch.nn.Module, values: np.ndarray) -> dict[str, Work]:
    """Every way to run the stack."""
    ways: dict[str, Work] = {}
    if native.available() is None:
        for path in reversed(native.supported_paths()):
            stack = native.NativeStack(program, path=path)
            ways[f"native {path}"] = lambda stack=stack: stack.run(values, threads=1)
    carried = torch.from_numpy(values.astype(np.float32))
    exact = TorchStack(program)
    ways["torch, the same integers"] = lambda: exact(carried)
    planes = carried.permute(0, 3, 1, 2) / 64
    net = net.eval().to(memory_format=torch.channels_last)
    ways["torch, float32 net"] = lambda: net(planes)
    return ways


def best_seconds(ways: dict[str, Work], clock: Callable[[], float]) -> dict[str, float]:
    """The best time of each."""
    best = dict.fromkeys(ways, float("inf"))
    for number in range(ROUNDS):
        for name, work in ways.items():
            begin, repeats = clock(), 0
            while True:
                start = clock()
                work()
                repeats += 1
                if number:  # the first round warms up
                    best[name] = min(best[name], clock() - start)
                if clock() - begin > LEAST_S:
                    break
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cpu-time", action="store_true", help="count the thread's own processor time")
    clock = time.thread_time if parser.parse_args().cpu_time else time.perf_counter
    torch.set_num_threads(1)
    print(f"{describe()}; one thread\n")
    print("| stack | picture | engine | kMAC a pixel | GMAC/s | MPx/s |\n|---|---|---|---|---|---|")
    for name, step, program, net in cases():
        for side in SIDES:
            at = side // step
            values = RANDOM.integers(-1024, 1024, (1, at, at, program.inputs)).astype(np.int16)
            products = program.multiply_adds(at, at)
            with torch.inference_mode():
                seconds = best_seconds(engines(program, net, values), clock)
            for engine, best in seconds.items():
                figures = f"{products / side**2 / 1e3:.1f} | {products / best / 1e9:.0f} | {side**2 / best / 1e6:.2f}"
                print(f"| {name} | {side} x {side} | {engine} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
