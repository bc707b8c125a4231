"""Names and shapes of the tensors in published checkpoints, written from their layouts and not from our networks.

Widths are parameters, so that tests run small ones; the names of the real ones come out with the real depths.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]


def taming(
    widths: tuple[int, ...],
    *,
    blocks: int = 2,
    attention: tuple[int, ...] = (),
    z: int = 8,
    dim: int = 4,
    codes: int = 64,
    gumbel: bool = False,
) -> Shapes:
    """taming-transformers: `widths` are the channels of the levels, the highest resolution first."""
    shapes: Shapes = {}
    shapes |= dict(_conv("encoder.conv_in", 3, widths[0], 3))
    before = widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            shapes |= dict(_res(f"encoder.down.{i}.block.{j}", before, width))
            before = width
            if i in attention:
                shapes |= dict(_attn(f"encoder.down.{i}.attn.{j}", width))
        if i < len(widths) - 1:
            shapes |= dict(_conv(f"encoder.down.{i}.downsample.conv", width, width, 3))
    shapes |= _mid("encoder.mid", before)
    shapes |= dict(_norm("encoder.norm_out", before)) | dict(_conv("encoder.conv_out", before, z, 3))
    shapes |= dict(_conv("decoder.conv_in", z, before, 3)) | _mid("decoder.mid", before)
    for i in reversed(range(len(widths))):
        for j in range(blocks + 1):
            shapes |= dict(_res(f"decoder.up.{i}.block.{j}", before, widths[i]))
            before = widths[i]
            if i in attention:
                shapes |= dict(_attn(f"decoder.up.{i}.attn.{j}", before))
        if i > 0:
            shapes |= dict(_conv(f"decoder.up.{i}.upsample.conv", before, before, 3))
    shapes |= dict(_norm("decoder.norm_out", before)) | dict(_conv("decoder.conv_out", before, 3, 3))
    if gumbel:
        shapes |= dict(_conv("quantize.proj", dim, codes, 1)) | {"quantize.embed.weight": (codes, dim)}
    else:
        shapes["quantize.embedding.weight"] = (codes, dim)
    return shapes | dict(_conv("quant_conv", z, dim, 1)) | dict(_conv("post_quant_conv", dim, z, 1))


def chameleon_encoder(widths: tuple[int, ...], **sizes: int) -> Shapes:
    """transformers' ChameleonVQVAE: everything but the decoder."""
    return {key: shape for key, shape in taming(widths, **sizes).items() if not key.startswith("decoder.")}  # type: ignore[arg-type]


def llamagen(widths: tuple[int, ...], *, z: int = 8, dim: int = 4, codes: int = 64) -> Shapes:
    """LlamaGen: attention at the lowest resolution; the decoder's levels in the order in which they run."""
    last = len(widths) - 1
    shapes: Shapes = dict(_conv("encoder.conv_in", 3, widths[0], 3))
    before = widths[0]
    for i, width in enumerate(widths):
        for j in range(2):
            shapes |= dict(_res(f"encoder.conv_blocks.{i}.res.{j}", before, width))
            before = width
        for j in range(2 if i == last else 0):
            shapes |= dict(_attn(f"encoder.conv_blocks.{i}.attn.{j}", width))
        if i != last:
            shapes |= dict(_conv(f"encoder.conv_blocks.{i}.downsample.conv", width, width, 3))
    for side in ("encoder", "decoder"):
        shapes |= dict(_res(f"{side}.mid.0", before, before)) | dict(_attn(f"{side}.mid.1", before))
        shapes |= dict(_res(f"{side}.mid.2", before, before))
    shapes |= dict(_norm("encoder.norm_out", before)) | dict(_conv("encoder.conv_out", before, z, 3))
    shapes |= dict(_conv("decoder.conv_in", z, before, 3))
    for i, width in enumerate(reversed(widths)):
        for j in range(3):
            shapes |= dict(_res(f"decoder.conv_blocks.{i}.res.{j}", before, width))
            before = width
        for j in range(3 if i == 0 else 0):
            shapes |= dict(_attn(f"decoder.conv_blocks.{i}.attn.{j}", width))
        if i != last:
            shapes |= dict(_conv(f"decoder.conv_blocks.{i}.upsample.conv", width, width, 3))
    shapes |= dict(_norm("decoder.norm_out", before)) | dict(_conv("decoder.conv_out", before, 3, 3))
    shapes |= {"quantize.embedding.weight": (codes, dim), "quantize.codebook_used": (65536,)}
    return shapes | dict(_conv("quant_conv", z, dim, 1)) | dict(_conv("post_quant_conv", dim, z, 1))


def open_magvit2(widths: tuple[int, ...], *, blocks: int = 2, bits: int = 6) -> Shapes:
    """Open-MAGVIT2: few biases, a middle as deep as a level, adaptive norms in the decoder."""
    last = len(widths) - 1
    shapes: Shapes = {"encoder.conv_in.weight": (widths[0], 3, 3, 3)}
    before = widths[0]
    for i, width in enumerate(widths):
        for j in range(blocks):
            shapes |= dict(_res(f"encoder.down.{i}.block.{j}", before, width, bias=False))
            before = width
        if i != last:
            shapes |= dict(_conv(f"encoder.down.{i}.downsample", width, width, 3))
    for side in ("encoder", "decoder"):
        for j in range(blocks):
            shapes |= dict(_res(f"{side}.mid_block.{j}", before, before, bias=False))
    shapes |= dict(_norm("encoder.norm_out", before)) | dict(_conv("encoder.conv_out", before, bits, 1))
    shapes |= dict(_conv("decoder.conv_in", bits, before, 3))
    for i in reversed(range(len(widths))):
        for part in ("gamma", "beta"):
            shapes |= {
                f"decoder.adaptive.{i}.{part}.weight": (before, bits),
                f"decoder.adaptive.{i}.{part}.bias": (before,),
            }
        for j in range(blocks):
            shapes |= dict(_res(f"decoder.up.{i}.block.{j}", before, widths[i], bias=False))
            before = widths[i]
        if i > 0:
            shapes |= dict(_conv(f"decoder.up.{i}.upsample.conv1", before, 4 * before, 3))
    return shapes | dict(_norm("decoder.norm_out", before)) | dict(_conv("decoder.conv_out", before, 3, 3))


def random_weights(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that keep activations near 1, norms near the identity, nothing at 0."""
    rng = np.random.default_rng(seed)
    weights = {}
    for key, shape in shapes.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        values = rng.normal(size=shape) * (fan_in**-0.5 if len(shape) > 1 else 0.1)
        if "norm" in key and key.endswith("weight"):
            values += 1
        weights[key] = torch.tensor(values, dtype=torch.float32)
    return weights


def write(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """A folder with the weights in one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    return folder


def _conv(name: str, before: int, after: int, kernel: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (after, before, kernel, kernel)
    yield f"{name}.bias", (after,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _res(name: str, before: int, after: int, *, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    convolutions = [("conv1", before, 3), ("conv2", after, 3)]
    convolutions += [("nin_shortcut", before, 1)] if before != after else []
    for norm, width in (("norm1", before), ("norm2", after)):
        yield from _norm(f"{name}.{norm}", width)
    for conv, width, kernel in convolutions:
        yield f"{name}.{conv}.weight", (after, width, kernel, kernel)
        if bias:
            yield f"{name}.{conv}.bias", (after,)


def _attn(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{name}.{part}", width, width, 1)


def _mid(name: str, width: int) -> Shapes:
    blocks = dict(_res(f"{name}.block_1", width, width)) | dict(_res(f"{name}.block_2", width, width))
    return blocks | dict(_attn(f"{name}.attn_1", width))
