"""`Quantizer`: what every quantiser module does, and `QuantizerOutput`, what it returns. This module imports torch.

    vectors [..., D] --- forward --> quantized [..., D], codes [..., K], losses      with gradients
                     \\-- encode ---> codes [..., K] --- decode --> quantized [..., D]  without

`decode(encode(v))` equals `forward(v).quantized` to the bit, in training too. A forward pass in training may move the
codebook afterwards (EMA, revival of dead codes): decode its codes before the next one, or take its `quantized`.

Quantisers compute in float32 whatever comes in and whatever autocast says, and keep their own dtypes when the model
around them is cast: `model.half()` and `model.to(torch.bfloat16)` leave codebooks, thresholds and averages as they are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from multitok.codebook import inputs
from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError

# Codes of a tokenizer are int32.
LARGEST_CODEBOOK = 2**31 - 1


class QuantizerOutput(NamedTuple):
    """What a quantiser makes of vectors. Losses are means over all values, unweighted; 0 where a quantiser has none.

    Args:
        quantized: [..., D] float32 code vectors, differentiable with respect to the vectors.
        codes: [..., K] int64.
        commitment_loss: Draws the vectors towards their code vectors.
        codebook_loss: Draws the code vectors towards their vectors.
        entropy_loss: Sure about each vector, all codes in use: the mean entropy of a vector's soft codes minus that
            of the mean soft codes, in nats.
    """

    quantized: torch.Tensor
    codes: torch.Tensor
    commitment_loss: torch.Tensor
    codebook_loss: torch.Tensor
    entropy_loss: torch.Tensor


class Quantizer(nn.Module, ABC):
    """Base of the quantiser modules.

    Args:
        dim: D.
        codebook_sizes: V of each of the K codebooks.

    Raises:
        SpecError: There is no dimension or no codebook, or a codebook is empty or larger than int32 counts.
    """

    def __init__(self, dim: int, codebook_sizes: Sequence[int]) -> None:
        super().__init__()
        if dim < 1:
            raise SpecError(f"dim={dim}: give at least 1")
        if not codebook_sizes or not all(1 <= size <= LARGEST_CODEBOOK for size in codebook_sizes):
            raise SpecError(
                f"codebook sizes {tuple(codebook_sizes)}: give at least one, each from 1 to {LARGEST_CODEBOOK}; a "
                "larger one takes several codebooks"
            )
        self._dim, self._codebook_sizes = int(dim), tuple(int(size) for size in codebook_sizes)

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """V of each codebook."""
        return self._codebook_sizes

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self._codebook_sizes)

    def forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        """Quantise with gradients; in training mode, quantisers that learn from statistics learn.

        Args:
            vectors: [..., D] of any float dtype, finite.

        Raises:
            ShapeError: Not a float tensor [..., D].
            InputError: A value is NaN or infinite.
        """
        with _full_precision(self._check_vectors(vectors)):
            return self._forward(vectors.float())

    def encode(self, vectors: torch.Tensor) -> torch.Tensor:
        """Codes of vectors, without gradients; learns nothing.

        Args:
            vectors: [..., D] of any float dtype, finite.

        Returns:
            [..., K] int64.

        Raises:
            ShapeError: Not a float tensor [..., D].
            InputError: A value is NaN or infinite.
        """
        with torch.no_grad(), _full_precision(self._check_vectors(vectors)):
            return self._encode(vectors.float())

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Quantised vectors of codes, without gradients.

        Args:
            codes: [..., K] integers.

        Returns:
            [..., D] float32.

        Raises:
            ShapeError: Not integers [..., K].
            CodeRangeError: A code lies outside its codebook.
        """
        self._check_codes(codes)
        with torch.no_grad(), _full_precision(codes):
            return self._decode(codes.long())

    @abstractmethod
    def _forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        """`forward` of float32 vectors."""

    @abstractmethod
    def _encode(self, vectors: torch.Tensor) -> torch.Tensor:
        """`encode` of float32 vectors."""

    @abstractmethod
    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        """`decode` of int64 codes in range."""

    def _check_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
        if not isinstance(vectors, torch.Tensor) or not vectors.is_floating_point() or vectors.ndim < 1:
            raise ShapeError(f"vectors given as {_kind(vectors)}: give a float tensor [..., {self.dim}]")
        if vectors.shape[-1] != self.dim:
            raise ShapeError(
                f"vectors are of shape {list(vectors.shape)}, this quantiser has D = {self.dim}: give "
                f"[..., {self.dim}], channels last"
            )
        return vectors

    def _check_codes(self, codes: torch.Tensor, *, fewest: int | None = None, smallest: int = 0) -> None:
        """Refuse what is not [..., k] with `fewest` (None: K) <= k <= K, or has a code outside [smallest, V)."""
        most = self.num_codebooks
        fewest = most if fewest is None else fewest
        if (
            not isinstance(codes, torch.Tensor)
            or codes.ndim < 1
            or not fewest <= codes.shape[-1] <= most
            or codes.is_floating_point()
            or codes.dtype == torch.bool
        ):
            wanted = f"[..., {most}]" if fewest == most else f"[..., k], {fewest} <= k <= {most}"
            raise ShapeError(f"codes given as {_kind(codes)}: give an integer tensor {wanted}")
        if inputs.is_compiling() or codes.numel() == 0:
            return  # values are not known while torch compiles
        sizes = torch.tensor(self.codebook_sizes[: codes.shape[-1]], device=codes.device)
        outside = (codes < smallest) | (codes >= sizes)
        if bool(outside.any()):
            k = int(outside.nonzero()[0, -1])
            bad = int(codes[..., k][outside[..., k]][0])
            raise CodeRangeError(f"code {bad} in codebook {k}: allowed are 0 to {self.codebook_sizes[k] - 1}")

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """What `to`, `half` and the like call: moves to other devices are followed, changes of dtype are not."""

        def keeping_dtype(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            # From the tensor itself, since a cast to half and back would have rounded.
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keeping_dtype, recurse)  # type: ignore[no-untyped-call]


def mean_square(left: torch.Tensor, right: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of the squared differences, 0 of no values.

    Args:
        left: [..., D].
        right: [..., D].
        mask: Booleans that broadcast to [..., 1], which rows count; None counts all.
    """
    squares = (left - right).square()
    if mask is None:
        return squares.sum() / max(squares.numel(), 1)
    mask = mask.expand(squares.shape)
    return torch.where(mask, squares, 0).sum() / mask.sum().clamp(min=1)


def entropy(shares: torch.Tensor) -> torch.Tensor:
    """Entropy in nats, a scalar, with finite gradients where a share is 0.

    Args:
        shares: Not negative.
    """
    return -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum()


def check_finite(vectors: torch.Tensor) -> None:
    """Refuse NaN and infinities where a quantiser would not notice; nothing while torch compiles, which sees no values.

    Args:
        vectors: [..., D].

    Raises:
        InputError: A value is not finite; names its row.
    """
    if inputs.is_compiling() or bool(vectors.isfinite().all()):
        return
    rows = vectors.detach().reshape(-1, vectors.shape[-1]).isfinite().all(dim=1)
    raise InputError(
        f"vectors hold a NaN or an infinity in row {int(rows.logical_not().nonzero()[0, 0])} of {len(rows)}: "
        "quantisers take finite values only; it usually comes from the model or the data in front"
    )


def level_counts(vectors: torch.Tensor, num_codebooks: int, dropout: float) -> torch.Tensor:
    """Quantiser dropout: how many codebooks each item of the batch uses, drawn from torch's default generator.

    Args:
        vectors: [..., D]; the first axis counts items, and a single vector is one.
        num_codebooks: K.
        dropout: Share of the items that use a number drawn evenly from 1 to K; the others use K.

    Returns:
        Integers [items, 1, ..., 1] with as many axes as `vectors`.

    Source:
        Zeghidour et al. 2021, "SoundStream", section III-C; per item as in Kumar et al. 2023, "High-Fidelity Audio
        Compression with Improved RVQGAN", section 3.3.
    """
    items = vectors.shape[0] if vectors.ndim > 1 else 1
    drawn = torch.randint(1, num_codebooks + 1, (items,), device=vectors.device)
    dropped = torch.rand(items, device=vectors.device) < dropout
    return torch.where(dropped, drawn, num_codebooks).reshape(items, *[1] * (vectors.ndim - 1))


def check_share(name: str, value: float) -> float:
    """`value` where it is a share.

    Args:
        name: What the caller calls it.
        value: Has to lie in [0, 1].

    Raises:
        SpecError: It does not.
    """
    if not 0 <= value <= 1:
        raise SpecError(f"{name}={value}: give a share from 0 to 1")
    return value


def check_positive(name: str, value: float) -> float:
    """`value` where it is finite and above 0.

    Args:
        name: What the caller calls it.
        value: Has to lie in (0, inf).

    Raises:
        SpecError: It does not.
    """
    if not 0 < value < math.inf:
        raise SpecError(f"{name}={value}: give a finite number above 0")
    return value


def check_num_codebooks(num_codebooks: int | None, most: int) -> int:
    """How many codebooks to use, None for all.

    Args:
        num_codebooks: What the caller wants.
        most: K.

    Raises:
        SpecError: Not 1 to K.
    """
    if num_codebooks is None:
        return most
    if not 1 <= num_codebooks <= most:
        raise SpecError(f"num_codebooks={num_codebooks}: this quantiser allows 1 to {most}")
    return num_codebooks


def _full_precision(tensor: torch.Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _kind(given: object) -> str:
    if isinstance(given, torch.Tensor):
        return f"{given.dtype} of shape {list(given.shape)}"
    return type(given).__name__
