"""The networks as plain functions of a checkpoint's tensors: slow, obvious, one line for one step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def taming_latents(
    w: Weights, x: Tensor, level: str = "down.{}.block", middle: str = "block_1 attn_1 block_2"
) -> Tensor:
    """Encoder and quant_conv; `level` and `middle` say how the checkpoint names its parts."""
    x = _conv(w, "encoder.conv_in", x)
    i = 0
    while f"encoder.{level.format(i)}.0.norm1.weight" in w:
        x = _blocks(w, f"encoder.{level.format(i)}", x)
        down = f"encoder.{level.split('.')[0]}.{i}.downsample.conv"
        if f"{down}.weight" in w:
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), w[f"{down}.weight"], w[f"{down}.bias"], stride=2)
        i += 1
    x = _conv(w, "encoder.conv_out", _swish(_norm(w, "encoder.norm_out", _middle(w, "encoder.mid", middle, x))))
    return _conv(w, "quant_conv", x)


def taming_pixels(
    w: Weights, z: Tensor, order: list[int], level: str = "up.{}.block", middle: str = "block_1 attn_1 block_2"
) -> Tensor:
    """post_quant_conv and decoder; `order` lists the levels' numbers as they run."""
    x = _middle(w, "decoder.mid", middle, _conv(w, "decoder.conv_in", _conv(w, "post_quant_conv", z)))
    for i in order:
        x = _blocks(w, f"decoder.{level.format(i)}", x)
        up = f"decoder.{level.split('.')[0]}.{i}.upsample.conv"
        if f"{up}.weight" in w:
            x = _conv(w, up, x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    return _conv(w, "decoder.conv_out", _swish(_norm(w, "decoder.norm_out", x)))


def magvit_latents(w: Weights, x: Tensor) -> Tensor:
    """Open-MAGVIT2's encoder."""
    x = _conv(w, "encoder.conv_in", x)
    i = 0
    while f"encoder.down.{i}.block.0.norm1.weight" in w:
        x = _blocks(w, f"encoder.down.{i}.block", x)
        if f"encoder.down.{i}.downsample.weight" in w:
            down = f"encoder.down.{i}.downsample"
            x = F.conv2d(x, w[f"{down}.weight"], w[f"{down}.bias"], stride=2, padding=1)
        i += 1
    return _conv(w, "encoder.conv_out", _swish(_norm(w, "encoder.norm_out", _blocks(w, "encoder.mid_block", x))))


def magvit_pixels(w: Weights, z: Tensor, order: list[int]) -> Tensor:
    """Open-MAGVIT2's decoder of signs z [1, D, h, w], more than one position."""
    x = _blocks(w, "decoder.mid_block", _conv(w, "decoder.conv_in", z))
    flat = z[0].flatten(1)
    for i in order:
        mean = flat.mean(1)
        variance = ((flat - mean[:, None]) ** 2).sum(1) / (flat.shape[1] - 1)
        name = f"decoder.adaptive.{i}"
        scale = w[f"{name}.gamma.weight"] @ (variance + 1e-6).sqrt() + w[f"{name}.gamma.bias"]
        shift = w[f"{name}.beta.weight"] @ mean + w[f"{name}.beta.bias"]
        x = F.group_norm(x, 32, eps=1e-6) * scale[:, None, None] + shift[:, None, None]
        x = _blocks(w, f"decoder.up.{i}.block", x)
        if f"decoder.up.{i}.upsample.conv1.weight" in w:
            x = _spread(_conv(w, f"decoder.up.{i}.upsample.conv1", x))
    return _conv(w, "decoder.conv_out", _swish(_norm(w, "decoder.norm_out", x)))


def _spread(x: Tensor) -> Tensor:
    """[1, 4 C, h, w] to [1, C, 2 h, 2 w]: quarters are top left, top right, bottom left, bottom right."""
    channels = x.shape[1] // 4
    out = torch.empty(1, channels, 2 * x.shape[2], 2 * x.shape[3])
    for row in range(2):
        for column in range(2):
            quarter = 2 * row + column
            out[:, :, row::2, column::2] = x[:, quarter * channels : (quarter + 1) * channels]
    return out


def _blocks(w: Weights, name: str, x: Tensor) -> Tensor:
    j = 0
    while f"{name}.{j}.norm1.weight" in w:
        x = _res(w, f"{name}.{j}", x)
        attention = f"{name.rpartition('.')[0]}.attn.{j}"
        if f"{attention}.q.weight" in w:
            x = _attend(w, attention, x)
        j += 1
    return x


def _middle(w: Weights, name: str, parts: str, x: Tensor) -> Tensor:
    first, second, third = (f"{name}.{part}" for part in parts.split())
    return _res(w, third, _attend(w, second, _res(w, first, x)))


def _res(w: Weights, name: str, x: Tensor) -> Tensor:
    y = _conv(w, f"{name}.conv1", _swish(_norm(w, f"{name}.norm1", x)))
    y = _conv(w, f"{name}.conv2", _swish(_norm(w, f"{name}.norm2", y)))
    return y + (_conv(w, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in w else x)


def _attend(w: Weights, name: str, x: Tensor) -> Tensor:
    normed = _norm(w, f"{name}.norm", x)
    q, k, v = (_conv(w, f"{name}.{part}", normed)[0].flatten(1).T for part in "qkv")
    out = torch.empty_like(q)
    for position in range(len(q)):
        shares = torch.softmax(k @ q[position] / q.shape[1] ** 0.5, 0)
        out[position] = shares @ v
    return x + _conv(w, f"{name}.proj_out", out.T.reshape(x.shape))


def _conv(w: Weights, name: str, x: Tensor) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def _norm(w: Weights, name: str, x: Tensor) -> Tensor:
    groups = x[0].reshape(32, -1)
    mean = groups.mean(1, keepdim=True)
    variance = ((groups - mean) ** 2).mean(1, keepdim=True)
    normed = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
    return normed * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def _swish(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())
