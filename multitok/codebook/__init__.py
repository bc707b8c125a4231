"""Nearest-code search: for each vector the row of a codebook that lies closest. `nearest_code` is the one entry."""

from multitok.codebook.search import nearest_code as nearest_code

__all__ = ["nearest_code"]
