"""Vocabulary files of byte-level BPE: `.tiktoken` ranks and `tokenizer.json`, read without changing an id.

A `tokenizer.json` lists pairs to merge; a rank BPE merges any pair whose joined bytes are a token. They agree on every
text if and only if, for each token, the listed merges applied to the token's own bytes

    end in the token itself, by a last merge that stands in the list where the token's id says; or
    end in three parts or more, so that no pair ever joins to that token.

(What happens inside a stretch of bytes that ends up as one token does not depend on its surroundings.) A token of the
second sort is found only as a whole piece, and only where the file says `ignore_merges`; elsewhere it is no token.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multitok.errors import MediaError, SpecError
from multitok.tokenizers._bpe_engines import byte_letters, last_merge

# What the ByteLevel pre-tokenizer of a tokenizer.json splits by when it is not given a Split of its own (GPT-2's).
BYTE_LEVEL_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def read_tiktoken(path: Path) -> list[bytes]:
    """Tokens in the order of their ranks; b"" for a rank that the file leaves out.

    Raises:
        MediaError: A line is no base64 and rank, or a rank or token is there twice.
    """
    ranks: dict[int, bytes] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            code = int(rank)
            if code < 0 or code in ranks:
                raise ValueError(f"rank {code} is negative or given twice")
            ranks[code] = base64.b64decode(token, validate=True)
        except (ValueError, binascii.Error) as error:
            raise MediaError(f"{path}, line {number}: give base64 of the token, a space, its rank ({error})") from error
    if not ranks:
        raise MediaError(f"{path} holds no ranks")
    if max(ranks) >= 4 * len(ranks) + 1024:
        raise MediaError(f"{path}: {len(ranks)} ranks up to {max(ranks)}; most ids would be no token")
    return [ranks.get(code, b"") for code in range(max(ranks) + 1)]


def tiktoken_ranks(tokens: Sequence[bytes]) -> bytes:
    """The bytes of a `.tiktoken` file."""
    return b"".join(b"%s %d\n" % (base64.b64encode(token), code) for code, token in enumerate(tokens) if token)


def read_tokenizer_json(path: Path) -> tuple[list[bytes], str]:
    """Tokens in the order of their ids, b"" for special tokens and unused ids, and the pattern.

    Raises:
        MediaError: The file is no `tokenizer.json`.
        SpecError: It does what a rank BPE cannot do exactly.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        model = data["model"]
        vocab: dict[str, int] = dict(model["vocab"])
        listed = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        added = [(entry["content"], entry["id"], entry["special"]) for entry in data.get("added_tokens") or []]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MediaError(f"{path} is no tokenizer.json of a BPE model: {type(error).__name__} {error}") from error
    _refuse_other_models(path, data, model)
    plain = [content for content, _, special in added if not special]
    if plain:
        raise SpecError(
            f"{path} finds {plain[:3]} in any text before BPE; a rank BPE cannot: remove these added tokens"
        )

    byte_of = {letter: bytes([byte]) for byte, letter in enumerate(byte_letters())}
    special = {content for content, _, _ in added}
    try:
        spelled = {text: b"".join([byte_of[c] for c in text]) for text in vocab if text not in special}
        merges = {(spelled[left], spelled[right]): place for place, (left, right) in enumerate(listed)}
    except (KeyError, ValueError) as error:
        raise SpecError(f"{path} is not byte-level: {error} is no token, or spells no bytes") from error
    size = max([*vocab.values(), *(code for _, code, _ in added)]) + 1
    tokens = [b""] * size
    for text, token in spelled.items():
        tokens[vocab[text]] = token
    _drop_unreachable(path, tokens, merges, bool(model.get("ignore_merges")))
    return tokens, _pattern(path, data.get("pre_tokenizer"))


def _drop_unreachable(
    path: Path, tokens: list[bytes], merges: Mapping[tuple[bytes, bytes], int], ignore_merges: bool
) -> None:
    """Check that ranks say what the merges say; empty the tokens that merging never makes."""
    last = -1
    for code, token in enumerate(tokens):
        if len(token) < 2:
            continue
        parts = last_merge(token, lambda left, right: merges.get((left, right)))
        place = merges.get((parts[0], parts[1])) if len(parts) == 2 else None
        if place is not None and place <= last:
            raise SpecError(f"{path}: token {token!r} has id {code}, but its merge comes earlier than its id says")
        if place is None and ignore_merges and len(parts) == 2:
            raise SpecError(f"{path}: {parts[0]!r} and {parts[1]!r} join to id {code}, but no merge is listed for it")
        if place is not None:
            last = place
        elif not ignore_merges:
            tokens[code] = b""


def _refuse_other_models(path: Path, data: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    found = [f"the model {model['type']}"] if model.get("type", "BPE") != "BPE" else []
    found += ["a normalizer"] if data.get("normalizer") is not None else []
    found += [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    found += ["byte_fallback"] if model.get("byte_fallback") else []
    if found:
        raise SpecError(f"{path} uses {', '.join(found)}: only plain byte-level BPE keeps its ids here")


def _pattern(path: Path, pre_tokenizer: Mapping[str, Any] | None) -> str:
    steps = [pre_tokenizer] if pre_tokenizer else []
    if pre_tokenizer and pre_tokenizer.get("type") == "Sequence":
        steps = list(pre_tokenizer["pretokenizers"])
    kinds = [str(step.get("type")) for step in steps]
    if kinds in (["ByteLevel"], ["Split", "ByteLevel"]) and not steps[-1].get("add_prefix_space", True):
        own = steps[-1].get("use_regex", True)
        split = steps[0]
        if kinds == ["ByteLevel"] and own:
            return BYTE_LEVEL_PATTERN
        if len(kinds) == 2 and not own and split["behavior"] == "Isolated" and not split["invert"]:
            regex = split["pattern"].get("Regex")
            if regex:
                return str(regex)
    raise SpecError(
        f"{path} splits text by {' + '.join(kinds) or 'nothing'} with settings that one regex cannot stand for: only "
        "ByteLevel without a prefix space, alone or after one isolating Split by a regex, keeps its ids here"
    )
