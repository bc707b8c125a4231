"""The vocoder in torch: what is trained. The exact one that tokenizers run is frozen from it.

Shape letters: B clips, F frames, M mel bands, S frequencies, L frames of look-ahead. This module imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from multitok.nets.causal.freeze import freeze, thaw
from multitok.nets.causal.module import CausalNet
from multitok.nets.vocoder import (
    FLOOR,
    LOG_SHIFT,
    LOG_SPAN,
    PRIOR_GAIN,
    ExactVocoder,
    VocoderConfig,
    prior_filters,
    synthesis_window,
)


class Vocoder(nn.Module):
    """A differentiable vocoder.

    Args:
        config: Its shape.
    """

    prior: Tensor
    window: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.net = CausalNet(config.net)
        for name, values in (("prior", prior_filters(config)), ("window", synthesis_window(config))):
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def forward(self, energies: Tensor, autocast: bool = False) -> Tensor:
        """Samples of the frames that the net has seen far enough ahead of.

        Args:
            energies: [B, F + L, M], float32.
            autocast: Run the net in bfloat16.

        Returns:
            [B, F * hop].
        """
        config = self.config
        energies = energies.clamp(min=FLOOR)
        with torch.autocast(energies.device.type, torch.bfloat16, enabled=autocast):
            factors = self.net(net_inputs(energies))[:, config.net.lookahead * config.net.unstack :]
        real, imaginary = factors.float().chunk(2, -1)
        magnitudes = torch.sqrt(energies[:, : real.shape[1]] @ self.prior * PRIOR_GAIN)
        spectra = torch.complex(real * magnitudes, imaginary * magnitudes)
        frames = torch.fft.irfft(spectra, config.window_length) * self.window
        count, hop, length = frames.shape[1], config.hop_length, config.window_length
        size = (1, (count - 1) * hop + length)
        samples = functional.fold(frames.transpose(1, 2), size, (1, length), stride=(1, hop))[:, 0, 0]
        lead = (length - hop) // 2
        return samples[:, lead : lead + count * hop]


def net_inputs(energies: Tensor) -> Tensor:
    """What the net reads of energies of at least FLOOR."""
    return (torch.log10(energies) + LOG_SHIFT) / LOG_SPAN


def freeze_vocoder(vocoder: Vocoder, calibration: Iterable[Tensor]) -> ExactVocoder:
    """The exact vocoder that makes what `vocoder` does, to within the rounding of its net.

    Args:
        vocoder: Trained.
        calibration: Typical energies, [B, F, M] or [F, M].

    Returns:
        The exact vocoder.

    Raises:
        SpecError: A weight is not finite, or there are no typical energies.
    """
    net = freeze(vocoder.net, (net_inputs(energies.clamp(min=FLOOR)) for energies in calibration))
    return ExactVocoder(vocoder.config, net.tensors())


def thaw_vocoder(exact: ExactVocoder) -> Vocoder:
    """The differentiable vocoder that makes what `exact` does, but for the rounding of activations.

    Args:
        exact: Stays as it is.
    """
    vocoder = Vocoder(exact.config)
    vocoder.net = thaw(exact.net)
    return vocoder
