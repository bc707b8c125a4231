"""Quantisers over `multitok.codebook`, and what is measured of their codes.

    modules (torch)   VectorQuantizer, SimVQ, IBQ      one learned codebook
                      FSQ, LFQ, BSQ                    nothing to look up
                      ResidualVQ, ResidualFSQ          levels of other quantisers, any number at use
                      GroupedVQ                        groups of dimensions, each with a quantiser of its own
    NumPy             ResidualQuantizer                frozen residual codebooks

Every module: `module(vectors) -> QuantizerOutput`, `encode(vectors) -> codes`, `decode(codes) -> quantized`, vectors
[..., D], codes [..., K]. Importing this loads NumPy alone; the modules load torch when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from multitok.codebook.segment_sums import sum_exponent as sum_exponent
from multitok.quantize.residual import ResidualQuantizer as ResidualQuantizer
from multitok.quantize.statistics import code_sums as code_sums
from multitok.quantize.statistics import ema_codebook as ema_codebook
from multitok.quantize.statistics import ema_update as ema_update
from multitok.quantize.statistics import fixed_code_sums as fixed_code_sums
from multitok.quantize.usage import perplexity as perplexity
from multitok.quantize.usage import usage as usage

if TYPE_CHECKING:
    from multitok.quantize.binary import BSQ as BSQ
    from multitok.quantize.binary import LFQ as LFQ
    from multitok.quantize.code_statistics import CodeStatistics as CodeStatistics
    from multitok.quantize.fsq import FSQ as FSQ
    from multitok.quantize.fsq import ResidualFSQ as ResidualFSQ
    from multitok.quantize.grouped import GroupedVQ as GroupedVQ
    from multitok.quantize.ibq import IBQ as IBQ
    from multitok.quantize.quantizer import Quantizer as Quantizer
    from multitok.quantize.quantizer import QuantizerOutput as QuantizerOutput
    from multitok.quantize.residual_vq import ResidualVQ as ResidualVQ
    from multitok.quantize.simvq import SimVQ as SimVQ
    from multitok.quantize.vector_quantizer import VectorQuantizer as VectorQuantizer

_MODULES = {
    "BSQ": "binary",
    "CodeStatistics": "code_statistics",
    "FSQ": "fsq",
    "GroupedVQ": "grouped",
    "IBQ": "ibq",
    "LFQ": "binary",
    "Quantizer": "quantizer",
    "QuantizerOutput": "quantizer",
    "ResidualFSQ": "fsq",
    "ResidualVQ": "residual_vq",
    "SimVQ": "simvq",
    "VectorQuantizer": "vector_quantizer",
}

__all__ = [
    "BSQ",
    "FSQ",
    "IBQ",
    "LFQ",
    "CodeStatistics",
    "GroupedVQ",
    "Quantizer",
    "QuantizerOutput",
    "ResidualFSQ",
    "ResidualQuantizer",
    "ResidualVQ",
    "SimVQ",
    "VectorQuantizer",
    "code_sums",
    "ema_codebook",
    "ema_update",
    "fixed_code_sums",
    "perplexity",
    "sum_exponent",
    "usage",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
