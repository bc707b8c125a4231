"""From token shards to training batches: order, packing, resume, and the torch adapter.

    folder(s) --Corpus--> documents --DocumentOrder--> a permutation --Packer--> rows --Assembler--> tensors

`TokenShardDataset` gives documents by number, `PackedDataset` packed rows with a state that resumes at any batch, in
constant time, also with another number of ranks. This package imports torch.
"""

from __future__ import annotations

from multitok.loader.assemble import IGNORE_LABEL, MODALITY_IDS
from multitok.loader.dataset import PackedDataset, TokenShardDataset

__all__ = ["IGNORE_LABEL", "MODALITY_IDS", "PackedDataset", "TokenShardDataset"]
