"""The integer autoencoder over torch tensors, on any device, inside a training loop: `tokenizer.module`.

    pixels [B, C, *axes] --encode--> codes [B, K, *grid] --decode--> pixels        axes and grid as the tokenizer has
    pixels [B, C, *axes] --forward--> pixels, with gradients                       them: h w, t h w or z y x

Integers are carried by floats and every sum stays where floats are exact, so codes and pixels are those of the
tokenizer, bit for bit, on every device, under autocast too. In `forward` gradients pass straight through roundings and
through the codebooks, as in training a VQ; the weights are constants and get none.

`half()` and `to(dtype)` move the module but leave its types: in half precision it would be another tokenizer. It has
no state of its own, so a model that holds it saves nothing of it. This module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from multitok.codebook import Codebook, nearest_code
from multitok.errors import CodeRangeError, ShapeError
from multitok.nets.integer import (
    BASIS_SCALE,
    FEATURE_SCALE,
    LATENT_SCALE,
    NEIGHBOURS,
    NORMAL_MOST,
    NORMAL_SCALE,
    OUTPUT_UNIT,
    IntegerAutoencoder,
)
from multitok.nets.layout import fold, unfold, with_neighbours
from multitok.nets.torch_engine import TorchStack

# Levels are 8 bits wide, with 0 in the middle.
MIDDLE, TOP = 128, 255


class AutoencoderModule(nn.Module):
    """A frozen autoencoder as a module.

    Args:
        net: What to run.
        num_codebooks: How many codebooks to use, the first ones.
        num_axes: Axes of the pixels behind B and C: 2 for images, whose frames have no axis, else 3.
        window: Values of the lowest and of the highest level.
        whole_values: Decode to whole values (pixels), rounded as the tokenizer does.
    """

    basis: torch.Tensor
    normal: torch.Tensor
    feature: torch.Tensor

    def __init__(
        self,
        net: IntegerAutoencoder,
        *,
        num_codebooks: int,
        num_axes: int,
        window: tuple[float, float],
        whole_values: bool,
    ) -> None:
        super().__init__()
        self.config, self.num_codebooks = net.config, num_codebooks
        self._num_axes, self._window, self._whole_values = num_axes, window, whole_values
        self.stacks = nn.ModuleDict({name: TorchStack(program) for name, program in net.programs.items()})
        spread = net.tensors["spread"].astype(np.float64)
        self._keep("basis", net.tensors["basis"].astype(np.float64))
        self._keep("normal", (NORMAL_SCALE / (LATENT_SCALE * spread)).astype(np.float32))
        self._keep("feature", (FEATURE_SCALE / (LATENT_SCALE * np.sqrt(spread))).astype(np.float32))
        # Looking ahead needs the codebook after the last one used.
        for k in range(min(num_codebooks + 1, net.config.num_codebooks)):
            self._keep(f"codebook_{k}", net.codebook(k).astype(np.float32))
            if k:
                self._keep(f"prototypes_{k}", net.tensors[f"prototypes_{k}"].astype(np.float32))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Codes of a batch.

        Args:
            pixels: [B, C, *axes] of any type, in the values of the tokenizer (0 to 255, or intensities), which are
                rounded to its levels. Sizes that the patch does not divide repeat their edge.

        Returns:
            [B, K, *grid] int64, those that the tokenizer gives each item.

        Raises:
            ShapeError: Another rank or number of channels, or an empty axis.
        """
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            codes, _ = self._quantize(self._latents(self._levels(pixels)))
        return codes.permute(0, 4, 1, 2, 3).reshape(len(codes), -1, *codes.shape[4 - self._num_axes : 4])

    def decode(self, codes: torch.Tensor, size: tuple[int, ...] | None = None) -> torch.Tensor:
        """The pixels that codes stand for.

        Args:
            codes: [B, n, *grid] integers, of the first n codebooks.
            size: Of each axis, to crop to; None keeps whole patches.

        Returns:
            [B, C, *axes] float32.

        Raises:
            ShapeError: Another rank, more codebooks than there are, or a size that the codes do not reach.
            CodeRangeError: A code lies outside its codebook.
        """
        if codes.ndim != 2 + self._num_axes or not 1 <= codes.shape[1] <= self.num_codebooks:
            raise ShapeError(
                f"codes of shape {list(codes.shape)}: give [B, n, *grid], n from 1 to {self.num_codebooks} and "
                f"{self._num_axes} axes of the grid"
            )
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            frames = codes if self._num_axes == 3 else codes[:, :, None]
            latents = self._dequantize(frames.permute(0, 2, 3, 4, 1).long())
            return self._values(self._reconstruct(latents), size)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """What decoding the codes of `pixels` gives, with gradients that pass straight through the codes.

        Args:
            pixels: As `encode` takes them; floats, for gradients.

        Returns:
            [B, C, *axes] float32, of the same size.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            latents = self._latents(self._levels(pixels))
            _, quantized = self._quantize(latents.detach())
            # The value is `quantized`, the gradient that of the latents.
            straight = quantized + (latents - latents.detach())
            return self._values(self._reconstruct(straight), tuple(pixels.shape[2:]))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> AutoencoderModule:
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        applied: Any = super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return applied  # type: ignore[no-any-return]

    def _keep(self, name: str, values: Any) -> None:
        self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _levels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [B, C, *axes] to levels [B, T, H, W, C], whole patches."""
        if pixels.ndim != 2 + self._num_axes or pixels.shape[1] != self.config.channels or 0 in pixels.shape:
            raise ShapeError(
                f"pixels of shape {list(pixels.shape)}: give [B, {self.config.channels}, *axes] with "
                f"{self._num_axes} axes, none empty"
            )
        low, high = self._window
        share = (pixels.double().clamp(low, high) - low) / (high - low)
        levels = _rounded(share * TOP) - MIDDLE
        frames = levels if self._num_axes == 3 else levels[:, :, None]
        missing = [-size % step for size, step in zip(frames.shape[2:], self.config.patch, strict=True)]
        t, h, w = missing
        if any(missing):
            frames = functional.pad(frames, (0, w, 0, h, 0, t), mode="replicate")
        return frames.permute(0, 2, 3, 4, 1)

    def _values(self, levels: torch.Tensor, size: tuple[int, ...] | None) -> torch.Tensor:
        """Levels [B, T, H, W, C] to pixels [B, C, *axes], cropped to `size`."""
        frames = levels.permute(0, 4, 1, 2, 3)
        planes = frames if self._num_axes == 3 else frames[:, :, 0]
        if size is not None:
            if len(size) != self._num_axes or any(n > m for n, m in zip(size, planes.shape[2:], strict=True)):
                raise ShapeError(f"size={tuple(size)}: these codes hold {tuple(planes.shape[2:])}, give no more")
            for axis, length in enumerate(size, 2):
                planes = planes.narrow(axis, 0, length)
        if self._whole_values:
            return _rounded(planes + MIDDLE).clamp(0, TOP).float()
        low, high = self._window
        return (low + ((planes + MIDDLE) / TOP).clamp(0, 1) * (high - low)).float()

    def _latents(self, levels: torch.Tensor) -> torch.Tensor:
        """[B, T, H, W, C] to [B, t, h, w, D], integers in float64."""
        linear = _rounded(fold(levels, self.config.patch) @ self.basis * (LATENT_SCALE / BASIS_SCALE))
        if self.config.encoder_blocks is None:
            return linear
        return linear + self._run("encoder", fold(levels, self.config.fine_patch))

    def _quantize(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes [B, t, h, w, K] int64 of latents, and the latents that they stand for."""
        with torch.no_grad():
            decoded, codes = torch.zeros_like(latents), []
            for k in range(self.num_codebooks):
                predicted, table = self._predict(k, decoded)
                code, decoded = self._choose(k, latents, predicted, table)
                codes.append(code)
        return torch.stack(codes, -1), decoded

    def _choose(
        self, k: int, latents: torch.Tensor, predicted: torch.Tensor, table: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes of codebook k and what they decode to, as `IntegerAutoencoder` chooses them."""
        rows, last = self._rows(k), k == self.config.num_codebooks - 1
        nearest = self._nearest(k, latents - predicted, table, 1 if last else self.config.lookahead)
        codes, decoded = nearest[..., 0], predicted + rows[table, nearest[..., 0]]
        if last or self.config.lookahead == 1:
            return codes, decoded
        following, next_table = self._predict(k + 1, decoded)
        said, least = following - decoded, torch.full(table.shape, torch.inf, dtype=torch.float64, device=table.device)
        for candidate in nearest.unbind(-1):
            after = predicted + rows[table, candidate]
            left = latents - after - said
            left = left - self._rows(k + 1)[next_table, self._nearest(k + 1, left, next_table, 1)[..., 0]]
            distance = left.double().square().sum(-1)
            better = distance < least
            least = torch.where(better, distance, least)
            codes = torch.where(better, candidate, codes)
            decoded = torch.where(better[..., None], after, decoded)
        return codes, decoded

    def _dequantize(self, codes: torch.Tensor) -> torch.Tensor:
        """[B, t, h, w, n] int64 to [B, t, h, w, D]."""
        decoded = torch.zeros((*codes.shape[:-1], self.config.latent_dim), dtype=torch.float64, device=codes.device)
        for k in range(codes.shape[-1]):
            code, size = codes[..., k], self.config.codebook_sizes[k]
            wrong = code[(code < 0) | (code >= size)]
            if len(wrong):
                raise CodeRangeError(f"code {int(wrong[0])} in codebook {k}: allowed are 0 to {size - 1}")
            predicted, table = self._predict(k, decoded)
            decoded = predicted + self._rows(k)[table, code]
        return decoded

    def _reconstruct(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, t, h, w, D] to levels [B, T, H, W, C] in float64."""
        linear = unfold(latents @ self.basis.T, self.config.patch) * (1 / (LATENT_SCALE * BASIS_SCALE))
        branch = self._run("decoder", self._normalized(latents))
        return linear + unfold(branch, self.config.fine_patch) * OUTPUT_UNIT

    def _predict(self, k: int, decoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the latents decoded so far say of the next ones, and the table of codebook k at each position."""
        none = torch.zeros(decoded.shape[:-1], dtype=torch.long, device=decoded.device)
        if k == 0:
            return decoded, none
        predicted = decoded + self._run(f"context_{k}", self._normalized(decoded))
        if self.config.tables == 1:
            return predicted, none
        own = (predicted.abs().float() * self.feature).round()
        padded = functional.pad(own, (0, 0, 1, 1, 1, 1))
        h, w = own.shape[2:4]
        rows = padded[:, :, :h] + padded[:, :, 1 : h + 1] + padded[:, :, 2:]
        around = rows[..., :w, :] + rows[..., 1 : w + 1, :] + rows[..., 2:, :] - own
        features = torch.cat([own * NEIGHBOURS, around], -1)
        centres: torch.Tensor = getattr(self, f"prototypes_{k}")
        return predicted, nearest_code(features.flatten(0, -2), centres).reshape(none.shape).long()

    def _nearest(self, k: int, residual: torch.Tensor, table: torch.Tensor, count: int) -> torch.Tensor:
        """The nearest codes to each residual [B, t, h, w, D] in its table, nearest first: [B, t, h, w, count]."""
        flat, chosen, rows = residual.float().flatten(0, -2), table.flatten(), self._rows(k)
        codes = chosen.new_zeros(len(chosen), count)
        for index in range(len(rows)):
            where = (chosen == index).nonzero()[:, 0]
            if len(where):
                codes[where] = Codebook(rows[index].float()).search(flat[where], k=count).codes.long()
        return codes.reshape(*table.shape, count)

    def _rows(self, k: int) -> torch.Tensor:
        tables: torch.Tensor = getattr(self, f"codebook_{k}")
        return tables

    def _normalized(self, latents: torch.Tensor) -> torch.Tensor:
        return _rounded(latents.float() * self.normal).clamp(-NORMAL_MOST, NORMAL_MOST)

    def _run(self, name: str, frames: torch.Tensor) -> torch.Tensor:
        """A stack over each of the frames [B, t, h, w, C], which see their neighbours in time; in float64."""
        seen = with_neighbours(frames, self.config.taps).float()
        found: torch.Tensor = self.stacks[name](seen.flatten(0, 1))
        return found.double().reshape(*seen.shape[:2], *found.shape[1:])


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Nearest integers, halves to even; gradients pass straight through."""
    return values + (values.detach().round() - values.detach()) if values.requires_grad else values.round()
