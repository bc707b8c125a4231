"""A small codec of random weights, made in a second: enough for everything but the quality of its sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from multitok.nets.causal.config import CausalConfig
from multitok.nets.codec import Codec, freeze_codec
from multitok.nets.codec_config import CodecConfig
from multitok.nets.codec_exact import ExactCodec
from multitok.tokenizers.audio_codec import AudioCodec
from tests.stream_contract import sound

_NET: dict[str, Any] = {"channels": 16, "hidden": 24, "taps": 3, "dilations": (1, 2)}


def small_config(**changed: Any) -> CodecConfig:
    """16 kHz, 80 frames a second, 4 codebooks of 16; `changed` fields replace these."""
    fields: dict[str, Any] = {
        "encoder": CausalConfig(in_dim=983, out_dim=8, lookahead=1, **_NET),
        "decoder": CausalConfig(in_dim=8, out_dim=802, lookahead=2, **_NET),
        "codebook_sizes": (16, 16, 16, 16),
    }
    return CodecConfig(**{**fields, **changed})


def clips(count: int = 4, num_samples: int = 12_345) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Sound to train on and to calibrate with."""
    return [sound(num_samples, 16_000, seed=seed).samples[0] for seed in range(count)]


def small_codec(config: CodecConfig | None = None, seed: int = 0) -> Codec:
    """In floats, its codebooks started from sound."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = Codec(config or small_config(), seed=seed)
        samples = torch.from_numpy(np.stack(clips()))
        codec.start_nets(samples)
        for net in (codec.encoder, codec.decoder):
            for block in net.blocks:
                torch.nn.init.normal_(block.contract.weight, std=0.3)  # type: ignore[union-attr, arg-type]
            torch.nn.init.normal_(net.leave.weight, std=0.1)
    with torch.no_grad():
        codec.start_codebooks(codec.latents(samples))
    return codec.eval()


def exact_codec(config: CodecConfig | None = None, seed: int = 0) -> ExactCodec:
    """Frozen."""
    return freeze_codec(small_codec(config, seed), clips())


def tokenizer(**options: Any) -> AudioCodec:
    """Ready to encode."""
    return AudioCodec(exact_codec(), **options)
