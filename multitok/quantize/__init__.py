"""Quantisers over `multitok.codebook`, and what is measured of their codes."""

from multitok.codebook.segment_sums import sum_exponent as sum_exponent
from multitok.quantize.residual import ResidualQuantizer as ResidualQuantizer
from multitok.quantize.statistics import code_sums as code_sums
from multitok.quantize.statistics import ema_codebook as ema_codebook
from multitok.quantize.statistics import ema_update as ema_update
from multitok.quantize.statistics import fixed_code_sums as fixed_code_sums
from multitok.quantize.usage import perplexity as perplexity
from multitok.quantize.usage import usage as usage

__all__ = [
    "ResidualQuantizer",
    "code_sums",
    "ema_codebook",
    "ema_update",
    "fixed_code_sums",
    "perplexity",
    "sum_exponent",
    "usage",
]
