"""The causal net in torch: what is trained. The exact one that tokenizers run is frozen from it.

Shape letters: B items, T frames of the net, D input values, O output values, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from multitok.nets.causal.config import NORM_EPSILON, CausalConfig


class CausalBlock(nn.Module):
    """x + linear(relu(linear(norm(causal depthwise convolution of x)))).

    Args:
        channels: C.
        hidden: Values between the two linear maps.
        taps: Frames that the convolution reads.
        dilation: Frames from one tap to the next.
    """

    def __init__(self, channels: int, hidden: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.past = (taps - 1) * dilation
        self.conv = nn.Conv1d(channels, channels, taps, dilation=dilation, groups=channels)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        y = self.conv(functional.pad(x.transpose(1, 2), (self.past, 0))).transpose(1, 2)
        y = functional.rms_norm(y, (y.shape[-1],), eps=NORM_EPSILON)
        out: Tensor = x + self.contract(functional.relu(self.expand(y)))
        return out


class CausalNet(nn.Module):
    """A differentiable causal net.

    Args:
        config: Its shape.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Linear(config.in_dim * config.stack, config.channels)
        self.blocks = nn.ModuleList(
            CausalBlock(config.channels, config.hidden, config.taps, dilation) for dilation in config.dilations
        )
        self.leave = nn.Linear(config.channels, config.out_dim * config.unstack)

    def forward(self, frames: Tensor) -> Tensor:
        """All outputs of whole clips; zeros stand for what lies before them.

        Args:
            frames: [B, T * stack, D].

        Returns:
            [B, T * unstack, O]. Nothing is shifted: the first `lookahead * unstack` frames answer for what lies
            before the clip, the rest for the clip from its start.
        """
        batch, count, _ = frames.shape
        x = self.enter(frames.reshape(batch, count // self.config.stack, -1))
        for block in self.blocks:
            x = block(x)
        # Norm before the last map too, so that its input has one scale.
        x = functional.rms_norm(x, (x.shape[-1],), eps=NORM_EPSILON)
        out: Tensor = self.leave(x).reshape(batch, -1, self.config.out_dim)
        return out
