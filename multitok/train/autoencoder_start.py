"""Where the training of an autoencoder starts: principal components, context nets and codebooks, level by level.

For each codebook in turn the context net learns to predict the latents from what the codebooks before it decoded (a
minute of gradient steps on latents alone), the classes are k-means centres of its predictions' magnitudes, and each
class gets its own k-means table of the residuals. This start is most of the quality; training end to end adds the rest.

N crops, [t, h, w] their grid, D latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.nets.autoencoder import VqAutoencoder
from multitok.nets.layout import fold
from multitok.train.kmeans import train_kmeans

# Crops worked on at once; bounds the memory of the nets, not the result.
BLOCK_CROPS = 16
# Vectors that one k-means sees at most.
MOST_VECTORS = 400_000


def fit_start(
    model: VqAutoencoder,
    crops: NDArray[np.int16],
    *,
    seed: int = 0,
    iterations: int = 10,
    context_steps: int = 600,
    dims: Sequence[int] | None = None,
    report: Callable[[str], None] = lambda _: None,
    autocast: bool = True,
) -> None:
    """Set a new autoencoder's basis, spread, contexts, classes and codebooks from crops; the branches stay zero.

    Args:
        model: Changed in place.
        crops: [N, T, H, W, C] levels (pixel values minus 128), T, H and W multiples of the patch.
        seed: Fixes every draw.
        iterations: Lloyd passes of each k-means.
        context_steps: Gradient steps of each context net.
        dims: How many of the latents each codebook describes, the leading ones; None takes all. Fewer in the first
            codebooks keeps their few codes for what is seen.
        report: Called with one line after each codebook.
        autocast: Run the context nets in bfloat16.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        model.basis.copy_(_principal_components(model, crops))
        z = torch.cat([model.latents(block) for block in _levels(crops)])
        model.spread.copy_(z.reshape(-1, z.shape[-1]).square().mean(0).sqrt().clamp(min=1e-3))
    decoded = torch.zeros_like(z)
    for k in range(model.config.num_codebooks):
        if k:
            _train_context(model, k, decoded, z, context_steps, rng, autocast)
        refit_codebook(
            model,
            k,
            decoded,
            z,
            rng,
            iterations=iterations,
            fresh=True,
            dims=dims[k] if dims else None,
            autocast=autocast,
        )
        decoded = decode_level(model, k, decoded, z, autocast)
        error = float((z - decoded).square().sum(-1).mean()) / model.config.patch_length
        report(f"codebook {k + 1}: {-10 * math.log10(error / 255**2):.2f} dB within the latents")


def refit_codebook(
    model: VqAutoencoder,
    k: int,
    decoded: torch.Tensor,
    z: torch.Tensor,
    rng: np.random.Generator,
    *,
    iterations: int,
    fresh: bool,
    dims: int | None = None,
    autocast: bool = True,
) -> None:
    """Fit the classes (if fresh) and the tables of codebook k to the residuals that it is asked for.

    Args:
        model: Changed in place.
        k: Which codebook.
        decoded: [N, t, h, w, D] latents decoded from the codebooks before it.
        z: [N, t, h, w, D] latents.
        rng: Draws the samples.
        iterations: Lloyd passes.
        fresh: Start anew instead of from the present tables.
        dims: As for `fit_start`.
        autocast: As for `fit_start`.
    """
    config, d = model.config, z.shape[-1]
    residual = torch.empty_like(z)
    table = torch.zeros(z.shape[:-1], dtype=torch.long)
    predicted = residual  # reused: the prediction is needed for the classes only
    with torch.no_grad():
        for part in _parts(len(z)):
            predicted[part] = model.prediction(k, decoded[part], autocast)
        if k and config.tables > 1:
            if fresh:
                chosen = torch.from_numpy(rng.permutation(len(z))[: max(200_000 // z[0, ..., 0].numel(), 1)])
                features = model.features(predicted[chosen]).reshape(-1, 2 * d)
                model.prototypes(k).copy_(torch.from_numpy(train_kmeans(features.numpy(), config.tables, seed=k)))
            for part in _parts(len(z)):
                table[part] = model.classes(k, predicted[part])
        torch.sub(z, predicted, out=residual)
        flat, of = residual.reshape(-1, d).numpy(), table.reshape(-1).numpy()
        for index, codebook in enumerate(model.codebook(k)):
            own = np.flatnonzero(of == index)
            if fresh and len(own) < 2 * len(codebook):
                # A class that hardly occurs borrows residuals: left empty, its table would hold one vector.
                borrowed = rng.choice(len(flat), min(2 * len(codebook), len(flat)), replace=False)
                own = np.concatenate([own, borrowed])
            sample = flat[np.sort(rng.choice(own, min(len(own), MOST_VECTORS), replace=False))]
            if not fresh and len(sample) < 2 * len(codebook):
                continue  # a class that hardly occurs keeps what it has
            sample, start = sample[:, :dims], "k-means++" if fresh else codebook[:, :dims].numpy()
            rows = train_kmeans(sample, len(codebook), seed=k, iterations=iterations, start=start)
            codebook.zero_()
            codebook[:, :dims] = torch.from_numpy(rows)


def decode_level(
    model: VqAutoencoder, k: int, decoded: torch.Tensor, z: torch.Tensor, autocast: bool = True
) -> torch.Tensor:
    """[N, t, h, w, D] decoded latents with codebook k, from those of the codebooks before it."""
    after = torch.empty_like(z)
    with torch.no_grad():
        books = [Codebook(table.numpy()) for table in model.codebook(k)]
        for part in _parts(len(z)):
            predicted = model.prediction(k, decoded[part], autocast)
            table = model.classes(k, predicted).reshape(-1)
            residual = (z[part] - predicted).reshape(-1, z.shape[-1])
            row = torch.empty_like(residual)
            for index, book in enumerate(books):
                chosen = (table == index).nonzero()[:, 0]
                row[chosen] = book.search(residual[chosen], quantized=True).quantized
            after[part] = predicted + row.reshape(predicted.shape)
    return after


def _principal_components(model: VqAutoencoder, crops: NDArray[np.int16]) -> torch.Tensor:
    """[L, D] directions of largest second moment about level 0, each one's largest entry positive."""
    length = model.config.patch_length
    moments = torch.zeros(length, length, dtype=torch.float64)
    for block in _levels(crops):
        patches = fold(block, model.config.patch).reshape(-1, length)
        moments += (patches.T @ patches).double()
    _, vectors = torch.linalg.eigh(moments)
    basis = vectors.flip(1)[:, : model.config.latent_dim]
    signs = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    signed: torch.Tensor = basis * signs
    return signed.float()


def _train_context(
    model: VqAutoencoder,
    k: int,
    decoded: torch.Tensor,
    z: torch.Tensor,
    steps: int,
    rng: np.random.Generator,
    autocast: bool,
) -> None:
    """Teach context net k to predict the latents from `decoded`."""
    net = model.contexts[k - 1]
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    batch = max(8192 // z[0, ..., 0].numel(), 1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
        chosen = torch.from_numpy(rng.integers(0, len(z), batch))
        predicted = model.prediction(k, decoded[chosen], autocast)
        error = ((predicted - z[chosen]).square().sum(-1) / z.shape[-1]).mean((1, 2, 3))
        loss = error.sqrt().mean() / model.spread.square().mean().sqrt()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


def _levels(crops: NDArray[np.int16]) -> Iterator[torch.Tensor]:
    for part in _parts(len(crops)):
        yield torch.from_numpy(crops[part].astype(np.float32))


def _parts(count: int) -> list[slice]:
    return [slice(start, start + BLOCK_CROPS) for start in range(0, count, BLOCK_CROPS)]
