"""The search as torch operators, so that `torch.compile` and `torch.export` keep it whole, and with gradients.

    multitok::nearest_code(Tensor vectors, Tensor codebook, str metric="l2", str backend="auto") -> Tensor
    multitok::quantize(Tensor vectors, Tensor codebook, str metric="l2") -> (Tensor, Tensor)
    multitok::sum_by_code(Tensor values, Tensor codes, SymInt codebook_size) -> Tensor

All three take tensors as they are: autocast casts nothing on the way in, and the search switches it off where it
computes with torch, so the lookup is as exact in mixed precision as outside it. Codes are int64, quantized vectors
have the dtype of the codebook. Gradients of the quantized vectors g pass to the inputs of `quantize` as

    vectors    g itself: the lookup passes for the identity ("straight-through"), since its true slope is 0
    codebook   for each code the sum of g over the vectors that got it

The sums are taken in fixed point (`multitok.codebook.segment_sums`), so they do not depend on the order of the vectors,
on threads or on the device, and torch's deterministic mode finds nothing to refuse. They may be differentiated again.
Not covered: the transformations of `torch.func` that differentiate, which torch refuses for operators made in Python.

N vectors, V codes, D dimensions. This module imports torch; `multitok.codebook` imports it when first asked for.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from multitok.codebook.search import nearest_code as search
from multitok.codebook.segment_sums import segment_sums, sum_exponent
from multitok.errors import ShapeError

# These operators wait for the device, to refuse what is not finite: CUDA graphs are split around them.
WAITS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


def quantize_straight_through(
    vectors: torch.Tensor, codebook: torch.Tensor, *, metric: str = "l2"
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest code vector for each vector, and its code; gradients pass straight through to the vectors.

    The gradient to `vectors` is the incoming one, the gradient to `codebook` its sum over the vectors of each code.
    Detach what a loss shall not train: `codebook` for a loss behind the decoder, `vectors` for a codebook loss.

    Args:
        vectors: [..., D] float16, bfloat16, float32 or float64, finite.
        codebook: [V, D] of any of these dtypes, finite, on the same device.
        metric: "l2", "cosine" or "dot", as for `nearest_code`; code vectors come out as they are, never normalised.

    Returns:
        quantized [..., D] in the dtype of `codebook`, equal to `codebook[codes]` to the bit, also under autocast;
        codes [...] int64.

    Raises:
        ShapeError: Not tensors, D differs, or the codebook is empty.
        InputError: A value is NaN or infinite; the message names its row.
        SpecError: `metric` is unknown.

    Source:
        van den Oord et al. 2017, "Neural Discrete Representation Learning", section 3.2; the estimator: Bengio et al.
        2013, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional Computation".
    """
    for name, given in (("vectors", vectors), ("codebook", codebook)):
        if not isinstance(given, torch.Tensor):
            raise ShapeError(f"{name} given as {type(given).__name__}: give a torch tensor")
    quantized, codes = quantize(vectors, codebook, metric)
    return quantized, codes


@torch.library.custom_op("multitok::nearest_code", mutates_args=(), **WAITS)
def nearest_code(
    vectors: torch.Tensor, codebook: torch.Tensor, metric: str = "l2", backend: str = "auto"
) -> torch.Tensor:
    """`multitok.codebook.nearest_code` as an operator; no gradient flows.

    Args:
        vectors: [..., D].
        codebook: [V, D].
        metric: "l2", "cosine" or "dot".
        backend: As for `multitok.codebook.nearest_code`.

    Returns:
        [...] int64.
    """
    return search(vectors, codebook, metric=metric, backend=backend)


@torch.library.custom_op("multitok::quantize", mutates_args=(), **WAITS)
def quantize(vectors: torch.Tensor, codebook: torch.Tensor, metric: str = "l2") -> tuple[torch.Tensor, torch.Tensor]:
    """`quantize_straight_through` as an operator.

    Args:
        vectors: [..., D].
        codebook: [V, D].
        metric: "l2", "cosine" or "dot".

    Returns:
        quantized [..., D] in the dtype of `codebook`, codes [...] int64.
    """
    codes = search(vectors, codebook, metric=metric)
    return codebook.index_select(0, codes.reshape(-1)).reshape(vectors.shape), codes


@torch.library.custom_op("multitok::sum_by_code", mutates_args=(), **WAITS)
def sum_by_code(values: torch.Tensor, codes: torch.Tensor, codebook_size: int) -> torch.Tensor:
    """Sum of the values of each code, the same bits in any order.

    Each value counts to within N 2^-61 of the largest, so for a million vectors to 2^-41: what is smaller counts as 0.

    Args:
        values: [..., D]; infinities and NaN come out in the sums of their codes, as the scaling of gradients in mixed
            precision relies on.
        codes: [...] int64 in [0, codebook_size).
        codebook_size: V.

    Returns:
        [V, D] in the dtype of `values`, rounded once more from float64.
    """
    values, codes = values.detach().reshape(-1, values.shape[-1]), codes.reshape(-1)
    if codes.numel() == 0:
        return values.new_zeros(codebook_size, values.shape[1])
    low, high = (float(end) for end in torch.aminmax(values))
    finite = math.isfinite(low) and math.isfinite(high)
    every = values
    if not finite:
        values = torch.where(every.isfinite(), every, 0)
        low, high = (float(end) for end in torch.aminmax(values))
    exponent = sum_exponent(max(-low, high), len(values))
    _, sums = segment_sums(values, codes, codebook_size, exponent)
    total: torch.Tensor = sums.double() * 2.0**-exponent
    if not finite:
        # inf + inf, inf - inf and anything with NaN come to the same in any order.
        total.index_add_(0, codes, torch.where(every.isfinite(), 0, every).double())
    return total.to(values.dtype)


@nearest_code.register_fake
def _(vectors: torch.Tensor, codebook: torch.Tensor, metric: str = "l2", backend: str = "auto") -> torch.Tensor:
    torch._check(vectors.shape[-1] == codebook.shape[1], lambda: "vectors and codebook differ in D")
    return vectors.new_empty(vectors.shape[:-1], dtype=torch.int64)


@quantize.register_fake
def _(vectors: torch.Tensor, codebook: torch.Tensor, metric: str = "l2") -> tuple[torch.Tensor, torch.Tensor]:
    torch._check(vectors.shape[-1] == codebook.shape[1], lambda: "vectors and codebook differ in D")
    return codebook.new_empty(vectors.shape), vectors.new_empty(vectors.shape[:-1], dtype=torch.int64)


@sum_by_code.register_fake
def _(values: torch.Tensor, codes: torch.Tensor, codebook_size: int) -> torch.Tensor:
    return values.new_empty(codebook_size, values.shape[-1])


def _keep_codes(
    ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, str], output: tuple[torch.Tensor, torch.Tensor]
) -> None:
    vectors, codebook, _ = inputs
    ctx.save_for_backward(output[1])
    ctx.dtype, ctx.size = vectors.dtype, codebook.shape[0]


def _quantize_backward(
    ctx: Any, gradient: torch.Tensor, _: Any
) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
    (codes,) = ctx.saved_tensors
    to_vectors = gradient.to(ctx.dtype) if ctx.needs_input_grad[0] else None
    to_codebook = sum_by_code(gradient, codes, ctx.size) if ctx.needs_input_grad[1] else None
    return to_vectors, to_codebook, None


quantize.register_autograd(_quantize_backward, setup_context=_keep_codes)


def _keep_codes_of_sum(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, int], output: torch.Tensor) -> None:
    values, codes, _ = inputs
    ctx.save_for_backward(codes)
    ctx.shape = values.shape


def _sum_backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
    (codes,) = ctx.saved_tensors
    return gradient.index_select(0, codes.reshape(-1)).reshape(ctx.shape), None, None


sum_by_code.register_autograd(_sum_backward, setup_context=_keep_codes_of_sum)


def _nearest_code_of_batches(
    info: Any,
    in_dims: tuple[int | None, ...],
    vectors: torch.Tensor,
    codebook: torch.Tensor,
    metric: str = "l2",
    backend: str = "auto",
) -> tuple[torch.Tensor, int]:
    """Under `torch.vmap`: batches of vectors are more leading axes, batches of codebooks are searched in turn."""
    if in_dims[0] is not None:
        vectors = vectors.movedim(in_dims[0], 0)
    if in_dims[1] is None:
        return nearest_code(vectors, codebook, metric, backend), 0
    codebooks = codebook.unbind(in_dims[1])
    batches = [vectors] * len(codebooks) if in_dims[0] is None else vectors.unbind(0)
    found = [nearest_code(x, c, metric, backend) for x, c in zip(batches, codebooks, strict=True)]
    return torch.stack(found), 0


if hasattr(torch.library, "register_vmap"):  # torch 2.5 and newer
    torch.library.register_vmap(nearest_code, _nearest_code_of_batches)
