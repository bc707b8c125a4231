"""How good a picture, video or volume tokenizer is: quality, rate, use of the codes and speed, beside known codecs.

    evaluation = evaluate(multitok.load("image-patch8"), {"coffee": pixels})
    evaluation.mean[-1].quality.psnr_db         all codebooks, mean over the items
    evaluation.mean[0].peers["JPEG"].psnr_db    the best JPEG that takes no more bits than the first codebook

Needs `pip install 'multitok[eval]'`; docs/evaluation.md says what each figure means.
"""

from multitok.metrics.evaluate import Evaluator, evaluate
from multitok.metrics.evaluation import (
    CodebookUse,
    Evaluation,
    Failure,
    ItemResult,
    LevelResult,
    MeanLevel,
    Speed,
)
from multitok.metrics.levels import LevelDroppable, decode_prefix
from multitok.metrics.peers import PEERS, PeerResult, Peers
from multitok.metrics.quality import Quality, measure, ms_ssim, psnr, ssim
from multitok.metrics.rates import CodeCounts
from multitok.metrics.report import ReportWriter

__all__ = [
    "PEERS",
    "CodeCounts",
    "CodebookUse",
    "Evaluation",
    "Evaluator",
    "Failure",
    "ItemResult",
    "LevelDroppable",
    "LevelResult",
    "MeanLevel",
    "PeerResult",
    "Peers",
    "Quality",
    "ReportWriter",
    "Speed",
    "decode_prefix",
    "evaluate",
    "measure",
    "ms_ssim",
    "psnr",
    "ssim",
]
