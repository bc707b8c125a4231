"""ID layouts of published models, built from generic tokenizers: no weights are needed to count or to map IDs.

Each function takes the tokenizers (or their entries, see `TokenizerEntry`) whose codes fill the blocks, checks
their sizes against the published ones, and returns a `Vocabulary`. `multitok.interleave.presets` has the
templates that go with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from multitok.errors import VocabularyError
from multitok.protocol import Tokenizer
from multitok.vocabulary.blocks import Block, TokenizerEntry
from multitok.vocabulary.core import Vocabulary

CHAMELEON_IMAGE_CODES = 8_192

_CHAMELEON_SPECIAL = re.compile(r"<(s|pad|/s|unk|racm3:break|eoss|image|reserved\d+)>")
_CHAMELEON_IMAGE = re.compile(r"IMGIMG([A-J]+)Z")


def emu3(text: Tokenizer[Any] | TokenizerEntry | str, image: Tokenizer[Any] | TokenizerEntry | str) -> Vocabulary:
    """Emu3's 184,622 IDs.

        0 .. 151,642        text (the BPE ranks of Qwen)
        151,643 .. 151,645  <|endoftext|> (pad), <|im_start|>, <|im_end|>
        151,646 .. 151,850  <|extra_0|> .. <|extra_204|>: 200 ends a row, 201 a frame, 203 begins and 204 ends
        151,851 .. 151,853  <|image token|>, <|image start|>, <|image end|>
        151,854 .. 184,621  the 32,768 visual codes

    All of this is public fact; nothing is ours.

    Args:
        text: One codebook of 151,643 codes.
        image: One codebook of 32,768 codes; a video tokenizer with the same codebook fits too.
    Returns:
        The vocabulary.
    Raises:
        VocabularyError: A codebook of another size.
    Source:
        Wang et al. 2024, "Emu3: Next-Token Prediction is All You Need"; configuration_emu3.py and
        tokenization_emu3.py of the released code.
    """
    words = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
    specials = (*words, "<|image token|>", "<|image start|>", "<|image end|>")
    entries = [_entry("Emu3", text, (151_643,)), _entry("Emu3", image, (32_768,))]
    return _in_a_row([entries[0], specials, entries[1]])


def anygpt(
    text: Tokenizer[Any] | TokenizerEntry | str,
    image: Tokenizer[Any] | TokenizerEntry | str,
    speech: Tokenizer[Any] | TokenizerEntry | str,
    music: Tokenizer[Any] | TokenizerEntry | str,
) -> Vocabulary:
    """AnyGPT's 49,418 IDs.

        0 .. 31,999        text (LLaMA 2's, whose codes 0, 1, 2 are <unk>, <s>, </s>)
        32,000 .. 32,003   [Human], [MMGPT], <eoh>, <eos>
        32,004 .. 40,197   8,192 image codes, then <soim>, <eoim>
        40,198 .. 41,223   1,024 speech codes, then <sosp>, <eosp>
        41,224 .. 49,417   4 x 2,048 music codes, then <somu>, <eomu>

    Sizes, order of the blocks and the music codebooks' order are public fact: the training script adds the tokens
    in this order to LLaMA's. The released chat model may hold further tokens behind these; extend adds them.

    Args:
        text: One codebook of 32,000 codes.
        image: One codebook of 8,192 codes.
        speech: One codebook of 1,024 codes.
        music: Four codebooks of 2,048 codes.
    Returns:
        The vocabulary.
    Raises:
        VocabularyError: A codebook of another size.
    Source:
        Zhan et al. 2024, "AnyGPT: Unified Multimodal LLM with Discrete Sequence Modeling"; anything2token.py and
        stage1_pretrain.py of the released code.
    """
    return _in_a_row(
        [
            _entry("AnyGPT", text, (32_000,)),
            ("[Human]", "[MMGPT]", "<eoh>", "<eos>"),
            _entry("AnyGPT", image, (8_192,)),
            ("<soim>", "<eoim>"),
            _entry("AnyGPT", speech, (1_024,)),
            ("<sosp>", "<eosp>"),
            _entry("AnyGPT", music, (2_048,) * 4),
            ("<somu>", "<eomu>"),
        ]
    )


def chameleon(
    text: Tokenizer[Any] | TokenizerEntry | str,
    image: Tokenizer[Any] | TokenizerEntry | str,
    token_ids: Mapping[str, int],
) -> Vocabulary:
    """Chameleon's IDs: image codes scattered over the BPE vocabulary, found by their tokens' names.

    Public fact: the BPE token of image code 1,234 is named IMGIMGBCDEZ, each digit a letter from A to J; images
    stand between <racm3:break> and <eoss>; names such as <s>, <pad>, <reserved08706> are special tokens.
    Ours: the other tokens, in ascending order of their IDs, are the text codes 0, 1, 2, ...

    Args:
        text: One codebook, as many codes as tokens are neither special nor image.
        image: One codebook of 8,192 codes.
        token_ids: ID of each token, as in the checkpoint's vocabulary file.
    Returns:
        The vocabulary.
    Raises:
        VocabularyError: An image code without a token, or a codebook of another size.
    Source:
        Chameleon Team 2024, "Chameleon: Mixed-Modal Early-Fusion Foundation Models"; vocab.py of the released code.
    """
    specials: dict[str, int] = {}
    image_ids: dict[int, int] = {}
    text_ids: list[int] = []
    for token, i in token_ids.items():
        match = _CHAMELEON_IMAGE.fullmatch(token)
        if match is not None:
            image_ids[int("".join(str(ord(letter) - ord("A")) for letter in match[1]))] = i
        elif _CHAMELEON_SPECIAL.fullmatch(token):
            specials[token] = i
        else:
            text_ids.append(i)
    missing = [code for code in range(CHAMELEON_IMAGE_CODES) if code not in image_ids]
    if missing or len(image_ids) != CHAMELEON_IMAGE_CODES:
        raise VocabularyError(
            f"token_ids has IMGIMG tokens of {len(image_ids)} image codes, Chameleon has {CHAMELEON_IMAGE_CODES}"
            + (f"; code {missing[0]} is missing" if missing else "")
            + ": give the whole vocabulary of the checkpoint"
        )
    words = _entry("Chameleon", text, (len(text_ids),))
    pictures = _entry("Chameleon", image, (CHAMELEON_IMAGE_CODES,))
    blocks = (
        _block(words.name, sorted(text_ids)),
        _block(pictures.name, [image_ids[code] for code in range(CHAMELEON_IMAGE_CODES)]),
    )
    return Vocabulary(
        {words.name: words, pictures.name: pictures}, specials, blocks, vocab_size=max(token_ids.values()) + 1
    )


def _entry(model: str, tokenizer: Tokenizer[Any] | TokenizerEntry | str, sizes: tuple[int, ...]) -> TokenizerEntry:
    entry = TokenizerEntry.of(tokenizer)
    if entry.spec.codebook_sizes != sizes:
        raise VocabularyError(
            f"tokenizer {entry.name!r} has codebooks of {entry.spec.codebook_sizes} codes, {model}'s layout takes "
            f"{sizes}"
        )
    return entry


def _block(name: str, ids: Sequence[int]) -> Block:
    if list(ids) == list(range(ids[0], ids[0] + len(ids))):
        return Block(name, 0, len(ids), start=ids[0])
    return Block(name, 0, len(ids), lookup=tuple(ids))


def _in_a_row(parts: Sequence[TokenizerEntry | tuple[str, ...]]) -> Vocabulary:
    """The vocabulary whose IDs are these parts, one after the other without gaps."""
    entries: dict[str, TokenizerEntry] = {}
    specials: dict[str, int] = {}
    blocks: list[Block] = []
    at = 0
    for part in parts:
        if isinstance(part, TokenizerEntry):
            if part.name in entries:
                raise VocabularyError(f"two tokenizers named {part.name!r}: give each its own name")
            entries[part.name] = part
            for codebook, size in enumerate(part.spec.codebook_sizes):
                blocks.append(Block(part.name, codebook, size, start=at))
                at += size
        else:
            specials |= {token: at + i for i, token in enumerate(part)}
            at += len(part)
    return Vocabulary(entries, specials, tuple(blocks), at)
