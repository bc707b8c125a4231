"""Small published codecs with random weights, in folders as their publishers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    Wav2Vec2BertConfig,
    Xcodec2Config,
    Xcodec2Model,
)

from multitok.protocol import Waveform

ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "num_lstm_layers": 1}
ENCODECS: dict[str, dict[str, Any]] = {
    "24khz": {**ENCODEC, "sampling_rate": 24_000, "target_bandwidths": [0.45, 0.9, 1.8]},
    "48khz": {
        **ENCODEC,
        "sampling_rate": 48_000,
        "audio_channels": 2,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
        "target_bandwidths": [0.9, 1.8, 2.7],
    },
    "32khz": {
        **ENCODEC,
        "sampling_rate": 32_000,
        "upsampling_ratios": [8, 5, 4, 4],
        "use_causal_conv": False,
        "target_bandwidths": [1.2],
        "use_conv_shortcut": False,
    },
}
DAC = {"encoder_hidden_size": 4, "decoder_hidden_size": 64, "n_codebooks": 4, "codebook_size": 64}
DACS: dict[str, dict[str, Any]] = {
    "16khz": {**DAC, "downsampling_ratios": [2, 4, 5, 8], "sampling_rate": 16_000},
    "44khz": {**DAC, "downsampling_ratios": [2, 4, 8, 8], "sampling_rate": 44_100},
}
MIMI: dict[str, Any] = {
    "hidden_size": 32,
    "num_filters": 4,
    "codebook_size": 64,
    "codebook_dim": 16,
    "num_quantizers": 4,
    "vector_quantization_hidden_dimension": 16,
    "upsample_groups": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "sliding_window": 10,
}
SNAC: dict[str, Any] = {
    "sampling_rate": 24_000,
    "encoder_dim": 8,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 64,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 64,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
SNACS: dict[str, dict[str, Any]] = {
    "24khz": SNAC,
    "44khz": {
        **SNAC,
        "sampling_rate": 44_100,
        "encoder_rates": [3, 3, 7, 7],
        "decoder_rates": [7, 7, 3, 3],
        "attn_window_size": 32,
        "vq_strides": [8, 4, 2, 1],
    },
}


def encodec(which: str) -> Any:
    """A model of transformers."""
    return filled(EncodecModel(EncodecConfig(**ENCODECS[which])))


def dac(which: str) -> Any:
    """A model of transformers."""
    return filled(DacModel(DacConfig(**DACS[which])))


def mimi() -> Any:
    """A model of transformers."""
    return filled(MimiModel(MimiConfig(**MIMI)))


def xcodec2() -> Any:
    """A model of transformers."""
    semantic = Wav2Vec2BertConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        feature_projection_input_dim=160,
        output_hidden_size=32,
    )
    config = Xcodec2Config(
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        encoder_hidden_size=4,
        quantization_dim=96,
        semantic_model_config=semantic.to_dict(),
    )
    return filled(Xcodec2Model(config))


def filled(model: Any) -> Any:
    """The model with random weights that keep signals near 1: its own first ones hide many mistakes."""
    generator = torch.Generator().manual_seed(1)
    state = model.state_dict()
    for key, value in state.items():
        if not value.is_floating_point():
            continue
        drawn = torch.randn(value.shape, generator=generator)
        if key.endswith(("original0", "alpha")):
            state[key] = 1 + 0.2 * drawn.abs()
        elif "cluster" in key or "inited" in key or "initialized" in key:
            state[key] = 1 + drawn.abs()
        elif "layer_scale" in key or ("norm" in key and key.endswith("weight")):
            state[key] = 1 + 0.2 * drawn
        elif value.ndim > 1 and "codebook" not in key:
            state[key] = drawn * (1.5 / value[0].numel() ** 0.5)
            if value.shape[0] == 1:  # the last layer of a decoder that ends in tanh
                state[key] *= 0.02
        else:
            state[key] = drawn * (1.0 if "codebook" in key else 0.1)
    model.load_state_dict(state)
    return model.eval()


def folder(model: Any, path: Path) -> Path:
    """Where `save_pretrained` wrote the model."""
    model.save_pretrained(path)
    return path


def write_snac(config: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """A folder with SNAC's config.json and the tensors."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, path / "model.safetensors")
    return path


def sound(num_samples: int, rate_hz: int, channels: int = 1, seed: int = 0) -> Waveform:
    """Tones that come and go over noise, different in every channel."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / rate_hz
    rows = [
        (0.5 + 0.4 * np.sin(7 * t + c)) * np.sin(2 * np.pi * (220 + 60 * c) * t)
        + 0.1 * rng.standard_normal(num_samples)
        for c in range(channels)
    ]
    return Waveform(0.5 * np.stack(rows).astype(np.float32), rate_hz)
