"""Stochastic depth's masks: their rates, their scale, what they depend on."""

from __future__ import annotations

import pytest
import torch

from stability.training.masks import draw_seed, keep_masks


def test_rates_grow_linearly_and_the_mean_is_kept():
    masks = keep_masks(seed=0, step=0, num_residuals=8, batch_size=20_000, rate=0.6)
    dropped = (masks == 0).float().mean(dim=1)
    assert dropped.tolist() == pytest.approx([0, 0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6], abs=0.015)
    assert masks.mean(dim=1).tolist() == pytest.approx([1.0] * 8, abs=0.04)
    assert masks[-1].unique().tolist() == pytest.approx([0.0, 2.5])


def test_follow_from_seed_and_step_alone():
    torch.manual_seed(1)
    first = keep_masks(3, 17, 4, 32, 0.5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, keep_masks(3, 17, 4, 32, 0.5))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, keep_masks(3, 18, 4, 32, 0.5))
    assert not torch.equal(first, keep_masks(4, 17, 4, 32, 0.5))
    # The branches of a block share a rate, not a draw.
    assert not torch.equal(first[2], first[3])


def test_purposes_never_share_a_seed():
    assert len({draw_seed(purpose, seed, step) for purpose in "ab" for seed in range(20) for step in range(20)}) == 800
