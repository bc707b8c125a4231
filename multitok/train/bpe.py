"""Train a byte-level BPE on text: `train_bpe` streams texts or files and returns a `TextBpe`.

The result depends on the texts and the settings only: not on the number of threads, nor on how files are read.
Time and memory grow with the number of different pieces, not with the size of the text: 137 MB of text in 28
languages and code take about a minute and a half and 2 GB on one core for 32,768 tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from multitok.errors import InputError, MissingExtraError, SpecError
from multitok.tokenizers._bpe_engines import byte_letters
from multitok.tokenizers.text_bpe import TextBpe

_DIGITS = (
    r"0-9\x{660}-\x{669}\x{6F0}-\x{6F9}\x{966}-\x{96F}\x{9E6}-\x{9EF}\x{A66}-\x{A6F}\x{AE6}-\x{AEF}\x{B66}-\x{B6F}"
    r"\x{BE6}-\x{BEF}\x{C66}-\x{C6F}\x{CE6}-\x{CEF}\x{D66}-\x{D6F}\x{E50}-\x{E59}\x{ED0}-\x{ED9}\x{F20}-\x{F29}"
    r"\x{1040}-\x{1049}\x{17E0}-\x{17E9}\x{FF10}-\x{FF19}"
)
_SYMBOLS = (
    # ASCII and Latin-1: controls, punctuation, signs, superscripts.
    r"\x{0}-\x{8}\x{E}-\x{1F}!-/:-@\[-`\{-\x{84}\x{86}-\x{9F}\x{A1}-\x{A9}\x{AB}-\x{B4}\x{B6}-\x{B9}\x{BB}-\x{BF}"
    r"\x{D7}\x{F7}"
    # Punctuation of Greek, Armenian, Hebrew, Arabic, Indic scripts, Thai, Tibetan, Burmese, Ethiopic and Khmer.
    r"\x{37E}\x{387}\x{55A}-\x{55F}\x{589}\x{58A}\x{5BE}\x{5C0}\x{5C3}\x{5F3}\x{5F4}\x{600}-\x{60F}\x{61B}-\x{61F}"
    r"\x{66A}-\x{66D}\x{6D4}\x{964}\x{965}\x{E3F}\x{E4F}\x{E5A}\x{E5B}\x{F04}-\x{F14}\x{104A}-\x{104F}"
    r"\x{1360}-\x{1368}\x{17D4}-\x{17DB}"
    # General punctuation without the joiners that words hold, signs, arrows, mathematics, boxes, dingbats.
    r"\x{200B}\x{200E}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{20CF}\x{2100}-\x{2BFF}\x{2E00}-\x{2E7F}"
    # Chinese, Japanese and Korean punctuation and enclosed signs; presentation and full-width forms; pictographs.
    r"\x{3001}-\x{3004}\x{3008}-\x{3020}\x{3030}-\x{3037}\x{303D}-\x{303F}\x{30FB}\x{3200}-\x{33FF}\x{FD3E}\x{FD3F}"
    r"\x{FE10}-\x{FE19}\x{FE30}-\x{FE6B}\x{FEFF}-\x{FF0F}\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}\x{FF5B}-\x{FF65}"
    r"\x{FFE0}-\x{FFFD}\x{1F000}-\x{1FAFF}"
)

DEFAULT_PATTERN = (
    rf"[ \t{_SYMBOLS}]?[^\s{_DIGITS}{_SYMBOLS}]+"  # a word with its marks, after one space or sign: " été", "_name"
    rf"|[{_DIGITS}]{{1,3}}"  # up to three digits
    rf"| ?[{_SYMBOLS}]+[\r\n]*"  # signs, after one space, with the line ends that follow
    r"|\s{1,64}"  # white space: line ends and indentation together
)
"""Regex that cuts text into pieces. It names code points, not Unicode properties: those grow with each version of
Unicode, engines carry different versions (two of them disagreed on 17,559 code points), and an ID format must not move.
What is no white space, digit or sign here is a letter, so that scripts to come are words. It has no look-ahead: no
text is too long for it."""

_BLOCK_CHARACTERS = 1 << 20


def train_bpe(
    texts: Iterable[str | os.PathLike[str]],
    vocab_size: int,
    *,
    pattern: str = DEFAULT_PATTERN,
    name: str = "text",
) -> TextBpe:
    r"""Learn a byte-level BPE vocabulary.

    Ids 0 to 255 are the bytes, in their order; the others are merges, in the order they were learned.

    Args:
        texts: A str is a text; a path is a UTF-8 file, read in blocks that end at a line's end.
        vocab_size: Number of ids, more than 256.
        pattern: Regex that cuts text into the pieces that tokens never cross; it has to match all of any text.
        name: Name inside a vocabulary.
    Raises:
        SpecError: `vocab_size` is 256 or below, the texts do not hold so many different pairs to merge, or `pattern`
            is no regex.
        InputError: A file is not UTF-8, or an item is neither str nor path.
        MissingExtraError: The installed `tokenizers` cannot train (1.0 pre-releases cannot).
    Source:
        Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units".
    """
    if vocab_size <= 256:
        raise SpecError(f"vocab_size={vocab_size}: the 256 bytes come first, so give more than 256")
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise MissingExtraError(
            "training a BPE needs a release of tokenizers that can train: pip install 'tokenizers>=0.22,<1'"
        ) from error

    letters = byte_letters()
    try:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception as error:  # the library raises bare Exception
        raise SpecError(f"pattern {pattern[:60]!r} is no regex: {error}") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=letters, special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(_blocks(texts), trainer)

    byte_of = {letter: byte for byte, letter in enumerate(letters)}
    vocab: dict[str, int] = json.loads(tokenizer.to_str())["model"]["vocab"]
    merged = sorted((text for text in vocab if len(text) > 1), key=vocab.__getitem__)
    tokens = [bytes([byte]) for byte in range(256)] + [bytes(byte_of[c] for c in text) for text in merged]
    if len(tokens) != vocab_size:
        raise SpecError(
            f"vocab_size={vocab_size}, but the texts give {len(tokens)} tokens before no pair is left to merge: "
            "give more text or a smaller vocab_size"
        )
    return TextBpe.from_tokens(tokens, pattern=pattern, name=name)


def _blocks(texts: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    for item in texts:
        if isinstance(item, str):
            yield item
        elif isinstance(item, os.PathLike):
            yield from _file_blocks(Path(item))
        else:
            raise InputError(f"a text of type {type(item).__name__}: give a str, or the path of a UTF-8 file")


def _file_blocks(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        try:
            # readline ends the block at a line's end; a file without line ends is cut where the block is full.
            while block := file.read(_BLOCK_CHARACTERS):
                yield block + file.readline(_BLOCK_CHARACTERS)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: {error.reason}; convert it first") from error
