"""Sizes of a network, read off the shapes of its tensors; and a table of code vectors made without delay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many numbers the group of a pattern takes at the start of the tensors' names: layers, levels or blocks.

    Args:
        shapes: By name.
        pattern: A regular expression with one group.
    """
    found = (re.match(pattern, key) for key in shapes)
    # Not the largest number, which a damaged name could make any.
    return len({match[1] for match in found if match})


def table(codebook_size: int, dim: int) -> nn.Embedding:
    """An embedding with random rows between 0 and 1.

    Args:
        codebook_size: Number of rows.
        dim: Their length.
    """
    # Arithmetic or normal numbers on the device "meta" make torch import its compiler, for over a second.
    from_rows: Any = nn.Embedding.from_pretrained
    made: nn.Embedding = from_rows(torch.rand(codebook_size, dim), freeze=False)
    return made
