"""Nearest-code search: for each vector the row of a codebook that lies closest, exact on every backend.

    nearest_code(vectors, codebook) -> codes                 one call
    Codebook(values).search(vectors, k=4, distances=True)    prepared once, searched often

NumPy arrays and torch tensors in and out. Importing this loads NumPy alone; torch is loaded by who uses it.
"""

from multitok.codebook.codebook import Codebook as Codebook
from multitok.codebook.codebook import Nearest as Nearest
from multitok.codebook.search import nearest_code as nearest_code

__all__ = ["Codebook", "Nearest", "nearest_code"]
