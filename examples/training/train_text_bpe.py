"""Train bpe-32k on the corpus that build_text_corpus.py makes, and judge it on the held-out half.

    python examples/training/train_text_bpe.py CORPUS OUT

writes the checkpoint folder OUT and prints the bytes per token of each held-out text. It draws no random number;
about two minutes and 2 GB on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import multitok
from multitok.train.bpe import train_bpe

VOCAB_SIZE = 32_768


def main() -> None:
    """Train, save, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder with train/ and heldout/, as build_text_corpus.py makes it")
    parser.add_argument("out", type=Path, help="checkpoint folder to write; must not exist")
    parser.add_argument("--card", type=Path, help="card.md to put into it")
    arguments = parser.parse_args()
    tokenizer = train_bpe(sorted((arguments.corpus / "train").glob("*.txt")), VOCAB_SIZE)
    card = arguments.card.read_text(encoding="utf-8") if arguments.card else "# A byte-level BPE of your own\n"
    print(f"{multitok.save(tokenizer, arguments.out, card=card)}: {VOCAB_SIZE} ids")
    for path in sorted((arguments.corpus / "heldout").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        print(f"{path.stem:16} {len(text.encode()) / tokenizer.count(text):.2f} bytes/token")


if __name__ == "__main__":
    main()
