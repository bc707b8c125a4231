"""A small vocoder with weights drawn by chance, for tests."""

from __future__ import annotations

from functools import cache

import torch

from multitok.nets.causal.config import CausalConfig
from multitok.nets.vocoder import ExactVocoder, VocoderConfig
from multitok.nets.vocoder_module import Vocoder, freeze_vocoder


@cache
def vocoder(hop_length: int = 200, window_length: int = 800, lookahead: int = 2, num_mels: int = 80) -> ExactVocoder:
    """Frozen; the same each time."""
    config = VocoderConfig(
        net=CausalConfig(
            in_dim=num_mels,
            out_dim=window_length + 2,
            channels=16,
            hidden=24,
            taps=3,
            dilations=(1, 2),
            lookahead=lookahead,
        ),
        hop_length=hop_length,
        window_length=window_length,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Vocoder(config)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return freeze_vocoder(module, [10 ** torch.randn(4, 20, num_mels)])
