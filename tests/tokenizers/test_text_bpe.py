"""BPE: both engines equal a slow reference, every text survives, no text is special, files keep their ids."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import multitok
from multitok.errors import CodeRangeError, InputError, MediaError, SpecError
from multitok.protocol import Codes
from multitok.tokenizers.text_bpe import TextBpe
from multitok.train.bpe import DEFAULT_PATTERN

BYTES = [bytes([byte]) for byte in range(256)]
ANY = r"[\s\S]+"
PHRASES = [
    "def ",
    "the ",
    "été ",
    "東京",
    "\r\n",
    "    ",
    "\t",
    "1234",
    "👩\u200d👧",
    "<|endoftext|>",
    "'ll",
    "_x",
    "...",
    "\x00",
]
TEXTS = st.one_of(
    st.text(),
    st.text("ab \n1é東\u0301(", max_size=60),
    st.lists(st.sampled_from(PHRASES)).map("".join),
)


@cache
def shipped() -> TextBpe:
    tokenizer = multitok.load("bpe-32k")
    assert isinstance(tokenizer, TextBpe)
    return tokenizer


@cache
def with_engine(engine: str) -> TextBpe:
    return TextBpe.from_tokens(shipped().tokens, pattern=shipped().pattern, engine=engine)  # type: ignore[arg-type]


def small(*merged: bytes, pattern: str = ANY, engine: str = "auto") -> TextBpe:
    return TextBpe.from_tokens([*BYTES, *merged], pattern=pattern, engine=engine)  # type: ignore[arg-type]


def slow_merge(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Join the adjacent pair of lowest rank, leftmost first, until none joins."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        joined = [(ranks[left + right], i) for i, (left, right) in enumerate(pairwise(parts)) if left + right in ranks]
        if not joined:
            return [ranks[part] for part in parts]
        i = min(joined)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def slow_encode(tokenizer: TextBpe, text: str) -> list[int]:
    ranks = {token: code for code, token in enumerate(tokenizer.tokens) if token}
    # `re` writes code points in another way, and counts U+001C to U+001F as white space.
    spelled = re.sub(r"\\x\{([0-9A-F]+)\}", lambda m: rf"\U{int(m[1], 16):08x}", tokenizer.pattern)
    spelled = spelled.replace(r"[^\s", r"[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000")
    spelled = spelled.replace(r"|\s{", r"|[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]{")
    pieces = [piece.encode() for piece in re.findall(spelled, text)]
    # A piece that is a token is that token, whether merging gets there or not.
    return [code for piece in pieces for code in ([ranks[piece]] if piece in ranks else slow_merge(piece, ranks))]


def ids_of(tokenizer: TextBpe, text: str) -> list[int]:
    return list(tokenizer.encode(text).values[0].tolist())


@pytest.mark.parametrize("engine", ["tiktoken", "tokenizers"])
@given(text=TEXTS)
@settings(deadline=None)
def test_an_engine_equals_the_reference_and_round_trips(engine: str, text: str) -> None:
    tokenizer = with_engine(engine)
    codes = tokenizer.encode(text)
    assert codes.values[0].tolist() == slow_encode(shipped(), text)
    assert codes.extent == (len(text.encode()),)
    assert tokenizer.decode(codes) == text
    assert tokenizer.count(text) == codes.num_tokens


# Vocabularies that no trainer would make: holes, tokens that merging never reaches, ranks out of the order of length.
TOKENS = st.lists(st.text("abc", min_size=2, max_size=5).map(str.encode) | st.just(b""), max_size=25)


@given(tokens=TOKENS, text=st.text("abc", max_size=30))
@settings(deadline=None)
def test_engines_agree_on_any_ranks(tokens: list[bytes], text: str) -> None:
    merged = [token if tokens.index(token) == i else b"" for i, token in enumerate(tokens)]
    expected = slow_encode(small(*merged, pattern="a?[^|]+"), text)
    for engine in ("tiktoken", "tokenizers"):
        assert ids_of(small(*merged, pattern="a?[^|]+", engine=engine), text) == expected


def test_the_shipped_pattern_cuts_every_code_point_alike_in_both_engines() -> None:
    # Tokens across every place where the pattern may or may not cut show where it does.
    first, last = range(256), range(0x80, 0xC0)
    beside = [bytes([ord(a), b]) for a in "a1 " for b in first] + [bytes([b, ord(a)]) for a in "a1 \n" for b in last]
    between = [bytes([a, b]) for a in last for b in range(0xC2, 0xF5)]
    points = [chr(c) for c in [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 97)]]
    texts = ["".join(f"a{c}a{c}{c}1{c} {c}\n" for c in points[i : i + 500]) for i in range(0, len(points), 500)]
    one, other = (
        small(*beside, *between, pattern=DEFAULT_PATTERN, engine=engine).encode_batch_flat(texts)[0]
        for engine in ("tiktoken", "tokenizers")
    )
    assert np.array_equal(one, other)
    assert np.unique(one[one >= 256]).size > 3_000  # tokens across uncut places did occur


def test_no_text_is_special() -> None:
    text = "a<|endoftext|><s></s><|fim_prefix|>"
    for engine in ("tiktoken", "tokenizers"):
        codes = with_engine(engine).encode(text)
        assert codes.num_tokens > 8
        assert with_engine(engine).decode(codes) == text


@pytest.mark.parametrize(
    "text", ["a" * 1_000_000, " " * 1_000_000 + "a", "\n" * 1_000_000, "=" * 1_000_000, "東" * 300_000]
)
def test_a_long_run_of_one_character_is_no_trouble(text: str) -> None:
    assert shipped().decode(shipped().encode(text)) == text


def test_a_text_that_exhausts_one_engine_goes_to_the_other() -> None:
    text = " " * 2_500_000 + "a"
    look_ahead = r"[^\s]+|\s+(?!\S)|\s"
    with pytest.raises(InputError, match=r'2500001 characters exhausts.*use engine="auto"'):
        small(b"  ", pattern=look_ahead, engine="tiktoken").encode(text)
    auto = small(b"  ", pattern=look_ahead)
    assert auto.decode(auto.encode(text)) == text


@given(st.lists(TEXTS, max_size=5))
@settings(deadline=None)
def test_a_flat_batch_equals_one_by_one(texts: list[str]) -> None:
    for batch in (texts, [text.encode() for text in texts]):
        ids, offsets = shipped().encode_batch_flat(batch)
        assert (ids.dtype, offsets.dtype, offsets.size) == (np.uint32, np.int64, len(texts) + 1)
        for i, text in enumerate(texts):
            assert ids[offsets[i] : offsets[i + 1]].tolist() == ids_of(shipped(), text)


def test_input_that_cannot_be_encoded_is_refused_by_position() -> None:
    with pytest.raises(InputError, match=r"lone surrogate U\+DC00 at character 1"):
        shipped().encode("a\udc00")
    with pytest.raises(InputError, match=r"lone surrogate U\+DC00 at character 1"):
        shipped().encode_batch(["fine", "a\udc00"])
    with pytest.raises(InputError, match="byte 0xFF at offset 1 is not UTF-8"):
        shipped().encode_batch_flat([b"a\xff"])
    with pytest.raises(InputError, match="type int"):
        shipped().count(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["tiktoken", "tokenizers"])
def test_a_pattern_that_leaves_text_out_is_refused(engine: str) -> None:
    tokenizer = small(pattern=r"[a-z]+", engine=engine)
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"
    if engine == "tiktoken":  # it drops what the pattern leaves out
        with pytest.raises(InputError, match=r"does not match all of this text.*let the pattern end in"):
            tokenizer.encode("abc 1")
    else:
        assert tokenizer.decode(tokenizer.encode("abc 1")) == "abc 1"


@pytest.mark.parametrize("engine", ["tiktoken", "tokenizers"])
def test_a_broken_pattern_is_refused(engine: str) -> None:
    with pytest.raises(SpecError, match=r"pattern '\(\['"):
        small(pattern="([", engine=engine).encode("a")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(SpecError, match=r"engine='fast': give \"auto\", \"tiktoken\" or \"tokenizers\""):
        small(engine="fast").encode("a")


@given(text=TEXTS)
@settings(deadline=None)
def test_spans_point_at_the_text_of_each_token(text: str) -> None:
    tokenizer, data = shipped(), text.encode()
    tokens = [tokenizer.tokens[code] for code in ids_of(tokenizer, text)]
    in_bytes = tokenizer.spans(text, "bytes")
    assert [data[start:end] for start, end in in_bytes] == tokens
    for (start, end), (first, last) in zip(in_bytes, tokenizer.spans(text), strict=True):
        # The fewest characters that hold the token's bytes.
        assert len(text[:first].encode()) <= start < len(text[: first + 1].encode())
        assert len(text[: last - 1].encode()) < end <= len(text[:last].encode())


def test_spans_in_another_unit_are_refused() -> None:
    with pytest.raises(InputError, match="unit='words'"):
        shipped().spans("a", "words")  # type: ignore[arg-type]


@given(values=st.lists(st.integers(0, 32_767), max_size=30))
@settings(deadline=None)
def test_any_codes_decode_at_once_and_as_a_stream(values: list[int]) -> None:
    codes = Codes(np.array([values], np.int32).reshape(1, -1), (len(values),))
    data = b"".join(shipped().tokens[code] for code in values)
    assert shipped().decode_bytes(codes) == data
    assert shipped().decode(codes, errors="replace") == data.decode("utf-8", "replace")
    stream = shipped().stream_decoder(errors="replace")
    assert "".join(map(stream.push, values)) + stream.finish() == data.decode("utf-8", "replace")


def test_broken_codes_are_refused() -> None:
    with pytest.raises(InputError, match="byte 0xFF at offset 1"):
        shipped().decode(Codes(np.array([[97, 255]]), (2,)))
    with pytest.raises(CodeRangeError, match="codes from 32768 to 32768: 'text' has 0 to 32767"):
        shipped().stream_decoder().push(32_768)


def test_it_pickles_as_its_vocabulary_and_works_in_threads_and_forks() -> None:
    tokenizer, texts = small(b"ab", b"abc", engine="tokenizers"), ["abc ab", "été 東京", ""] * 20
    expected = tokenizer.encode_batch(texts)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert multitok.fingerprint(again) == multitok.fingerprint(tokenizer)
    assert again.encode_batch(texts) == expected
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pickle.loads(pickle.dumps(tokenizer)).encode, texts)) == expected
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as workers:
            assert workers.map(tokenizer.encode, texts) == expected


def test_the_shipped_vocabulary_is_whole() -> None:
    tokenizer = shipped()
    assert tokenizer.spec.codebook_sizes == (32_768,)
    assert list(tokenizer.tokens[:256]) == BYTES
    assert tokenizer.pattern == DEFAULT_PATTERN
    ranks = {token: code for code, token in enumerate(tokenizer.tokens)}
    unreachable = [code for code, token in enumerate(tokenizer.tokens) if slow_merge(token, ranks) != [code]]
    assert unreachable == []


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (BYTES[:200], "56 of the 256 bytes are no tokens .the first is 0xC8"),
        ([*BYTES, b"ab", b"ab"], r"token b'ab' has the ids \[256, 257\]"),
        ([], r"give int64 \[V \+ 1\]"),
    ],
)
def test_vocabularies_that_cannot_be_are_refused(tokens: list[bytes], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        TextBpe.from_tokens(tokens, pattern=ANY)


@pytest.mark.parametrize(
    ("token_bytes", "token_offsets", "message"),
    [
        (np.arange(256, dtype=np.int64), np.arange(257), "token_bytes of shape"),
        (np.arange(256, dtype=np.uint8), np.arange(257, dtype=np.int32), r"token_offsets of shape \[257\], int32"),
        (np.arange(256, dtype=np.uint8), np.arange(256), "must rise from 0 to the 256 bytes"),
        (np.arange(256, dtype=np.uint8), np.arange(257)[::-1].copy(), "must rise from 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(token_bytes: np.ndarray, token_offsets: np.ndarray, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        TextBpe(token_bytes=token_bytes, token_offsets=token_offsets, pattern=ANY)


# Files.


def test_a_tiktoken_file_keeps_its_ranks(tmp_path: Path) -> None:
    tokenizer = small(b"ab", b"", b"abc", b"\xe6\x9d", pattern=ANY)
    tokenizer.to_tiktoken(tmp_path / "small.tiktoken")
    assert (tmp_path / "small.tiktoken").read_bytes().splitlines()[255:] == [
        b"/w== 255",
        b"YWI= 256",
        b"YWJj 258",
        b"5p0= 259",
    ]
    again = TextBpe.from_tiktoken(tmp_path / "small.tiktoken", pattern=ANY)
    assert again.tokens == tokenizer.tokens
    assert ids_of(again, "abcab") == [258, 256]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"YQ== 0\nYg=\n", "line 2: give base64 of the token, a space, its rank"),
        (b"YQ== 0\n!!!! 1\n", "line 2"),
        (b"YQ== 0\nYg== 0\n", "rank 0 is negative or given twice"),
        (b"YQ== 999999999999\n", "1 ranks up to 999999999999"),
        (b"\n", "holds no ranks"),
    ],
)
def test_a_broken_tiktoken_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.tiktoken"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message):
        TextBpe.from_tiktoken(path, pattern=ANY)


@given(tokens=TOKENS, texts=st.lists(st.text("abc", max_size=30), min_size=1, max_size=5), ignore=st.booleans())
@settings(deadline=None)
def test_a_tokenizer_json_gives_the_ids_that_its_library_gives(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[bytes], texts: list[str], ignore: bool
) -> None:
    from tokenizers import Tokenizer

    path = tmp_path_factory.mktemp("json") / "tokenizer.json"
    merged = [token if tokens.index(token) == i else b"" for i, token in enumerate(tokens)]
    small(*merged, pattern="a?[^|]+").to_tokenizer_json(path)
    data = json.loads(path.read_text())
    # Without `ignore_merges`, tokens that merging does not reach are never found.
    data["model"]["ignore_merges"] = ignore
    path.write_text(json.dumps(data))
    theirs, ours = Tokenizer.from_file(str(path)), TextBpe.from_tokenizer_json(path)
    for text in texts:
        assert ids_of(ours, text) == theirs.encode(text).ids


def json_of(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "tokenizer.json"
    small(b"ab", b"abc").to_tokenizer_json(path)
    data = json.loads(path.read_text())
    for key, value in changes.items():
        whole, _, part = key.partition("__")
        if part:
            data[whole][part] = value
        else:
            data[whole] = value
    path.write_text(json.dumps(data))
    return path


def test_special_tokens_of_a_tokenizer_json_become_ids_that_no_text_gives(tmp_path: Path) -> None:
    added = {"content": "<s>", "id": 260, "special": True}
    tokenizer = TextBpe.from_tokenizer_json(json_of(tmp_path, added_tokens=[added]))
    assert tokenizer.spec.codebook_sizes == (261,)
    assert ids_of(tokenizer, "abc<s>") == [257, *b"<s>"]
    assert tokenizer.decode(Codes(np.array([[97, 260, 98]]), (2,))) == "ab"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": {"type": "NFC"}}, "uses a normalizer"),
        ({"model__type": "Unigram"}, "uses the model Unigram"),
        ({"model__dropout": 0.1}, "uses dropout"),
        ({"model__byte_fallback": True}, "uses byte_fallback"),
        ({"pre_tokenizer": None}, "splits text by nothing"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "splits text by Metaspace"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "splits text by ByteLevel"),
        ({"added_tokens": [{"content": "  ", "id": 258, "special": False}]}, r"finds \['  '\] in any text"),
        ({"model__merges": [["ab", "c"], ["a", "b"]]}, "token b'abc' has id 257, but its merge comes earlier"),
        ({"model__merges": [["a", "b"]]}, "b'ab' and b'c' join to id 257, but no merge is listed"),
        ({"model__merges": [["a", "zz"]]}, "is not byte-level"),
    ],
)  # fmt: skip
def test_a_tokenizer_json_that_ranks_cannot_express_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        TextBpe.from_tokenizer_json(json_of(tmp_path, **changes))


def test_byte_level_alone_brings_its_own_pattern(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    pre_tokenizer = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    path = json_of(tmp_path, pre_tokenizer=pre_tokenizer)
    text = "abc's  ab\n\n cab123"
    assert ids_of(TextBpe.from_tokenizer_json(path), text) == Tokenizer.from_file(str(path)).encode(text).ids


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": {"vocab": [], "merges": 3}}', '{"model": null}'])
def test_a_file_that_is_no_tokenizer_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(MediaError, match=r"is no tokenizer\.json of a BPE model"):
        TextBpe.from_tokenizer_json(tmp_path / "tokenizer.json")
