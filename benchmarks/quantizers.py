"""Quantisers trained from scratch at one rate and in one time: `python benchmarks/quantizers.py --data DIR`

DIR is what examples/training/fetch_images.sh made; default: the environment variable MULTITOK_HELDOUT. The same small
convolutional autoencoder (step 8, 40 bits a position) is trained around each quantiser on the same crops of the
training photos, in turns of a few seconds, so that other work on the machine takes from all alike. Beside them the
start that needs no training end to end: principal components and k-means, without and with context nets
(multitok/train/autoencoder_start.py).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import describe
from numpy.typing import NDArray
from torch import nn

from multitok.metrics import psnr, tables
from multitok.nets.autoencoder import VqAutoencoder
from multitok.nets.autoencoder_config import AutoencoderConfig
from multitok.quantize import (
    BSQ,
    FSQ,
    LFQ,
    CodeStatistics,
    GroupedVQ,
    Quantizer,
    ResidualFSQ,
    ResidualVQ,
    SimVQ,
    VectorQuantizer,
)
from multitok.train.autoencoder_start import fit_start

ROOT = Path(__file__).resolve().parent.parent
CHANNELS, LATENT_DIM, NUM_CODEBOOKS, CODEBOOK_SIZE = 64, 32, 4, 1024
STEP, CROP, BATCH, TURNS = 8, 128, 4, 12
WARM_UP = 0.05
# Batches that the codebooks start from: one would give every code a vector of its own and leave nothing to the next.
START_BATCHES = 8
# Of the codebooks' averages: short, as the runs are.
DECAY = 0.95
PEAK_RATE = 1e-3
Pixels = NDArray[np.uint8]


def vector_quantizers(dim: int) -> list[VectorQuantizer]:
    """Four codebooks that follow their vectors by moving averages, each with draws of its own."""
    return [VectorQuantizer(dim, CODEBOOK_SIZE, decay=DECAY, seed=k) for k in range(NUM_CODEBOOKS)]


QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "residual VQ": lambda: ResidualVQ(vector_quantizers(LATENT_DIM)),
    "residual VQ, rotation trick": lambda: ResidualVQ(vector_quantizers(LATENT_DIM), rotation_trick=True),
    "residual SimVQ": lambda: ResidualVQ([SimVQ(LATENT_DIM, CODEBOOK_SIZE) for _ in range(NUM_CODEBOOKS)]),
    "product VQ": lambda: GroupedVQ(vector_quantizers(LATENT_DIM // NUM_CODEBOOKS)),
    "grouped FSQ 8 5 5 5": lambda: GroupedVQ([FSQ([8, 5, 5, 5]) for _ in range(NUM_CODEBOOKS)]),
    "residual FSQ 8 5 5 5": lambda: ResidualFSQ([8, 5, 5, 5], NUM_CODEBOOKS),
    "residual FSQ ten times 2": lambda: ResidualFSQ([2] * 10, NUM_CODEBOOKS),
    # Soft codes as sharp for LFQ's corners at 1 as the authors' 100 is for BSQ's at 1 / sqrt(D).
    "LFQ": lambda: LFQ(10 * NUM_CODEBOOKS, num_codebooks=NUM_CODEBOOKS, inverse_temperature=2.0, entropy_bits=10),
    "BSQ": lambda: BSQ(10 * NUM_CODEBOOKS, num_codebooks=NUM_CODEBOOKS, entropy_bits=10),
}
# Tables of each codebook; for each second of the time given, crops and gradient steps of each context net, chosen to
# take about that time on one core shared by six.
STARTS = {"no training: PCA, k-means": (1, 12.0, 0.0), "no training: PCA, context nets, k-means": (16, 6.0, 1.0)}


class Quality(NamedTuple):
    """Of the held-out photos.

    Args:
        psnr_db: Mean over the photos, rounded to pixels before.
        usage: Share of the codes that occur, of each codebook.
        perplexity: Of each codebook.
    """

    psnr_db: float
    usage: tuple[float, ...]
    perplexity: tuple[float, ...]


class ChannelNorm(nn.LayerNorm):
    """LayerNorm of each position: the picture's size plays no part, as it does in GroupNorm."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same shape."""
        return super().forward(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Residual block of two convolutions; begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            ChannelNorm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            ChannelNorm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip
        nn.init.zeros_(self.branch[-1].weight)
        nn.init.zeros_(self.branch[-1].bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same shape."""
        return values + self.branch(values)


class Autoencoder(nn.Module):
    """Pixels to latents at an eighth of the side, a quantiser, and back."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        fine, coarse = CHANNELS, 2 * CHANNELS
        self.quantizer = quantizer
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, fine, 3, padding=1), Block(fine), Block(fine),
            nn.Conv2d(fine, coarse, 2, stride=2), Block(coarse), Block(coarse),
            ChannelNorm(coarse), nn.Conv2d(coarse, quantizer.dim, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(quantizer.dim, coarse, 3, padding=1), Block(coarse), Block(coarse),
            nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2), Block(fine), Block(fine),
            ChannelNorm(fine), nn.SiLU(), nn.Conv2d(fine, 48, 3, padding=1), nn.PixelShuffle(4),
        )  # fmt: skip

    def latents(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] to [B, h, w, D]."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.encoder(pixels).permute(0, 2, 3, 1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, 3, H, W] in -1 to 1 to the same, codes [B, h, w, K], and what the quantiser adds to the loss."""
        found = self.quantizer(self.latents(pixels))
        with torch.autocast("cpu", torch.bfloat16):
            decoded = self.decoder(found.quantized.permute(0, 3, 1, 2))
        loss = 0.025 * found.commitment_loss + 0.1 * found.codebook_loss
        # The entropies are sums over all 40 bits, the rest are means.
        loss = loss + 0.01 / self.quantizer.dim * found.entropy_loss
        return decoded.float(), found.codes, loss


class Crops:
    """Random crops of photos, mirrored and turned; one seed, one sequence."""

    def __init__(self, photos: list[Pixels], seed: int) -> None:
        self._photos = [photo for photo in photos if min(photo.shape[:2]) >= CROP]
        sides = np.array([math.sqrt(photo.shape[0] * photo.shape[1]) for photo in self._photos])
        self._share, self._rng = sides / sides.sum(), np.random.default_rng(seed)

    def draw(self, count: int) -> Pixels:
        """[count, CROP, CROP, 3]."""
        out = np.empty((count, CROP, CROP, 3), np.uint8)
        for i, index in enumerate(self._rng.choice(len(self._photos), count, p=self._share)):
            photo = self._photos[index]
            y, x = (self._rng.integers(0, length - CROP + 1) for length in photo.shape[:2])
            crop = photo[y : y + CROP, x : x + CROP]
            crop = crop[:, ::-1] if self._rng.random() < 0.5 else crop
            out[i] = crop.transpose(1, 0, 2) if self._rng.random() < 0.5 else crop
        return out


def start(quantizer: Quantizer, latents: torch.Tensor) -> None:
    """Start the codebooks that k-means starts."""
    if isinstance(quantizer, GroupedVQ):
        parts = torch.split(latents, [group.dim for group in quantizer.groups], dim=-1)
        for group, part in zip(quantizer.groups, parts, strict=True):
            start(group, part)
    elif isinstance(quantizer, (ResidualVQ, VectorQuantizer)):
        quantizer.start_from(latents)


class Training:
    """One autoencoder around one quantiser; the rate of learning follows the time spent."""

    def __init__(self, name: str, photos: list[Pixels], seconds: float, seed: int) -> None:
        torch.manual_seed(seed)
        self.name, self.seconds, self.spent, self.processor, self.steps = name, seconds, 0.0, 0.0, 0
        self.model = Autoencoder(QUANTIZERS[name]()).to(memory_format=torch.channels_last)
        self._crops = Crops(photos, seed)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), PEAK_RATE, betas=(0.9, 0.95), weight_decay=1e-4)

    def turn(self, until: float) -> None:
        """Train until this many seconds are spent in all."""
        while self.spent < until:
            began, own = time.perf_counter(), time.process_time()
            self._step()
            self.spent += time.perf_counter() - began
            self.processor += time.process_time() - own

    def _step(self) -> None:
        done = min(self.spent / self.seconds, 1.0)
        rate = PEAK_RATE * min(1.0, (done + 0.002) / WARM_UP) * (0.505 + 0.495 * math.cos(math.pi * done))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if self.steps == 0:
            with torch.no_grad():
                start(self.model.quantizer, self.model.latents(to_input(self._crops.draw(START_BATCHES * BATCH))))
        pixels = to_input(self._crops.draw(BATCH))
        decoded, _, extra = self.model(pixels)
        error = decoded - pixels
        loss = error.square().mean() + 0.1 * error.abs().mean() + extra
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self.steps += 1

    def row(self, heldout: Mapping[str, Pixels]) -> list[str]:
        """The table's line."""
        model = self.model.eval()

        def decode(pixels: Pixels) -> tuple[NDArray[np.float32], torch.Tensor]:
            with torch.no_grad():
                decoded, codes, _ = model(to_input(pixels[None]))
            return (decoded[0].permute(1, 2, 0).numpy() + 1) * 127.5, codes

        sizes = model.quantizer.codebook_sizes
        seen = self.steps * BATCH * CROP**2
        return line(
            self.name, model.quantizer.dim, sizes, measured(decode, sizes, heldout), seen, self.spent, self.processor
        )


def start_row(name: str, photos: list[Pixels], heldout: Mapping[str, Pixels], seconds: float, seed: int) -> list[str]:
    """The line of a start without training end to end, on as many crops as the time allows about."""
    num_tables, num_crops, context_steps = STARTS[name]
    config = AutoencoderConfig(
        patch=(1, STEP, STEP), latent_dim=LATENT_DIM, codebook_sizes=(CODEBOOK_SIZE,) * NUM_CODEBOOKS,
        tables=num_tables, encoder_blocks=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    began, own = time.perf_counter(), time.process_time()
    crops = Crops(photos, seed).draw(round(num_crops * seconds))
    model = VqAutoencoder(config).eval()
    levels = (crops.astype(np.int16) - 128)[:, None]
    fit_start(model, levels, seed=seed, context_steps=round(context_steps * seconds))
    spent, processor = time.perf_counter() - began, time.process_time() - own

    def decode(pixels: Pixels) -> tuple[NDArray[np.float32], torch.Tensor]:
        with torch.no_grad():
            decoded, found = model(torch.from_numpy(pixels.astype(np.float32) - 128)[None, None])
        return decoded[0, 0].numpy() + 128, found.codes

    quality = measured(decode, config.codebook_sizes, heldout)
    return line(name, LATENT_DIM, config.codebook_sizes, quality, crops.size // 3, spent, processor)


def to_input(pixels: Pixels) -> torch.Tensor:
    """[B, H, W, 3] to [B, 3, H, W] in -1 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def measured(
    decode: Callable[[Pixels], tuple[NDArray[np.float32], torch.Tensor]],
    sizes: tuple[int, ...],
    heldout: Mapping[str, Pixels],
) -> Quality:
    """Decode every held-out photo, its edges repeated to whole positions."""
    statistics, found = CodeStatistics(sizes), []
    for pixels in heldout.values():
        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((0, -height % STEP), (0, -width % STEP), (0, 0)), mode="edge")
        decoded, codes = decode(padded)
        statistics.update(codes)
        found.append(psnr(pixels, decoded[:height, :width].clip(0, 255).round().astype(np.uint8)))
    return Quality(float(np.mean(found)), statistics.usage(), statistics.perplexity())


def line(
    name: str, dim: int, sizes: tuple[int, ...], quality: Quality, seen: int, spent: float, processor: float
) -> list[str]:
    """Cells in the order of HEADER."""
    return [
        name,
        f"{dim}",
        f"{math.log2(math.prod(sizes)) / STEP**2:.3f}",
        f"{quality.psnr_db:.2f}",
        " ".join(f"{share:.0%}" for share in quality.usage),
        " ".join(f"{value:.0f}" for value in quality.perplexity),
        f"{seen / 1e6:.1f}",
        f"{spent:.0f}",
        f"{processor:.0f}",
    ]


HEADER = [
    "quantiser", "D", "bits per pixel", "PSNR", "usage of each codebook", "perplexity", "MPx trained", "s",
    "processor s",
]  # fmt: skip


def main() -> None:
    """Train in turns, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MULTITOK_HELDOUT"))
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of each")
    parser.add_argument("--only", action="append", choices=[*QUANTIZERS, *STARTS], help="may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("no photos: give --data DIR, the folder that examples/training/fetch_images.sh made")
    sys.path.insert(0, str(ROOT / "examples" / "training"))
    import patch_data

    torch.set_num_threads(1)
    photos, heldout = list(patch_data.photos(arguments.data)), patch_data.heldout_photos(arguments.data)
    wanted = arguments.only or [*STARTS, *QUANTIZERS]
    Training("residual VQ", photos, 1.0, 0).turn(0.001)  # what torch sets up once shall count for none of them
    trainings = [Training(name, photos, arguments.seconds, arguments.seed) for name in QUANTIZERS if name in wanted]
    for turn in range(1, TURNS + 1):
        for training in trainings:
            training.turn(arguments.seconds * turn / TURNS)
        print(f"turn {turn} of {TURNS}", file=sys.stderr, flush=True)
    rows = [start_row(name, photos, heldout, arguments.seconds, arguments.seed) for name in STARTS if name in wanted]
    rows += [training.row(heldout) for training in trainings]

    parameters = sum(value.numel() for value in Autoencoder(FSQ([8, 5, 5, 5])).parameters())
    print(
        f"{describe()}; 1 thread. {len(heldout)} held-out photos, see examples/training/patch_data.py. One seed; the "
        f"machine was shared; equal wall time, {arguments.seconds:.0f} s each, in turns; the rows without training "
        f"take what they take. Nets of {parameters / 1e6:.1f} M parameters from scratch, bfloat16, AdamW; a step takes "
        f"{BATCH} crops of {CROP}, {BATCH * CROP**2 / 1e6:.3f} MPx. With a few hundred steps or fewer no net is near "
        "its end: the distance to the rows without training says what that start is worth in this time, while "
        "differences of a decibel between quantisers say little.\n"
    )
    print(tables.markdown(HEADER, rows).replace("---:", "---", 1))  # names align left


if __name__ == "__main__":
    main()
