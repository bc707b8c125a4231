"""EnCodec, DAC, Mimi and X-Codec2 against transformers: codes, sound, frames, chunks, loudness; and the contract."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import Xcodec2FeatureExtractor

import multitok
from multitok.errors import CheckpointError, InputError, MissingExtraError, ShapeError, SpecError
from multitok.frontend.kaldi_fbank import kaldi_fbank
from multitok.metrics import LevelDroppable, decode_prefix
from multitok.protocol import Codes, Waveform
from tests.contract import check_tokenizer
from tests.tokenizers.adapters.audio import small


class Case(NamedTuple):
    """A published format and what it promises."""

    kind: str
    make: Callable[[], Any]
    sample_rate_hz: int
    channels: int
    frame_rate: Fraction
    num_codebooks: int


CASES = {
    "encodec-24khz": Case("encodec", lambda: small.encodec("24khz"), 24_000, 1, Fraction(75), 4),
    "encodec-48khz": Case("encodec", lambda: small.encodec("48khz"), 48_000, 2, Fraction(150 * 48_000, 47_520), 4),
    "encodec-32khz": Case("encodec", lambda: small.encodec("32khz"), 32_000, 1, Fraction(50), 4),
    "dac-16khz": Case("dac", lambda: small.dac("16khz"), 16_000, 1, Fraction(50), 4),
    "dac-44khz": Case("dac", lambda: small.dac("44khz"), 44_100, 1, Fraction(44_100, 512), 4),
    "mimi": Case("mimi", small.mimi, 24_000, 1, Fraction(25, 2), 4),
    "xcodec2": Case("xcodec2", small.xcodec2, 16_000, 1, Fraction(50), 1),
}
Loaded = tuple[Case, Any, Any, Path]


@pytest.fixture(scope="module")
def all_loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    found = {}
    for key, case in CASES.items():
        model = case.make()
        folder = small.folder(model, tmp_path_factory.mktemp(key) / "published")
        found[key] = (case, model, multitok.load(folder, kind=case.kind), folder)
    return found


@pytest.fixture(params=CASES)
def loaded(request: pytest.FixtureRequest, all_loaded: dict[str, Loaded]) -> Loaded:
    return all_loaded[request.param]


def published_codes(case: Case, model: Any, samples: torch.Tensor) -> torch.Tensor:
    """Codes [K, F] as transformers makes them for one clip [1, C, N], in its own preprocessing."""
    with torch.no_grad():
        if case.kind == "encodec":
            found = model.encode(samples, bandwidth=model.config.target_bandwidths[-1])
            chunks = list(found.audio_codes[:, 0])
            cut = found.last_frame_pad_length or 0
            chunks[-1] = chunks[-1][:, : chunks[-1].shape[1] - cut]
            return torch.cat(chunks, 1)
        if case.kind == "dac":
            whole = torch.nn.functional.pad(samples, (0, -samples.shape[2] % model.config.hop_length))
            return model.encode(whole).audio_codes[0]
        if case.kind == "mimi":
            return model.encode(samples).audio_codes[0]
        extractor = Xcodec2FeatureExtractor()
        inputs = extractor(samples[0, 0].numpy(), sampling_rate=16_000, return_tensors="pt")
        return model.encode(**inputs).audio_codes[0]


def published_sound(case: Case, model: Any, codes: torch.Tensor) -> torch.Tensor:
    """Samples [C, M] as transformers makes them from the codes of one chunk."""
    with torch.no_grad():
        if case.kind == "encodec":
            return model.decode(codes[None, None], [None]).audio_values[0]
        if case.kind == "dac":
            return model.decode(audio_codes=codes[None]).audio_values
        return model.decode(codes[None]).audio_values[0].reshape(1, -1)


def test_what_the_codes_look_like(loaded: Loaded) -> None:
    case, model, tokenizer, _ = loaded
    loudness = tokenizer.spec.codebook_sizes[0] == 1024
    assert (tokenizer.spec.kind, tokenizer.spec.name) == (case.kind, "audio")
    assert tokenizer.spec.sample_rate_hz == case.sample_rate_hz
    assert (tokenizer.channels, tokenizer.frame_rate) == (case.channels, case.frame_rate)
    assert tokenizer.spec.num_codebooks == case.num_codebooks
    assert loudness is bool(getattr(model.config, "normalize", False))
    assert "  " not in repr(tokenizer)


@pytest.mark.parametrize("seconds", [0.4, 0.53])
def test_codes_are_those_of_transformers(loaded: Loaded, seconds: float) -> None:
    case, model, tokenizer, _ = loaded
    raw = small.sound(int(seconds * case.sample_rate_hz), case.sample_rate_hz, case.channels)
    expected = published_codes(case, model, torch.from_numpy(raw.samples)[None])
    codes = tokenizer.encode(raw)
    first = 1 if case == CASES["encodec-48khz"] else 0
    assert np.array_equal(codes.values[first:], expected.numpy())
    # The comparison is about something only where codes differ.
    assert len(np.unique(codes.values)) > 5
    assert codes.extent == (raw.samples.shape[1],)


def test_sound_is_that_of_transformers(loaded: Loaded) -> None:
    case, model, tokenizer, _ = loaded
    if case == CASES["encodec-48khz"]:
        return  # its own test below, with the loudness
    rng = np.random.default_rng(2)
    frames = 20
    num_samples = frames * tokenizer.spec.stride[0] - (1 if case.kind == "xcodec2" else 0)
    values = np.stack([rng.integers(0, size, frames) for size in tokenizer.spec.codebook_sizes])
    expected = published_sound(case, model, torch.from_numpy(values))[:, :num_samples].numpy()
    made = tokenizer.decode(Codes(values, (num_samples,))).samples
    assert made.shape == (1, num_samples)
    assert np.array_equal(made[:, : expected.shape[1]], expected)
    # Where a step is odd, DAC makes 8 samples less than it took: silence.
    assert num_samples - expected.shape[1] == (8 if case == CASES["dac-16khz"] else 0)
    assert not made[:, expected.shape[1] :].any()
    assert made.std() > 1e-3
    short = tokenizer.decode(Codes(values, (num_samples - 7,)))
    assert np.array_equal(short.samples, made[:, : num_samples - 7])


def test_frames_are_counted_exactly(loaded: Loaded) -> None:
    """The number of frames of every length around a frame, a chunk and two, and that its codes decode to it."""
    case, _, tokenizer, _ = loaded
    hop = tokenizer.spec.stride[0]
    lengths = [1, 2, hop - 1, hop, hop + 1, 3 * hop, 3 * hop + 1]
    if case == CASES["encodec-48khz"]:
        lengths = [1, 47_519, 47_520, 47_521, 47_681, 48_001, 95_521]
    one = tokenizer.first_codebooks(1)
    for length in lengths:
        codes = one.encode(small.sound(length, case.sample_rate_hz, case.channels))
        assert one.num_tokens((length,)) == codes.num_tokens
        made = one.decode(codes)
        assert made.samples.shape == (case.channels, length)
        assert np.isfinite(made.samples).all()


def test_first_codebooks_are_the_first_rows(loaded: Loaded) -> None:
    case, _, tokenizer, _ = loaded
    raw = small.sound(case.sample_rate_hz // 6, case.sample_rate_hz, case.channels)
    codes = tokenizer.encode(raw)
    assert isinstance(tokenizer, LevelDroppable)
    assert tokenizer.level_droppable
    for count in range(1, case.num_codebooks + 1):
        few = tokenizer.first_codebooks(count)
        assert few.module is tokenizer.module
        assert np.array_equal(few.encode(raw).values, codes.values[:count])
        sound = few.decode(few.encode(raw)).samples
        assert np.array_equal(tokenizer.decode(codes, num_codebooks=count).samples, sound)
        assert np.array_equal(decode_prefix(tokenizer, codes, count).samples, sound)
        assert few.get_config()["num_codebooks"] == count
        assert type(few).from_state(few.get_config(), few.get_tensors()).spec == few.spec
    for bad in (0, case.num_codebooks + 1):
        with pytest.raises(SpecError, match=rf"first_codebooks\({bad}\)"):
            tokenizer.first_codebooks(bad)


def test_bitrates_are_numbers_of_codebooks(all_loaded: dict[str, Loaded]) -> None:
    """At 48 kHz as in EnCodec: the codebook of the loudness and the frames that overlap are not counted."""
    for key, rates in {"encodec-24khz": {450: 1, 899: 1, 900: 2, 1800: 4, 9e9: 4}, "mimi": {75: 1, 299: 3}}.items():
        tokenizer = all_loaded[key][2]
        assert {bps: tokenizer.at_bitrate(bps).spec.num_codebooks for bps in rates} == rates
        assert tokenizer.at_bitrate(450).bitrate_bps <= 450
        with pytest.raises(SpecError, match="bits per second or more"):
            tokenizer.at_bitrate(10)
    stereo = all_loaded["encodec-48khz"][2]
    model = all_loaded["encodec-48khz"][1]
    for kilobits in model.config.target_bandwidths:
        levels = model.quantizer.get_num_quantizers_for_bandwidth(kilobits)
        assert stereo.at_bitrate(1000 * kilobits).spec.num_codebooks == 1 + levels


def test_the_contract(loaded: Loaded, tmp_path: Path) -> None:
    case, _, tokenizer, _ = loaded
    rate = case.sample_rate_hz
    raws = [small.sound(n, rate, case.channels, seed=n) for n in (rate // 6 + 7, 1)]
    check_tokenizer(tokenizer, [*raws, small.sound(900, 8_000)], tmp_path)


def test_a_batch_of_one_length_equals_single_clips_and_padding_would_not(all_loaded: dict[str, Loaded]) -> None:
    """DAC has no mask: why a batch is a loop here."""
    case, model, tokenizer, _ = all_loaded["dac-16khz"]
    hop = model.config.hop_length
    clips = [small.sound(n * hop, case.sample_rate_hz, seed=n) for n in (30, 15, 15)]
    singles = [tokenizer.encode(clip) for clip in clips]
    assert tokenizer.encode_batch(clips) == singles
    padded = torch.zeros(2, 1, 30 * hop)
    for row, clip in zip(padded, clips, strict=False):
        row[:, : clip.samples.shape[1]] = torch.from_numpy(clip.samples)
    with torch.no_grad():
        codes = model.encode(padded).audio_codes.numpy()
    differ = (codes[1, :, :15] != singles[1].values).any(0)
    assert differ.any()
    assert not differ[:8].any()


# EnCodec at 48 kHz.


def test_loudness_is_a_codebook(all_loaded: dict[str, Loaded]) -> None:
    _, model, tokenizer, _ = all_loaded["encodec-48khz"]
    raw = small.sound(60_000, 48_000, 2)
    codes = tokenizer.encode(raw)
    grid = [150, 39]
    assert codes.grid == (sum(grid),)
    chunks = [raw.samples[:, :48_000], raw.samples[:, 47_520:]]
    for chunk, begin, end in zip(chunks, (0, 150), (150, 189), strict=True):
        scale = math.sqrt(np.mean(chunk.mean(axis=0, dtype=np.float64) ** 2))
        step = round((20 * math.log10(scale) + 108) * 8)
        assert set(codes.values[0, begin:end].tolist()) == {step}
    with torch.no_grad():
        samples = torch.from_numpy(raw.samples)[None]
        found = model.encode(samples, bandwidth=2.7)
        exact = model.decode(
            found.audio_codes, found.audio_scales, last_frame_pad_length=found.last_frame_pad_length
        ).audio_values[0, :, :60_000]
        steps = [10 ** ((int(codes.values[0, at]) / 8 - 108) / 20) for at in (0, 150)]
        rounded = model.decode(
            found.audio_codes,
            [torch.tensor([[step]], dtype=torch.float32) for step in steps],
            last_frame_pad_length=found.last_frame_pad_length,
        ).audio_values[0, :, :60_000]
    made = tokenizer.decode(codes).samples
    assert np.array_equal(made, rounded.numpy())
    # 1/16 dB at most.
    assert np.abs(made - exact.numpy()).max() <= 0.008 * exact.abs().max()


def test_loudness_of_silence_and_of_the_loudest(all_loaded: dict[str, Loaded]) -> None:
    _, _, tokenizer, _ = all_loaded["encodec-48khz"]
    quiet, loud = (tokenizer.encode(Waveform(np.full((2, 4_800), value), 48_000)) for value in (0.0, 900.0))
    assert set(quiet.values[0].tolist()) == {0}
    assert set(loud.values[0].tolist()) == {1023}
    assert np.abs(tokenizer.decode(quiet).samples).max() < 1e-4
    twice = tokenizer.encode(Waveform(np.full((2, 4_800), 0.5, np.float32), 48_000)).values[0, 0]
    once = tokenizer.encode(Waveform(np.full((2, 4_800), 0.25, np.float32), 48_000)).values[0, 0]
    assert twice - once == 48  # 6.02 dB


def test_codes_of_a_model_without_an_extent_decode(all_loaded: dict[str, Loaded]) -> None:
    for key, (case, _, tokenizer, _) in all_loaded.items():
        frames = 320 if key == "encodec-48khz" else 6
        values = np.random.default_rng(0).integers(0, 64, (case.num_codebooks, frames))
        values[0] = 40 if key != "encodec-48khz" else 800
        extent = tokenizer.spec.full_extent((frames,))
        made = tokenizer.decode(Codes(values, extent)).samples
        assert made.shape[1] == extent[0]
        assert made[:, : extent[0] * 9 // 10].std() > 1e-3
        with pytest.raises(ShapeError, match=f"codes of {frames} frames for 10 samples"):
            tokenizer.decode(Codes(values, (10,)))


def test_channels(all_loaded: dict[str, Loaded]) -> None:
    stereo, mono = all_loaded["encodec-48khz"][2], all_loaded["dac-16khz"][2]
    one = small.sound(4_000, 48_000)
    both = Waveform(np.repeat(one.samples, 2, axis=0), 48_000)
    assert stereo.encode(one) == stereo.encode(both)
    assert mono.encode(both) == mono.encode(one)
    with pytest.raises(InputError, match="a waveform of 6 channels for a network of 2"):
        stereo.encode(Waveform(np.zeros((6, 100), np.float32), 48_000))
    bad = np.zeros((2, 100), np.float32)
    bad[1, 5] = np.nan
    with pytest.raises(InputError, match="sample 5 of channel 1"):
        stereo.encode(Waveform(bad, 44_100))
    # Channels are resampled each as a clip of its own.
    left, right = small.sound(3_000, 44_100, 2).samples
    parts = [stereo.encode(Waveform(np.stack([row, row]), 44_100)) for row in (left, right)]
    assert parts[0] != parts[1]


def test_clips_that_transformers_miscounts_are_refused(all_loaded: dict[str, Loaded]) -> None:
    for key in ("encodec-24khz", "mimi"):
        tokenizer = all_loaded[key][2]
        silence = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 2**24 + 1), (0, 0))
        with pytest.raises(InputError, match=r"16,777,217 samples: .* 16,777,216"):
            tokenizer.encode(Waveform(silence, 24_000))


def test_mel_energies_are_those_of_the_published_extractor() -> None:
    samples = small.sound(8_000, 16_000).samples[0]
    extractor = Xcodec2FeatureExtractor()
    expected = extractor(samples, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    padded = np.pad(samples, (160, 320 + 160))
    mels = kaldi_fbank(padded, 16_000)
    ours = ((mels - mels.mean(0)) / np.sqrt(mels.var(0, ddof=1) + 1e-7)).reshape(-1, 160)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < 2e-3
    assert expected.std() > 0.5


# Folders.


def test_older_names_are_read(all_loaded: dict[str, Loaded], tmp_path: Path) -> None:
    """Weight normalisation as torch stored it before, and Mimi's halves under their newer names."""
    from safetensors.torch import load_file, save_file

    _, model, expected, folder = all_loaded["encodec-24khz"]
    older = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in model.state_dict().items()
    }
    assert any(key.endswith("weight_g") for key in older)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save(older, tmp_path / "pytorch_model.bin")
    assert multitok.fingerprint(multitok.load(tmp_path, kind="encodec")) == multitok.fingerprint(expected)

    _, model, expected, folder = all_loaded["mimi"]
    flat = load_file(folder / "model.safetensors")
    assert "encoder_transformer.layers.0.self_attn.q_proj.weight" in flat
    assert set(flat) == set(expected.get_tensors())
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, newer / "model.safetensors")
    assert multitok.fingerprint(multitok.load(newer, kind="mimi")) == multitok.fingerprint(expected)


def test_training_statistics_may_be_absent(all_loaded: dict[str, Loaded], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    case, _, tokenizer, folder = all_loaded["encodec-24khz"]
    tensors = load_file(folder / "model.safetensors")
    fewer = {key: value for key, value in tensors.items() if not key.endswith(("inited", "cluster_size", "embed_avg"))}
    assert len(fewer) == len(tensors) - 12
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(fewer, tmp_path / "model.safetensors")
    raw = small.sound(5_000, case.sample_rate_hz)
    assert multitok.load(tmp_path, kind="encodec").encode(raw) == tokenizer.encode(raw)


def test_damage_is_named(all_loaded: dict[str, Loaded], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for key in ("encodec-48khz", "mimi", "xcodec2"):
        case, _, _, folder = all_loaded[key]
        tensors = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        name = next(name for name in sorted(tensors) if "encoder" in name and tensors[name].ndim > 1)
        damaged = {
            "is missing": {other: value for other, value in tensors.items() if other != name},
            "has shape": tensors | {name: tensors[name][:1].clone().squeeze(0)},
            "holds NaN": tensors | {name: tensors[name] * float("nan")},
        }
        for i, (words, state) in enumerate(damaged.items()):
            target = tmp_path / f"{key}{i}"
            target.mkdir()
            (target / "config.json").write_text(json.dumps(config))
            save_file(state, target / "model.safetensors")
            with pytest.raises(CheckpointError, match=words) as caught:
                multitok.load(target, kind=case.kind)
            assert name in str(caught.value)
        other = "dac" if case.kind != "dac" else "mimi"
        with pytest.raises(CheckpointError, match=f"model_type {case.kind!r}, {other!r} reads {other!r}"):
            multitok.load(folder, kind=other)


def test_files_that_are_missing_or_pickled(all_loaded: dict[str, Loaded], tmp_path: Path) -> None:
    folder = all_loaded["dac-16khz"][3]
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        multitok.load(tmp_path, kind="dac")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="holds a list, expected is an object"):
        multitok.load(tmp_path, kind="dac")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dac", "codebook_size": 1000}))
    torch.save({"weights": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"config\.json describes no DacModel \(.*power of 2"):
        multitok.load(tmp_path, kind="dac")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save({"state_dict": {"x": torch.zeros(1)}, "args": Pickled()}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"holds Python objects besides tensors.*save_file"):
        multitok.load(tmp_path, kind="dac")


class Pickled:
    """What no file may bring along."""


def test_random_numbers_go_on_as_if_nothing_was_loaded(all_loaded: dict[str, Loaded]) -> None:
    folder = all_loaded["dac-16khz"][3]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    multitok.load(folder, kind="dac")
    assert torch.equal(torch.rand(3), expected)


def test_a_missing_or_older_transformers_is_named(
    all_loaded: dict[str, Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    folder = all_loaded["xcodec2"][3]
    monkeypatch.setattr(multitok.registry.tokenizer_class("xcodec2"), "model_name", "AbsentModel")
    with pytest.raises(MissingExtraError, match="needs AbsentModel, which transformers"):
        multitok.load(folder, kind="xcodec2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'multitok\[hf\]'"):
        multitok.load(folder, kind="xcodec2")
