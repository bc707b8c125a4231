"""multitok: every modality in, one stream of discrete token IDs out, and back.

Importing this package loads NumPy at most; each name below loads its module when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitok.checkpoint import fingerprint as fingerprint
    from multitok.checkpoint import load as load
    from multitok.checkpoint import save as save
    from multitok.errors import MultitokError as MultitokError
    from multitok.interleave import Document as Document
    from multitok.interleave import Interleaver as Interleaver
    from multitok.interleave import Segment as Segment
    from multitok.interleave import TokenSequence as TokenSequence
    from multitok.loader import PackedDataset as PackedDataset
    from multitok.loader import TokenShardDataset as TokenShardDataset
    from multitok.protocol import Codes as Codes
    from multitok.protocol import Modality as Modality
    from multitok.protocol import StreamingTokenizer as StreamingTokenizer
    from multitok.protocol import Tokenizer as Tokenizer
    from multitok.protocol import TokenizerBase as TokenizerBase
    from multitok.protocol import TokenizerSpec as TokenizerSpec
    from multitok.protocol import Waveform as Waveform
    from multitok.vocabulary import Vocabulary as Vocabulary

__version__ = "0.1.0"

_EXPORTS = {
    "Codes": "multitok.protocol",
    "Document": "multitok.interleave",
    "Interleaver": "multitok.interleave",
    "Modality": "multitok.protocol",
    "MultitokError": "multitok.errors",
    "PackedDataset": "multitok.loader",
    "Segment": "multitok.interleave",
    "StreamingTokenizer": "multitok.protocol",
    "TokenSequence": "multitok.interleave",
    "TokenShardDataset": "multitok.loader",
    "Tokenizer": "multitok.protocol",
    "TokenizerBase": "multitok.protocol",
    "TokenizerSpec": "multitok.protocol",
    "Vocabulary": "multitok.vocabulary",
    "Waveform": "multitok.protocol",
    "fingerprint": "multitok.checkpoint",
    "load": "multitok.checkpoint",
    "save": "multitok.checkpoint",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'multitok' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
