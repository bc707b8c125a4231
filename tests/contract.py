"""The contract every tokenizer must pass, shipped or plugged in: `check_tokenizer(tokenizer, raws)`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multitok
from multitok.errors import CodeRangeError, ShapeError
from multitok.protocol import Codes, Tokenizer, TokenizerSpec, Waveform


def check_tokenizer(tokenizer: Tokenizer[Any], raws: Sequence[Any], tmp_path: Path) -> None:
    """Assert everything that `multitok.protocol` promises, on raw items of at least two sizes."""
    assert isinstance(tokenizer, Tokenizer)
    assert len(raws) >= 2
    before = [_frozen(raw) for raw in raws]
    codes = [tokenizer.encode(raw) for raw in raws]
    assert all(same_raw(now, then) for now, then in zip(raws, before, strict=True)), "encode changed its input"

    _check_spec(tokenizer)
    _check_codes(tokenizer, codes)
    _check_batches(tokenizer, raws, codes)
    _check_round_trip(tokenizer, raws, codes)
    _check_state(tokenizer, raws, codes, tmp_path)
    _check_refusals(tokenizer, codes[0])


def _check_spec(tokenizer: Tokenizer[Any]) -> None:
    spec = tokenizer.spec
    assert TokenizerSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def _check_codes(tokenizer: Tokenizer[Any], codes: Sequence[Codes]) -> None:
    for item in codes:
        tokenizer.spec.check(item)
        counted = tokenizer.num_tokens(item.extent)
        assert counted in (None, item.num_tokens), f"counted {counted}, encoded {item.num_tokens}"
    known = [tokenizer.num_tokens(item.extent) is None for item in codes]
    assert len(set(known)) == 1, "num_tokens is None for some extents only"


def _check_batches(tokenizer: Tokenizer[Any], raws: Sequence[Any], codes: Sequence[Codes]) -> None:
    assert tokenizer.encode_batch(list(raws)) == list(codes)
    assert tokenizer.encode_batch(list(reversed(raws))) == list(reversed(codes))
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.decode_batch([]) == []
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(tokenizer.encode, [*raws, *raws])) == [*codes, *codes]


def _check_round_trip(tokenizer: Tokenizer[Any], raws: Sequence[Any], codes: Sequence[Codes]) -> None:
    decoded = [tokenizer.decode(item) for item in codes]
    assert all(map(same_raw, tokenizer.decode_batch(list(codes)), decoded))
    for raw, back in zip(raws, decoded, strict=True):
        if tokenizer.spec.lossless:
            assert same_raw(raw, back), "lossless, but decode(encode(raw)) differs"
        else:
            assert type(back) is type(raw)
            if isinstance(back, np.ndarray):
                assert (back.shape, back.dtype) == (raw.shape, raw.dtype)
            if isinstance(back, Waveform):
                assert back.sample_rate_hz == tokenizer.spec.sample_rate_hz
                assert np.isfinite(back.samples).all()


def _check_state(tokenizer: Tokenizer[Any], raws: Sequence[Any], codes: Sequence[Codes], tmp_path: Path) -> None:
    config = json.loads(json.dumps(tokenizer.get_config(), allow_nan=False))
    rebuilt = type(tokenizer).from_state(config, tokenizer.get_tensors())
    assert rebuilt.spec == tokenizer.spec
    assert rebuilt.encode(raws[0]) == codes[0]
    loaded = multitok.load(multitok.save(tokenizer, tmp_path / "saved", card="# card\n"))
    assert loaded.spec == tokenizer.spec
    assert loaded.encode_batch(list(raws)) == list(codes)
    assert multitok.fingerprint(loaded) == multitok.fingerprint(rebuilt) == multitok.fingerprint(tokenizer)
    renamed = multitok.load(tmp_path / "saved", name="renamed")
    assert renamed.spec.name == "renamed"
    assert multitok.fingerprint(renamed) == multitok.fingerprint(tokenizer)


def _check_refusals(tokenizer: Tokenizer[Any], codes: Codes) -> None:
    for k, size in enumerate(tokenizer.spec.codebook_sizes):
        for bad in (-1, size):
            values = codes.values.copy()
            values[k].flat[-1] = bad
            with pytest.raises(CodeRangeError, match=str(bad)):
                tokenizer.decode(Codes(values, codes.extent))
    with pytest.raises(ShapeError):
        tokenizer.decode(Codes(np.concatenate([codes.values, codes.values[:1]]), codes.extent))
    with pytest.raises(ShapeError):
        tokenizer.decode(Codes(codes.values[..., None], (*codes.extent, 1)))


def same_raw(left: Any, right: Any) -> bool:
    """Whether two raw items of any modality are equal, NaN equal to NaN."""
    if isinstance(left, Waveform):
        return left.sample_rate_hz == right.sample_rate_hz and np.array_equal(left.samples, right.samples)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
    return bool(left == right)


def _frozen(raw: Any) -> Any:
    if isinstance(raw, Waveform):
        return Waveform(raw.samples.copy(), raw.sample_rate_hz)
    return raw.copy() if isinstance(raw, np.ndarray) else raw
