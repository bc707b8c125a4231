"""One ID space for text and codes: special tokens, then one block per (tokenizer, codebook).

    0 .. s       special tokens, then reserved slots      (or after the blocks, by choice)
    s .. e       text codebook 0 | image codebook 0 | image codebook 1 | audio codebook 0 ...
    e .. size    padding up to the wished multiple

A vocabulary is immutable and JSON-able; its fingerprint names the layout and every tokenizer in it. Codes
become IDs by adding an offset or by a lookup table, never through strings. `multitok.vocabulary.presets`
holds the layouts of published models. NumPy is all this package needs.
"""

from __future__ import annotations

from multitok.vocabulary.blocks import Block, Run, TokenizerEntry
from multitok.vocabulary.core import DEFAULT_SPECIAL_TOKENS, Vocabulary

__all__ = ["DEFAULT_SPECIAL_TOKENS", "Block", "Run", "TokenizerEntry", "Vocabulary"]
