"""Convolution stacks whose every value fits an integer: trained in floats here, run in integers by `integer.py`.

Activations lie in [0, 255] * ACTIVATION_UNIT after a clipped ReLU, residual streams are multiples of STREAM_UNIT, and
nothing is normalised: no mean or variance over positions exists that would tie a position to the size of its picture.
All convolutions are 3 x 3 or 1 x 1 over (h, w) with zeros outside; time enters at the first one only, as channels.
Tensors are [N, C, H, W]; c channels at the fine grid, C at the coarse one. This module imports torch.

    encoder   fine [N, c_in, 2h, 2w] -> conv 3 -> residual blocks -> fold 2 x 2, conv 1 -> residual blocks -> conv 1
    context   latents [N, c_in, h, w] -> conv 3 -> conv 3 -> conv 1
    decoder   latents [N, c_in, h, w] -> conv 3 -> residual blocks -> conv 1, unfold 2 x 2 -> residual blocks -> conv 3
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

ACTIVATION_UNIT = 2.0**-5
ACTIVATION_STEPS = 255
STREAM_UNIT = 2.0**-9


def clipped_relu(values: torch.Tensor) -> torch.Tensor:
    """ReLU, cut off where 8 bits end."""
    return functional.hardtanh(values, 0.0, ACTIVATION_STEPS * ACTIVATION_UNIT)


class Conv(nn.Conv2d):
    """Convolution of side 1 or 3 that keeps height and width; `zero` starts it as the zero function."""

    def __init__(self, inputs: int, outputs: int, side: int, *, zero: bool = False) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        if zero:
            nn.init.zeros_(self.weight)


class Residual(nn.Module):
    """stream + conv(relu(conv(relu(stream)))); the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Conv(channels, channels, 3)
        self.second = Conv(channels, channels, 3, zero=True)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to the same."""
        update: torch.Tensor = self.second(clipped_relu(self.first(clipped_relu(stream))))
        return stream + update


class EncoderStack(nn.Module):
    """Fine pixels to a correction of the latents, zero at the start."""

    def __init__(self, inputs: int, fine: int, coarse: int, outputs: int, blocks: tuple[int, int]) -> None:
        super().__init__()
        self.entry = Conv(inputs, fine, 3)
        self.fine = nn.Sequential(*(Residual(fine) for _ in range(blocks[0])))
        self.down = Conv(4 * fine, coarse, 1)
        self.coarse = nn.Sequential(*(Residual(coarse) for _ in range(blocks[1])))
        self.exit = Conv(coarse, outputs, 1, zero=True)

    def forward(self, fine: torch.Tensor) -> torch.Tensor:
        """[N, inputs, 2h, 2w] to [N, outputs, h, w]."""
        stream = self.fine(self.entry(fine))
        stream = self.coarse(self.down(fold2(clipped_relu(stream))))
        exit_: torch.Tensor = self.exit(clipped_relu(stream))
        return exit_


class ContextStack(nn.Module):
    """Decoded latents around a position to what they say of it, zero at the start."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.entry = Conv(inputs, width, 3)
        self.middle = Conv(width, width, 3)
        self.exit = Conv(width, outputs, 1, zero=True)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """[N, inputs, h, w] to [N, outputs, h, w]."""
        hidden = clipped_relu(self.middle(clipped_relu(self.entry(latents))))
        exit_: torch.Tensor = self.exit(hidden)
        return exit_


class DecoderStack(nn.Module):
    """Decoded latents to a correction of the pixels, zero at the start."""

    def __init__(self, inputs: int, coarse: int, fine: int, outputs: int, blocks: tuple[int, int]) -> None:
        super().__init__()
        self.entry = Conv(inputs, coarse, 3)
        self.coarse = nn.Sequential(*(Residual(coarse) for _ in range(blocks[1])))
        self.up = Conv(coarse, 4 * fine, 1)
        self.fine = nn.Sequential(*(Residual(fine) for _ in range(blocks[0])))
        self.exit = Conv(fine, outputs, 3, zero=True)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """[N, inputs, h, w] to [N, outputs, 2h, 2w]."""
        stream = self.coarse(self.entry(latents))
        stream = self.fine(unfold2(self.up(clipped_relu(stream))))
        exit_: torch.Tensor = self.exit(clipped_relu(stream))
        return exit_


def fold2(values: torch.Tensor) -> torch.Tensor:
    """[N, C, 2h, 2w] to [N, 4C, h, w], channels (row, column, C): a plain reshape of channels-last memory."""
    n, c, h, w = values.shape
    cut = values.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c)
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)


def unfold2(values: torch.Tensor) -> torch.Tensor:
    """Inverse of `fold2`."""
    n, c, h, w = values.shape
    cut = values.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4)
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)
