"""Front ends of speech units against other implementations, what windows promise, and files that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import multitok
from multitok.errors import CheckpointError, ShapeError, SpecError
from multitok.frontend.whisper_mel import whisper_log_mel
from multitok.nets.one_thread import one_thread
from multitok.nets.whisper import WhisperConfig, WhisperEncoder, in_int8
from multitok.protocol import Waveform
from multitok.tokenizers._semantic_frames import LogMelFrontEnd, MfccFrontEnd, log_mel
from multitok.tokenizers._semantic_transformers import TransformersFrontEnd
from multitok.tokenizers._semantic_windows import WhisperFrontEnd
from multitok.train.semantic import whisper_front_end
from multitok.train.whisper_weights import read_whisper
from tests.contract import check_tokenizer
from tests.tokenizers.semantic_models import (
    ctranslate2_file,
    small_whisper,
    speech_like,
    tokenizer,
    whisper_tensors,
)

CONFIG = WhisperConfig(16, 2, 2)


def _whisper(**settings: Any) -> Any:
    import transformers

    torch.manual_seed(1)
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=60, max_source_positions=1500, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **settings,
    )  # fmt: skip
    return transformers.WhisperModel(config).eval()


def _features(front_end: Any, wave: Waveform) -> np.ndarray:
    state, first = front_end.step(front_end.initial_state(), wave.samples[0])
    return np.concatenate([first, front_end.finish(state)])


def test_log_mel_of_whisper_is_that_of_transformers() -> None:
    import transformers

    samples = speech_like(32_000).samples[0]
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    wanted = extractor(samples, sampling_rate=16_000, padding=False, return_tensors="np")["input_features"][0].T
    assert np.abs(whisper_log_mel(samples, one_loudness=False) - wanted).max() < 2e-5


def test_a_quiet_window_has_the_log_mel_of_a_loud_one() -> None:
    samples = speech_like(16_000).samples[0]
    loud, quiet = whisper_log_mel(samples), whisper_log_mel(samples / 4)
    assert np.abs(loud - quiet).max() < 1e-6
    silence = whisper_log_mel(np.zeros(16_000, np.float32))
    assert np.ptp(silence) == 0
    assert silence.max() < loud.mean()
    for wrong in (np.zeros(100, np.float32), np.zeros(16_001, np.float32), np.zeros((1, 16_000), np.float32)):
        with pytest.raises(ShapeError, match="multiple of 160"):
            whisper_log_mel(wrong)


def test_hidden_states_are_those_of_transformers(tmp_path: Path) -> None:
    model = _whisper()
    model.save_pretrained(tmp_path)
    log_mel_ = whisper_log_mel(np.tile(speech_like(160_000).samples[0], 3))
    with torch.inference_mode():
        wanted = model.encoder(torch.from_numpy(log_mel_.T)[None], output_hidden_states=True).hidden_states
    for layers in (1, 2):
        encoder = WhisperEncoder(*read_whisper(tmp_path, layers))
        found = encoder.hidden_states(log_mel_)
        assert np.abs(found - wanted[layers][0].numpy()).max() < 2e-4


def test_ctranslate2_and_transformers_hold_the_same_encoder(tmp_path: Path) -> None:
    model = _whisper()
    model.save_pretrained(tmp_path / "folder")
    state = {key: value.numpy() for key, value in model.encoder.state_dict().items()}
    arrays = {f"encoder/conv{i}/{part}": state[f"conv{i}.{part}"] for i in (1, 2) for part in ("weight", "bias")}
    for i in range(3):
        here, there = f"layers.{i}", f"encoder/layer_{i}"
        attention = f"{here}.self_attn"
        weights = [state[f"{attention}.{one}_proj.weight"] for one in "qkv"]
        biases = [state[f"{attention}.q_proj.bias"], np.zeros(16, np.float32), state[f"{attention}.v_proj.bias"]]
        arrays |= {
            f"{there}/self_attention/linear_0/weight": np.concatenate(weights),
            f"{there}/self_attention/linear_0/bias": np.concatenate(biases),
        }
        names = {"self_attention/linear_1": "self_attn.out_proj", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
        arrays |= {
            f"{there}/{a}/{part}": state[f"{here}.{b}.{part}"] for a, b in names.items() for part in ("weight", "bias")
        }
        norms = {"self_attention": "self_attn_layer_norm", "ffn": "final_layer_norm"}
        parts = {"gamma": "weight", "beta": "bias"}
        arrays |= {
            f"{there}/{a}/layer_norm/{p}": state[f"{here}.{b}.{q}"] for a, b in norms.items() for p, q in parts.items()
        }
    arrays["decoder/scale"] = np.ones((), np.float32)
    (tmp_path / "model.bin").write_bytes(ctranslate2_file(arrays, {"decoder/other": "decoder/scale"}))
    config, tensors = read_whisper(tmp_path / "model.bin", 2)
    _, wanted = read_whisper(tmp_path / "folder", 2)
    assert (config.width, config.layers) == (16, 2)
    assert tensors.keys() == wanted.keys()
    assert all(np.array_equal(tensors[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("length", [0, 3, 10, 40, 200, -1])
def test_a_damaged_ctranslate2_file_is_refused(length: int, tmp_path: Path) -> None:
    whole = ctranslate2_file({"encoder/conv1/weight": np.zeros((16, 80, 3), np.float32)})
    (tmp_path / "model.bin").write_bytes(whole[:length])
    with pytest.raises(CheckpointError, match="whole CTranslate2"):
        read_whisper(tmp_path, 1)


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither"):
        read_whisper(tmp_path, 1)
    (tmp_path / "model.bin").write_bytes(ctranslate2_file({"encoder/conv1/weight": np.zeros((16, 80, 3), np.int8)}))
    with pytest.raises(CheckpointError, match="int8"):
        read_whisper(tmp_path, 1)
    _whisper().save_pretrained(tmp_path / "folder")
    with pytest.raises(CheckpointError, match=r"layers.3.*missing"):
        read_whisper(tmp_path / "folder", 4)
    tensors = whisper_tensors(CONFIG)
    with pytest.raises(SpecError, match="unexpected"):
        WhisperEncoder(CONFIG, {**tensors, "more": np.zeros(1)})
    with pytest.raises(SpecError, match=r"conv_1.bias is missing"):
        WhisperEncoder(CONFIG, {key: value for key, value in tensors.items() if key != "conv_1.bias"})
    with pytest.raises(SpecError, match="not finite"):
        WhisperEncoder(CONFIG, {**tensors, "conv_1.bias": np.full(16, np.nan, np.float32)})
    with pytest.raises(ShapeError, match="even number"):
        WhisperEncoder(CONFIG, tensors).hidden_states(np.zeros((31, 80), np.float32))


def test_int8_weights_are_close(tmp_path: Path) -> None:
    tensors = whisper_tensors(CONFIG)
    held = in_int8(tensors)
    assert sum(value.nbytes for value in held.values()) < 0.35 * sum(value.nbytes for value in tensors.values())
    mel = whisper_log_mel(speech_like(16_000).samples[0])
    exact, rounded = (WhisperEncoder(CONFIG, some).hidden_states(mel) for some in (tensors, held))
    assert np.abs(exact - rounded).max() < 0.03 * np.abs(exact).max()
    _whisper().save_pretrained(tmp_path)
    assert whisper_front_end(tmp_path, 2).get_tensors()["layer_1.attention.in.weight"].dtype == np.int8


def test_units_do_not_depend_on_the_number_of_threads() -> None:
    front_end, wave = small_whisper(1.0, 0.8), speech_like(16_000)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(_features(front_end, wave))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(np.array_equal(one, found[0]) for one in found)
    with one_thread(), one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_place_depends_on_its_window_alone() -> None:
    front_end = small_whisper(0.4, 0.2)
    long = speech_like(32_000).samples[0]
    features = _features(front_end, Waveform(long, 16_000))
    # Window 5 keeps 1.0 to 1.2 s and reads 0.9 to 1.3 s, and half a frame later, so that frames lie in the middle.
    window = front_end.window_features(long[14_560:20_960])
    assert np.array_equal(features[50:60], window[5:15])


def test_windows_have_whole_frames() -> None:
    for window_s, kept_s in ((1.0, 1.2), (1.0, 0.99), (1.0, 0.98)):
        with pytest.raises(SpecError, match="whole frames"):
            small_whisper(window_s, kept_s)


def test_log_mel_joins_frames_with_their_neighbours() -> None:
    wave = speech_like(4_800)
    rows = log_mel(80).run(wave.samples[0])
    frames = (rows[0::2] + rows[1::2]) / 2
    padded = np.pad(frames, ((2, 2), (0, 0)), constant_values=log_mel(80).silence)
    wanted = np.concatenate([padded[i : i + len(frames)] for i in range(5)], axis=1)
    assert np.array_equal(_features(LogMelFrontEnd(frames=2), wave), wanted)


def test_mfcc_is_that_of_a_plain_implementation() -> None:
    from scipy.fft import dct

    wave = speech_like(8_000)
    rows = log_mel(40).run(wave.samples[0]).astype(np.float64)
    padded = np.pad(rows, ((4, 4), (0, 0)), constant_values=log_mel(40).silence)
    cepstra = dct(padded, norm="ortho", axis=1)[:, :13]

    def slope(x: np.ndarray) -> np.ndarray:
        return np.array([np.polyfit(np.arange(-2, 3), x[i : i + 5], 1)[0] for i in range(len(x) - 4)])

    first = slope(cepstra)
    whole = np.concatenate([cepstra[4:-4], first[2:-2], slope(first)], axis=1)
    wanted = (whole[0::2] + whole[1::2]) / 2
    assert np.abs(_features(MfccFrontEnd(), wave) - wanted).max() < 1e-4


def _speech_model(kind: str) -> Any:
    import transformers

    torch.manual_seed(2)
    small: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
        "vocab_size": 10, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    waves = {**small, "conv_dim": (8,) * 7}
    if kind == "hubert":
        return transformers.HubertModel(transformers.HubertConfig(**waves)).eval()
    if kind == "hubert-large":
        settings = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
        return transformers.HubertModel(transformers.HubertConfig(**waves, **settings)).eval()
    if kind == "wavlm":
        return transformers.WavLMModel(transformers.WavLMConfig(**waves, num_buckets=32, max_bucket_distance=80)).eval()
    return transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**small, output_hidden_size=16)).eval()


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", ["hubert", "hubert-large", "wavlm", "w2v-bert"])
def test_features_are_the_hidden_states_of_transformers(kind: str, normalise: bool, tmp_path: Path) -> None:
    import transformers

    model = _speech_model(kind)
    model.save_pretrained(tmp_path)
    if kind == "w2v-bert":
        extractor = transformers.SeamlessM4TFeatureExtractor()
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise)
    extractor.save_pretrained(tmp_path)
    front_end = TransformersFrontEnd.read(tmp_path, 2, window_s=1.0, kept_s=0.6)
    extra = 240 if kind == "w2v-bert" else 80
    samples = speech_like(16_000 + extra).samples[0]
    inputs = extractor(samples, sampling_rate=16_000, padding=False, return_tensors="pt")
    given = inputs["input_features" if kind == "w2v-bert" else "input_values"]
    with torch.inference_mode():
        wanted = model(given, output_hidden_states=True).hidden_states[2][0].numpy()
    found = front_end.window_features(samples)
    assert found.shape == (50, 16)
    assert np.abs(found - wanted).max() < 1e-5


def test_a_model_of_transformers_becomes_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    _speech_model("hubert").save_pretrained(tmp_path / "model")
    made = tokenizer(TransformersFrontEnd.read(tmp_path / "model", 3, window_s=0.4, kept_s=0.2))
    check_tokenizer(made, [speech_like(5_000), speech_like(3_200)], tmp_path)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())["config"]
    assert str(tmp_path) not in json.dumps(config)
    loaded = multitok.load(tmp_path / "saved")
    wave = speech_like(9_000)
    assert np.array_equal(loaded.features(wave), made.features(wave))


def test_other_models_of_transformers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config.json"):
        TransformersFrontEnd.read(tmp_path, 1)
    _speech_model("hubert").save_pretrained(tmp_path / "hubert")
    with pytest.raises(SpecError, match="layers 0 to 3"):
        TransformersFrontEnd.read(tmp_path / "hubert", 4)
    _whisper().save_pretrained(tmp_path / "whisper")
    with pytest.raises(SpecError, match="'whisper'"):
        TransformersFrontEnd.read(tmp_path / "whisper", 1)
    front_end = TransformersFrontEnd.read(tmp_path / "hubert", 1)
    config = front_end.get_config()
    with pytest.raises(SpecError, match="weights that do not fit"):
        TransformersFrontEnd(**config, tensors={})  # type: ignore[arg-type]
    model = {**config["model"], "conv_stride": (5, 2, 2, 2, 2, 2, 1)}
    with pytest.raises(SpecError, match="20 ms"):
        TransformersFrontEnd(**{**config, "model": model}, tensors=front_end.get_tensors())


def test_a_front_end_remembers_its_configuration() -> None:
    front_end = small_whisper(0.6, 0.2)
    again = WhisperFrontEnd(**json.loads(json.dumps(front_end.get_config())), tensors=front_end.get_tensors())
    wave = speech_like(7_000)
    assert np.array_equal(_features(again, wave), _features(front_end, wave))
