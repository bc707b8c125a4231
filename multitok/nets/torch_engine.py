"""Run an integer stack with torch: integers carried by float32, exact in any order of summation, on any device.

A float32 holds every integer up to 2^24, and a stack's sums stay below (`StackProgram` checks it). So whichever way a
BLAS or a convolution library adds, on one thread or many, the sums are the same, and what follows is elementwise: one
multiplication, rounded once, and a rounding to an integer. Gradients pass straight through the roundings.

Winograd and FFT convolutions are not exact; on a GPU the convolution is therefore a product of matrices.
This module imports torch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from multitok.nets.program import ConvOp, Fold2Op, QuantizeOp, ResidualOp, StackProgram, Unfold2Op
from multitok.nets.stacks import fold2, unfold2

LIMITS = {"u8": (0.0, 255.0), "s16": (-32768.0, 32767.0)}


class TorchStack(torch.nn.Module):
    """A stack program over tensors.

    Args:
        program: What to run.
    """

    def __init__(self, program: StackProgram) -> None:
        super().__init__()
        self.program = program
        count = 0
        for op in program.ops:
            convs = (op,) if isinstance(op, ConvOp) else (op.first, op.second) if isinstance(op, ResidualOp) else ()
            for conv in convs:
                weights = np.ascontiguousarray(conv.weights.transpose(0, 3, 1, 2)).astype(np.float32)
                self.register_buffer(f"weights_{count}", torch.from_numpy(weights), persistent=False)
                self.register_buffer(f"bias_{count}", torch.from_numpy(conv.bias.astype(np.float32)), persistent=False)
                self.register_buffer(f"scale_{count}", torch.from_numpy(conv.scale.copy()), persistent=False)
                count += 1

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Run the stack.

        Args:
            values: [N, H, W, I] integers in float32.

        Returns:
            [N, H', W', O] integers in float32.
        """
        planes = values.permute(0, 3, 1, 2)
        count = 0
        for op in self.program.ops:
            if isinstance(op, ConvOp):
                planes = _limited(self._conv(count, planes), op.output)
                count += 1
            elif isinstance(op, ResidualOp):
                hidden = _limited(self._conv(count, _quantized(planes)), "u8")
                update = _limited(self._conv(count + 1, hidden), "s16")
                planes = (planes + update).clamp(*LIMITS["s16"])
                count += 2
            elif isinstance(op, QuantizeOp):
                planes = _quantized(planes)
            elif isinstance(op, Fold2Op):
                planes = fold2(planes)
            elif isinstance(op, Unfold2Op):
                planes = unfold2(planes)
        return planes.permute(0, 2, 3, 1)

    def _conv(self, index: int, planes: torch.Tensor) -> torch.Tensor:
        """Rescaled, rounded sums of convolution `index`."""
        weights: torch.Tensor = getattr(self, f"weights_{index}")
        bias: torch.Tensor = getattr(self, f"bias_{index}")
        scale: torch.Tensor = getattr(self, f"scale_{index}")
        with torch.autocast(planes.device.type, enabled=False):
            if planes.is_cuda:
                sums = _as_product(planes, weights, bias)
            else:
                sums = functional.conv2d(planes, weights, bias, padding=weights.shape[-1] // 2)
        return _rounded(sums * scale[:, None, None])


def _as_product(planes: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    n, _, h, w = planes.shape
    columns = functional.unfold(planes, weights.shape[-1], padding=weights.shape[-1] // 2)
    return (weights.flatten(1) @ columns + bias[:, None]).reshape(n, -1, h, w)


def _limited(values: torch.Tensor, output: str) -> torch.Tensor:
    return values if output == "s32" else values.clamp(*LIMITS[output])


def _quantized(stream: torch.Tensor) -> torch.Tensor:
    """Stream steps to activation steps: (s + 8) >> 4, from 0 to 255."""
    return _floored((stream + 8) / 16).clamp(*LIMITS["u8"])


def _rounded(values: torch.Tensor) -> torch.Tensor:
    return values + (values.detach().round() - values.detach()) if values.requires_grad else values.round()


def _floored(values: torch.Tensor) -> torch.Tensor:
    return values + (values.detach().floor() - values.detach()) if values.requires_grad else values.floor()
