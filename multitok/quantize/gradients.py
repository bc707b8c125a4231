"""How gradients pass a lookup, whose own slope is 0. The values that come out are the code vectors, to the bit.

    straight_through   d quantized / d carrier = 1
    rotate             d quantized / d vectors = the rotation and scaling that take the vector onto its code vector
    unit_rows          rows scaled to length 1, with their true slope
    product            matrix product, in full precision both ways

Writing `vectors + (quantized - vectors).detach()` instead would round, so that ids and vectors decode apart. [..., D]
throughout. This module imports torch.
"""

from __future__ import annotations

from typing import Any

import torch

from multitok.codebook.inputs import square_root

# Below this a vector has no direction that a rotation could start from.
SHORTEST = 1e-12


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, carrier: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradient, gradient


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(vectors, values)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        vectors, values = ctx.saved_tensors
        lengths, target_lengths = (each.norm(dim=-1, keepdim=True) for each in (vectors, values))
        start, end = vectors / lengths.clamp(min=SHORTEST), values / target_lengths.clamp(min=SHORTEST)
        middle = torch.nn.functional.normalize(start + end, dim=-1, eps=SHORTEST)
        # The transpose of I - 2 m m^T + 2 end start^T.
        turned = gradient - 2 * middle * _dot(middle, gradient) + 2 * start * _dot(end, gradient)
        rotated = turned * (target_lengths / lengths.clamp(min=SHORTEST))
        return torch.where((lengths > SHORTEST) & (target_lengths > SHORTEST), rotated, gradient), None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(left, right)
        return left @ right

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        left, right = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return (
                gradient @ right.T if ctx.needs_input_grad[0] else None,
                left.T @ gradient if ctx.needs_input_grad[1] else None,
            )


def straight_through(carrier: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values` with the gradient of `carrier` and of `values`; detach what shall not learn.

    Args:
        carrier: [..., D] what the gradient goes on to.
        values: [..., D] what comes out.

    Returns:
        [..., D], the bits of `values`.

    Source:
        Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
        Computation".
    """
    out: torch.Tensor = _StraightThrough.apply(carrier, values)
    return out


def rotate(vectors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values` with the gradient of the rotation and scaling that take each vector onto its code vector.

    Gradients keep their angle to the vector, where the straight-through estimator moves all vectors of a code alike.
    A vector or a code vector of length 0 gets the straight-through gradient.

    Args:
        vectors: [..., D] float32.
        values: [..., D] float32, their code vectors; get no gradient.

    Returns:
        [..., D], the bits of `values`.

    Source:
        Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick", section 4.2.
    """
    out: torch.Tensor = _Rotate.apply(vectors, values)
    return out


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Matrix product whose gradients are taken in full precision too.

    A compiled model runs its backward pass in the autocast of the forward pass around it, which switching autocast off
    for the product alone does not change.

    Args:
        left: [N, D] float32.
        right: [D, M] float32.

    Returns:
        [N, M] float32, differentiable.
    """
    out: torch.Tensor = _Product.apply(left, right)
    return out


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to length 1, each row the same bits whatever rows are beside it; a row of zeros stays.

    Args:
        rows: [..., D] float32.

    Returns:
        [..., D] float32, differentiable.
    """
    unit: torch.Tensor = _unit_rows(rows)[0]
    return unit


@torch.library.custom_op("multitok::unit_rows", mutates_args=())
def _unit_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The unit rows [..., D], and lengths [..., 1] in the dtype of `rows`."""
    wide = rows.double().reshape(-1, rows.shape[-1])
    # Added in the order of D: torch's own sums do not promise one.
    squares = wide.square().T.contiguous().unbind()
    total = squares[0].clone()
    for square in squares[1:]:
        total += square
    lengths = square_root(total)[..., None]
    unit = torch.where(lengths > 0, wide / lengths.clamp(min=torch.finfo(torch.float64).tiny), 0)
    return unit.to(rows.dtype).reshape(rows.shape), lengths.to(rows.dtype).reshape(*rows.shape[:-1], 1)


@_unit_rows.register_fake
def _(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return rows.new_empty(rows.shape), rows.new_empty((*rows.shape[:-1], 1))


def _keep_unit(ctx: Any, inputs: tuple[torch.Tensor], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    # The outputs, not the input: a codebook may be moved between the two passes.
    ctx.save_for_backward(*output)


def _unit_backward(ctx: Any, gradient: torch.Tensor, _: Any) -> torch.Tensor:
    unit, lengths = ctx.saved_tensors
    across = gradient - unit * _dot(unit, gradient)
    return torch.where(lengths > 0, across / lengths.clamp(min=torch.finfo(lengths.dtype).tiny), 0)


_unit_rows.register_autograd(_unit_backward, setup_context=_keep_unit)


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left * right).sum(dim=-1, keepdim=True)
