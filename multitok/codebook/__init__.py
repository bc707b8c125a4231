"""Nearest-code search: for each vector the row of a codebook that lies closest, exact on every backend.

    nearest_code(vectors, codebook) -> codes                 one call
    Codebook(values).search(vectors, k=4, distances=True)    prepared once, searched often
    quantize_straight_through(vectors, codebook)             code vectors with gradients; torch only

NumPy arrays and torch tensors in and out. Importing this loads NumPy alone; torch is loaded by who uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multitok.codebook.codebook import Codebook as Codebook
from multitok.codebook.codebook import Nearest as Nearest
from multitok.codebook.search import nearest_code as nearest_code

if TYPE_CHECKING:
    from multitok.codebook.torch_ops import quantize_straight_through as quantize_straight_through

__all__ = ["Codebook", "Nearest", "nearest_code", "quantize_straight_through"]


def __getattr__(name: str) -> Any:
    if name != "quantize_straight_through":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multitok.codebook.torch_ops import quantize_straight_through

    return quantize_straight_through
