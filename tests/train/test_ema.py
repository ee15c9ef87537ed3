"""The target is the average it claims to be, and never an accident."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors
from sutura.train.ema import momentum, update_ema


def pair():
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    target = copy.deepcopy(online).requires_grad_(False)
    with torch.no_grad():
        for weight in online.parameters():
            weight.add_(torch.randn_like(weight))
    return target, online


def test_update_is_the_weighted_average():
    target, online = pair()
    online(torch.randn(8, 3))
    expected = {
        name: 0.9 * old + 0.1 * new
        for (name, old), new in zip(target.named_parameters(), online.parameters(), strict=True)
    }
    before = fingerprint_tensors(online.state_dict())
    update_ema(target, online, 0.9)
    for name, weight in target.named_parameters():
        torch.testing.assert_close(weight, expected[name].detach(), rtol=1e-6, atol=1e-7)
        assert not weight.requires_grad
    assert torch.equal(target[1].running_mean, online[1].running_mean)
    assert fingerprint_tensors(online.state_dict()) == before


def test_momentum_of_one_keeps_and_of_zero_copies_the_bits():
    target, online = pair()
    before = fingerprint_tensors(dict(target.named_parameters()))
    update_ema(target, online, 1.0)
    assert fingerprint_tensors(dict(target.named_parameters())) == before
    update_ema(target, online, 0.0)
    assert fingerprint_tensors(target.state_dict()) == fingerprint_tensors(online.state_dict())


def test_repeated_updates_reach_the_closed_form():
    target, online = pair()
    start = target[0].weight.clone()
    for _ in range(20):
        update_ema(target, online, 0.8)
    expected = 0.8**20 * start + (1 - 0.8**20) * online[0].weight
    torch.testing.assert_close(target[0].weight, expected.detach(), rtol=1e-5, atol=1e-6)


def test_schedule_ends():
    assert momentum(0, 100) == 0.996
    assert momentum(50, 100) == pytest.approx(0.998)
    assert momentum(100, 100) == 1.0
    assert momentum(25, 100, 0.9, 1.0, "cosine") == pytest.approx(0.9 + 0.1 * 0.5 * (1 - 2**-0.5))
    assert momentum(400, 100) == 1.0


def test_what_cannot_be_followed_is_refused():
    """Fault: a moving average of a frozen network, which equals it for ever."""
    target, online = pair()
    with pytest.raises(UserError, match="asks for gradients"):
        update_ema(online, online, 0.9)
    with pytest.raises(UserError, match="frozen"):
        update_ema(target, online.requires_grad_(False), 0.9)
    with pytest.raises(UserError, match=r"differ in 1\."):
        update_ema(target, nn.Sequential(nn.Linear(3, 4)), 0.9)
    with pytest.raises(UserError, match=r"0\.weight: target \(4, 3\), online \(4, 2\)"):
        update_ema(target, nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)), 0.9)
