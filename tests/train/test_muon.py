"""Muon: its directions are nearly orthonormal, and it finds a matrix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.module import CausalNet
from multitok.train.muon import Muon, orthogonal, split_parameters


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)])
def test_directions_are_nearly_orthonormal(shape: tuple[int, int]) -> None:
    found = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(found)
    assert found.shape == shape
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.4


def test_it_descends() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(6, 4, generator=generator)
    parameter = nn.Parameter(torch.zeros(6, 4))
    optimizer = Muon([parameter], learning_rate=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (parameter - wanted).square().sum().backward()
        optimizer.step()
    assert float((parameter.detach() - wanted).abs().max()) < 0.1


def test_block_matrices_are_split_from_the_rest() -> None:
    net = CausalNet(CausalConfig(in_dim=3, out_dim=2, channels=4, hidden=5, taps=3, dilations=(1, 2)))
    matrices, others = split_parameters(net)
    assert sorted(tuple(each.shape) for each in matrices) == [(4, 5), (4, 5), (5, 4), (5, 4)]
    assert len(matrices) + len(others) == len(list(net.parameters()))
