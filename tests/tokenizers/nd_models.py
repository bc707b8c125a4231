"""Small random autoencoders in which every branch, context, class and codebook matters, and noise to code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multitok.nets.autoencoder import VqAutoencoder
from multitok.nets.autoencoder_config import AutoencoderConfig
from multitok.nets.freeze import freeze
from multitok.nets.integer import IntegerAutoencoder

SIZES = (16, 9, 5)


def config(patch: tuple[int, int, int], **changes: Any) -> AutoencoderConfig:
    """A small shape."""
    values: dict[str, Any] = {
        "latent_dim": 6,
        "codebook_sizes": SIZES,
        "tables": 3,
        "fine_width": 6,
        "coarse_width": 10,
        "context_width": 8,
        "encoder_blocks": (1, 1),
        "decoder_blocks": (1, 1),
        "lookahead": 3,
    }
    return AutoencoderConfig(patch=patch, **{**values, **changes})


def random_net(shape: AutoencoderConfig, seed: int = 0) -> IntegerAutoencoder:
    """An autoencoder of this shape whose every weight is random, also those that training starts at zero."""
    model, draw = VqAutoencoder(shape), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        square = torch.randn(shape.patch_length, shape.patch_length, generator=draw)
        model.basis.copy_(torch.linalg.qr(square)[0][:, : shape.latent_dim])
        model.spread.copy_(torch.rand(shape.latent_dim, generator=draw) * 40 + 40)
        for k in range(shape.num_codebooks):
            rows = model.codebook(k)
            rows.copy_(torch.randn(rows.shape, generator=draw) * model.spread * 0.7**k)
            if k:
                centres = model.prototypes(k)
                centres.copy_(torch.rand(centres.shape, generator=draw) * model.spread.sqrt().repeat(2) * 2)
        for conv in (module for module in model.modules() if isinstance(module, torch.nn.Conv2d)):
            weights = torch.randn(conv.weight.shape, generator=draw)
            conv.weight.copy_(weights * (2.0 / conv.weight[0].numel()) ** 0.5)
            assert conv.bias is not None
            conv.bias.copy_(torch.randn(conv.bias.shape, generator=draw) * 0.2)
    return freeze(model)


def pixels(extent: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [*extent, 3]: smooth shades and noise."""
    draw = np.random.default_rng(seed)
    shade = sum(np.sin(axis / (3 + i) + seed) for i, axis in enumerate(np.ogrid[tuple(slice(n) for n in extent)]))
    noise = draw.normal(0, 30, (*extent, 3))
    return np.clip(128 + 40 * np.asarray(shade)[..., None] + noise, 0, 255).astype(np.uint8)


def voxels(extent: tuple[int, ...], window: tuple[float, float], seed: int = 0) -> NDArray[np.float32]:
    """float32 [*extent] in and around a window."""
    share = pixels(extent, seed)[..., 0] / 200 - 0.1
    return (window[0] + share * (window[1] - window[0])).astype(np.float32)
