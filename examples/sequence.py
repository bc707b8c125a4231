"""DNA or protein to k-mers and back, exactly: `python examples/sequence.py [FASTA]`."""

import sys
from pathlib import Path

import multitok
from multitok.frontend import media

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/sequences/tp53-primates.fa"
tokenizer = multitok.load("protein-3mer" if path.suffix == ".faa" else "dna-6mer")

for name, sequence in media.records(path):
    codes = tokenizer.encode(sequence)  # int32 [1, n]
    assert tokenizer.decode(codes) == sequence  # lower case and unread letters (N) included
    print(f"{name}: {len(sequence):,} letters -> {codes.num_tokens:,} tokens")
