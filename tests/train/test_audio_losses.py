"""Losses of sound: nothing for equal clips, more for what is heard more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from multitok.train.audio_losses import MultiScaleMelLoss, PerceptualLoss, multi_resolution_loss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LOSSES: list[Loss] = [multi_resolution_loss, MultiScaleMelLoss(), PerceptualLoss()]


def _clips() -> torch.Tensor:
    t = torch.arange(16_000) / 16_000
    tones = [torch.sin(2 * torch.pi * hz * t) for hz in (220, 440, 1_500)]
    return 0.1 * torch.stack([sum(tones[: n + 1], torch.zeros(16_000)) for n in range(3)])


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_clips_cost_nothing(loss: Loss) -> None:
    assert float(loss(_clips(), _clips())) < 2e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_more_noise_costs_more_and_has_a_gradient(loss: Loss) -> None:
    clips = _clips()
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    costs = [float(loss(clips + scale * noise, clips)) for scale in (0.001, 0.01, 0.1)]
    assert costs == sorted(costs)
    assert costs[2] > 1.5 * costs[0]
    made = (clips + 0.01 * noise).requires_grad_()
    loss(made, clips).backward()
    assert made.grad is not None
    assert torch.isfinite(made.grad).all()
    assert made.grad.abs().max() > 0


def test_added_sound_disturbs_more_than_missing_sound() -> None:
    loss, (one, two, _) = PerceptualLoss(), _clips()
    assert float(loss(two[None], one[None])) > float(loss(one[None], two[None]))


def test_phase_counts_where_it_is_asked_for() -> None:
    clips = _clips()
    assert float(multi_resolution_loss(-clips, clips)) < 1e-6
    assert float(multi_resolution_loss(-clips, clips, phase=1.0)) > 0.01
