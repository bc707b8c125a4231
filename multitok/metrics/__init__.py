"""How good a tokenizer of pictures, videos, volumes or sound is: quality, rate, use of the codes, speed, known codecs.

    evaluation = evaluate(multitok.load("image-patch8"), {"coffee": pixels})
    evaluation.mean[-1].quality.psnr_db         all codebooks, mean over the items
    evaluation.mean[0].peers["JPEG"].psnr_db    the best JPEG that takes no more bits than the first codebook

    evaluation = evaluate_audio(multitok.load("dmel-80hz"), {"speech": wave})
    evaluation.mean[-1].quality.pesq_wb         and STOI, DistillMOS, distances of spectra
    pnmi(units, phones), abx(sayings)           what units of speech tell of phones

Needs `pip install 'multitok[eval]'`, or `'multitok[eval-audio]'` for sound; docs/evaluation.md says what each
figure means.
"""

from multitok.metrics.audio_abx import AbxResult, Saying, abx
from multitok.metrics.audio_evaluate import AudioEvaluator, evaluate_audio
from multitok.metrics.audio_evaluation import AudioEvaluation
from multitok.metrics.audio_labels import Phone, frame_phones, read_labels, sayings
from multitok.metrics.audio_peers import AUDIO_PEERS, AudioPeers
from multitok.metrics.audio_quality import AudioQuality, measure_audio
from multitok.metrics.audio_stability import stability
from multitok.metrics.audio_unit_score import UnitScore, score_units
from multitok.metrics.audio_units import UnitRates, cluster_purity, phone_purity, pnmi, speaker_nmi, unit_rates
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
    "AUDIO_PEERS",
    "PEERS",
    "AbxResult",
    "AudioEvaluation",
    "AudioEvaluator",
    "AudioPeers",
    "AudioQuality",
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
    "Phone",
    "Quality",
    "ReportWriter",
    "Saying",
    "Speed",
    "UnitRates",
    "UnitScore",
    "abx",
    "cluster_purity",
    "decode_prefix",
    "evaluate",
    "evaluate_audio",
    "frame_phones",
    "measure",
    "measure_audio",
    "ms_ssim",
    "phone_purity",
    "pnmi",
    "psnr",
    "read_labels",
    "sayings",
    "score_units",
    "speaker_nmi",
    "ssim",
    "stability",
    "unit_rates",
]
