"""Training: each merge joins a most frequent pair, whatever the threads and the files; and what cannot be trained."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import multitok
from multitok.errors import InputError, SpecError
from multitok.train.bpe import DEFAULT_PATTERN, train_bpe

SOURCE = Path(multitok.__file__).with_name("protocol.py")
WORDS = r"[a-z]+|[^a-z]+"

Piece = tuple[bytes, ...]


def join(piece: Piece, left: bytes, right: bytes) -> Piece:
    parts = list(piece)
    i = 0
    while i < len(parts) - 1:
        if (parts[i], parts[i + 1]) == (left, right):
            parts[i : i + 2] = [left + right]
        i += 1
    return tuple(parts)


def assert_merges_are_the_most_frequent(tokens: tuple[bytes, ...], text: str) -> None:
    """Replay the merges; of several equally frequent pairs the trainer may take any."""
    pieces = Counter(tuple(bytes([byte]) for byte in piece.encode()) for piece in re.findall(WORDS, text))
    for token in tokens[256:]:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for piece, count in pieces.items():
            for pair in pairwise(piece):
                pairs[pair] += count
        best = max(pairs.values())
        taken = [pair for pair, count in pairs.items() if pair[0] + pair[1] == token and count == best]
        assert taken, f"{token!r} is no most frequent pair"
        merged: Counter[Piece] = Counter()
        for piece, count in pieces.items():
            merged[join(piece, *taken[0])] += count
        pieces = merged


@given(words=st.lists(st.text("abcde", min_size=2, max_size=7), min_size=8, max_size=30, unique=True))
@settings(deadline=None, max_examples=30)
def test_each_token_joins_a_most_frequent_pair(words: list[str]) -> None:
    # Eight different words are always good for eight merges.
    tokens = train_bpe([" ".join(words)], 264, pattern=WORDS).tokens
    assert tokens[:256] == tuple(bytes([byte]) for byte in range(256))
    assert_merges_are_the_most_frequent(tokens, " ".join(words))


def test_real_text_trains_to_the_asked_size_and_round_trips() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    tokenizer = train_bpe([SOURCE], 700, name="tiny")
    assert tokenizer.spec.name == "tiny"
    assert tokenizer.spec.codebook_sizes == (700,)
    assert tokenizer.pattern == DEFAULT_PATTERN
    assert b" def" in tokenizer.tokens or b"def" in tokenizer.tokens
    codes = tokenizer.encode(text + "never seen: 東京 🗼")
    assert tokenizer.decode(codes) == text + "never seen: 東京 🗼"
    assert tokenizer.count(text) < len(text) / 2


def test_a_file_and_its_text_and_its_lines_train_the_same(tmp_path: Path) -> None:
    text = SOURCE.read_text(encoding="utf-8") * 60  # several blocks
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    # Blocks end at a line's end, as the pieces of this pattern do.
    pattern = r"[^\s]+ ?|\n|[ ]+"
    of_text = train_bpe([text], 400, pattern=pattern)
    assert train_bpe([path], 400, pattern=pattern).tokens == of_text.tokens
    assert train_bpe(text.splitlines(keepends=True), 400, pattern=pattern).tokens == of_text.tokens


def test_threads_change_nothing() -> None:
    code = (
        "import hashlib, sys; from pathlib import Path; from multitok.train.bpe import train_bpe\n"
        "tokens = train_bpe([Path(sys.argv[1])], 900).tokens\n"
        "print(hashlib.sha256(b'|'.join(tokens)).hexdigest())"
    )
    digests = set()
    for settings_of_run in (
        {"RAYON_NUM_THREADS": "1"},
        {"RAYON_NUM_THREADS": "4"},
        {"TOKENIZERS_PARALLELISM": "false"},
    ):
        run = subprocess.run(
            [sys.executable, "-c", code, str(SOURCE)],
            env={**os.environ, **settings_of_run}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(run.stdout.strip())
    assert digests == {hashlib.sha256(b"|".join(train_bpe([SOURCE], 900).tokens)).hexdigest()}


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="vocab_size=256: the 256 bytes come first"):
        train_bpe(["abc"], 256)
    with pytest.raises(SpecError, match="vocab_size=300, but the texts give 258 tokens"):
        train_bpe(["abc"], 300)
    with pytest.raises(InputError, match="type bytes: give a str, or the path"):
        train_bpe([b"abc"], 300)  # type: ignore[list-item]
    (tmp_path / "latin1.txt").write_bytes("été".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin1\.txt is not UTF-8: .*convert it first"):
        train_bpe([tmp_path / "latin1.txt"], 300)
    with pytest.raises(SpecError, match=r"pattern '\(\[' is no regex"):
        train_bpe(["abc"], 300, pattern="([")
