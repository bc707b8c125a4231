"""Quantisers over `multitok.codebook`, and what is measured of their codes."""

from multitok.quantize.residual import ResidualQuantizer as ResidualQuantizer
from multitok.quantize.usage import perplexity as perplexity
from multitok.quantize.usage import usage as usage

__all__ = ["ResidualQuantizer", "perplexity", "usage"]
