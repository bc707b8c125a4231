"""`code_sums` as a torch operator, which `torch.compile` keeps whole though it waits for values and other ranks.

    multitok::code_sums(Tensor vectors, Tensor codes, SymInt codebook_size, SymInt? exponent=None, str group="")
        -> (Tensor sums, Tensor counts)

`multitok.quantize.code_sums` calls it while it is compiled. Ranks have to run the same compiled program, as for every
collective operation. This module imports torch.
"""

from __future__ import annotations

from typing import Any, Optional

import torch

from multitok.codebook.torch_ops import WAITS
from multitok.quantize import statistics


@torch.library.custom_op("multitok::code_sums", mutates_args=(), **WAITS)
def code_sums(
    vectors: torch.Tensor,
    codes: torch.Tensor,
    codebook_size: int,
    exponent: Optional[int] = None,  # noqa: UP045 (torch reads the annotation, older ones know no other form)
    group: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`multitok.quantize.code_sums` as an operator.

    Args:
        vectors: [..., D].
        codes: [...] integers.
        codebook_size: V.
        exponent: As for `multitok.quantize.code_sums`.
        group: Name of the process group, "" for none.

    Returns:
        sums [V, D] float64, counts [V] int64.
    """
    # torch has no public way from the name of a group to the group.
    c10d: Any = torch.distributed.distributed_c10d
    ranks = c10d._resolve_process_group(group) if group else None
    counts, sums = statistics.code_sums(vectors, codes, codebook_size, exponent=exponent, group=ranks)
    return sums, counts


@code_sums.register_fake
def _(
    vectors: torch.Tensor, codes: torch.Tensor, codebook_size: int, exponent: int | None = None, group: str = ""
) -> tuple[torch.Tensor, torch.Tensor]:
    sums = vectors.new_empty(codebook_size, vectors.shape[-1], dtype=torch.float64)
    return sums, vectors.new_empty(codebook_size, dtype=torch.int64)
