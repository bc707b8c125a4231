"""The trainable n-D autoencoder: a linear stem, convolution branches that start at zero, predictive residual VQ.

    levels [B, T, H, W, C] --fold--> patches --basis--> latents   + encoder(levels)            = z [B, t, h, w, D]
    for each codebook k:   p = s + context_k(s around)            what the decoded neighbours already say
                           c = class of (p around)                which of the codebook's tables
                           s = p + nearest row of table c to (z - p)
    s --basis^T--> patches --unfold--> levels                     + decoder(s around)

At the start every branch is zero: what is left is the classical tokenizer (principal components, residual k-means).
Each step has a finite reach, so a position's codes depend on the pixels around it and on nothing else. The first k
codebooks decode by themselves.

B items, T frames, H x W pixels, C channels; t, h, w the grid; D latents; K codebooks of V codes in G tables each
(one table in the first). This module imports torch. `integer.py` makes the exact form that tokenizers run.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from multitok.nets.autoencoder_config import AutoencoderConfig as AutoencoderConfig
from multitok.nets.layout import fold, unfold, with_neighbours
from multitok.nets.stacks import ContextStack, DecoderStack, EncoderStack

# One unit of what the encoder reads and the decoder writes, in levels.
INPUT_LEVELS, OUTPUT_LEVELS = 64.0, 16.0
# Latents are given to the nets in standard deviations, up to here.
LATENT_REACH = 4.0


class Quantized(NamedTuple):
    """What `VqAutoencoder.quantize` returns.

    Args:
        quantized: [B, t, h, w, D] decoded latents; gradients go straight through to the latents and to the contexts.
        codes: [B, t, h, w, n].
        tables: [B, t, h, w, n] the table that each code is of.
        residuals: n of [B, t, h, w, D], what each codebook was asked for, without gradient.
        commitment: [B, n] squared distance of the latents from what n codebooks decode, per raw value, in squared
            levels; its gradient goes to the latents.
        prediction_error: [B, n] squared error of each prediction, likewise; its gradient goes to the contexts.
    """

    quantized: torch.Tensor
    codes: torch.Tensor
    tables: torch.Tensor
    residuals: list[torch.Tensor]
    commitment: torch.Tensor
    prediction_error: torch.Tensor


class VqAutoencoder(nn.Module):
    """The autoencoder of this module, in floats; `multitok.train.autoencoder` fits and trains it.

    Args:
        config: Its shape.
    """

    basis: torch.Tensor
    spread: torch.Tensor
    codebooks: list[torch.Tensor]

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        d, taps = config.latent_dim, len(config.taps)
        fine_values = config.patch_length // 4
        self.encoder: EncoderStack | None = None
        if config.encoder_blocks is not None:
            widths = config.fine_width, config.coarse_width
            self.encoder = EncoderStack(fine_values * taps, *widths, d, config.encoder_blocks)
        self.contexts = nn.ModuleList(
            ContextStack(d * taps, config.context_width, d) for _ in range(config.num_codebooks - 1)
        )
        self.decoder = DecoderStack(
            d * taps, config.coarse_width, config.fine_width, fine_values, config.decoder_blocks
        )
        self.register_buffer("basis", torch.zeros(config.patch_length, d))
        self.register_buffer("spread", torch.ones(d))
        for k, size in enumerate(config.codebook_sizes):
            self.register_buffer(f"codebook_{k}", torch.zeros(config.tables_of(k), size, d))
            if k:
                self.register_buffer(f"prototypes_{k}", torch.zeros(config.tables, 2 * d))

    def codebook(self, k: int) -> torch.Tensor:
        """[G, V, D] of codebook k, a buffer."""
        tables: torch.Tensor = getattr(self, f"codebook_{k}")
        return tables

    def prototypes(self, k: int) -> torch.Tensor:
        """[G, 2 D] centres of the classes that choose codebook k's table, k > 0."""
        centres: torch.Tensor = getattr(self, f"prototypes_{k}")
        return centres

    def latents(self, levels: torch.Tensor, autocast: bool = False) -> torch.Tensor:
        """Stem and encoder: levels [B, T, H, W, C] to z [B, t, h, w, D]."""
        linear = fold(levels, self.config.patch) @ self.basis
        if self.encoder is None:
            return linear
        fine = with_neighbours(fold(levels / INPUT_LEVELS, self.config.fine_patch), self.config.taps)
        return linear + _frames(self.encoder, fine, autocast) * self.spread

    def prediction(self, k: int, quantized: torch.Tensor, autocast: bool = False) -> torch.Tensor:
        """What the decoded latents [B, t, h, w, D] of k codebooks say of the next one's."""
        if k == 0:
            return quantized
        return quantized + _frames(self.contexts[k - 1], self._normal(quantized), autocast) * self.spread

    def features(self, prediction: torch.Tensor) -> torch.Tensor:
        """Magnitudes at each position and summed over its eight neighbours: [B, t, h, w, 2 D]."""
        own = prediction.abs() / self.spread.sqrt()
        b, t, h, w, d = own.shape
        planes = own.reshape(b * t, h, w, d).permute(0, 3, 1, 2)
        around = nn.functional.avg_pool2d(planes, 3, 1, 1, divisor_override=1) - planes
        return torch.cat([own, around.permute(0, 2, 3, 1).reshape(own.shape) / 8], -1)

    def classes(self, k: int, prediction: torch.Tensor) -> torch.Tensor:
        """Table of codebook k at each position, [B, t, h, w]."""
        if k == 0 or self.config.tables == 1:
            return torch.zeros(prediction.shape[:-1], dtype=torch.long, device=prediction.device)
        flat = self.features(prediction).reshape(-1, 2 * self.config.latent_dim)
        return _nearest(flat, self.prototypes(k)).reshape(prediction.shape[:-1])

    def look_up(self, k: int, residual: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
        """Nearest code to each residual [..., D] in its table of codebook k: [...]."""
        flat, table = residual.reshape(-1, residual.shape[-1]), tables.reshape(-1)
        codes = torch.zeros_like(table)
        for index, codebook in enumerate(self.codebook(k)):
            chosen = (table == index).nonzero()[:, 0] if len(self.codebook(k)) > 1 else slice(None)
            codes[chosen] = _nearest(flat[chosen], codebook)
        return codes.reshape(tables.shape)

    def quantize(self, z: torch.Tensor, num_codebooks: int, autocast: bool = False) -> Quantized:
        """Code the latents with the first codebooks.

        Args:
            z: [B, t, h, w, D].
            num_codebooks: How many to use.
            autocast: Run the context nets in bfloat16.

        Returns:
            What `Quantized` says.
        """
        decoded = torch.zeros_like(z)
        codes, tables, residuals = [], [], []
        commitment, prediction_error = [], []
        for k in range(num_codebooks):
            predicted = self.prediction(k, decoded, autocast)
            with torch.no_grad():
                residual = z - predicted
                table = self.classes(k, predicted)
                code = self.look_up(k, residual, table)
                row = self.codebook(k)[table, code]
            decoded = predicted + row
            prediction_error.append(self._per_value(z.detach() - predicted))
            commitment.append(self._per_value(z - decoded.detach()))
            codes.append(code)
            tables.append(table)
            residuals.append(residual)
        # The value is `decoded`; its gradient goes to z as if there were no codebook, and to the contexts.
        straight = decoded + (z - z.detach())
        return Quantized(
            straight,
            torch.stack(codes, -1),
            torch.stack(tables, -1),
            residuals,
            torch.stack(commitment, -1),
            torch.stack(prediction_error, -1),
        )

    def reconstruct(self, quantized: torch.Tensor, autocast: bool = False) -> torch.Tensor:
        """Decoded latents [B, t, h, w, D] to levels [B, T, H, W, C]."""
        linear = unfold(quantized @ self.basis.T, self.config.patch)
        branch = _frames(self.decoder, self._normal(quantized), autocast)
        return linear + unfold(branch, self.config.fine_patch) * OUTPUT_LEVELS

    def forward(
        self, levels: torch.Tensor, num_codebooks: int | None = None, autocast: bool = False
    ) -> tuple[torch.Tensor, Quantized]:
        """Levels to levels, by way of the codes.

        Args:
            levels: [B, T, H, W, C] float32, T, H and W multiples of the patch.
            num_codebooks: How many to use; None takes all.
            autocast: Run the nets in bfloat16; latents and codebooks stay in float32.

        Returns:
            Levels of the same shape, and what the quantiser did.
        """
        n = self.config.num_codebooks if num_codebooks is None else num_codebooks
        quantized = self.quantize(self.latents(levels, autocast), n, autocast)
        return self.reconstruct(quantized.quantized, autocast), quantized

    def _per_value(self, error: torch.Tensor) -> torch.Tensor:
        """Squared error of latents [B, t, h, w, D] as if it were one of raw values: [B]."""
        return error.square().sum(-1).mean((1, 2, 3)) / self.config.patch_length

    def _normal(self, latents: torch.Tensor) -> torch.Tensor:
        return with_neighbours((latents / self.spread).clamp(-LATENT_REACH, LATENT_REACH), self.config.taps)


def _frames(net: nn.Module, values: torch.Tensor, autocast: bool) -> torch.Tensor:
    """Run a stack over each frame: [B, T, H, W, C] to [B, T, H', W', C'] in float32."""
    b, t, h, w, c = values.shape
    with torch.autocast(values.device.type, torch.bfloat16, enabled=autocast):
        out: torch.Tensor = net(values.reshape(b * t, h, w, c).permute(0, 3, 1, 2))
    out = out.permute(0, 2, 3, 1).float()
    return out.reshape(b, t, *out.shape[1:])


def _nearest(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Nearest row in plain float32; training needs no more, `integer.py` is exact."""
    half = codebook.square().sum(1) / 2
    codes = torch.empty(len(vectors), dtype=torch.long, device=vectors.device)
    for start in range(0, len(vectors), 4096):
        block = vectors[start : start + 4096]
        codes[start : start + 4096] = torch.addmm(half, block, codebook.T, alpha=-1).argmin(1)
    return codes
