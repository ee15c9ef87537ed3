"""Schedules are pure functions with the ends they claim; groups account for every weight."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.train.optim import Group, OptimConfig, build_optimizer, lr_factor, set_lr, trainable_parameters


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_warm_up_rises_to_the_peak_and_is_never_zero(schedule):
    rise = [lr_factor(step, 100, schedule, warmup=4) for step in range(5)]
    assert rise == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_shapes_after_the_warm_up():
    assert lr_factor(10, 20, "constant", warmup=3) == 1.0
    assert lr_factor(10, 20, "linear") == pytest.approx(0.5)
    assert lr_factor(5, 20, "cosine") == pytest.approx(0.5 * (1 + 2**-0.5))
    assert lr_factor(10, 20, "cosine", floor=0.1) == pytest.approx(0.55)
    assert lr_factor(20, 20, "linear", floor=0.1) == pytest.approx(0.1)
    assert lr_factor(13, 20, "linear", warmup=6) == pytest.approx(0.5)


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 400),
    floor=st.floats(0, 1),
    schedule=st.sampled_from(["constant", "cosine", "linear"]),
)
def test_factors_stay_between_zero_and_one_and_fall_after_the_warm_up(steps, warmup, floor, schedule):
    factors = [lr_factor(step, steps, schedule, warmup, floor) for step in range(steps)]
    assert all(0 < f <= 1 + 1e-12 for f in factors)
    after = factors[warmup:]
    assert all(a >= b - 1e-12 for a, b in pairwise(after))
    assert all(f >= floor - 1e-12 for f in after)


def toy():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    return model


def by_name(optimizer):
    return {name: g for g in optimizer.param_groups for name in g["names"]}


def test_biases_and_norms_do_not_decay():
    trainable = trainable_parameters(toy())
    groups = by_name(build_optimizer(trainable, OptimConfig(weight_decay=0.3)))
    assert {n: g["weight_decay"] for n, g in groups.items()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }
    everything = by_name(build_optimizer(trainable, OptimConfig(weight_decay=0.3, decay_all=True)))
    assert {g["weight_decay"] for g in everything.values()} == {0.3}


def test_names_and_weights_of_a_group_stand_in_the_same_order():
    """The checkpoint finds a weight's state by this order."""
    trainable = trainable_parameters(toy())
    for group in build_optimizer(trainable, OptimConfig()).param_groups:
        assert [id(p) for p in group["params"]] == [id(trainable[name]) for name in group["names"]]


def test_groups_have_their_own_rate_and_decay():
    trainable = trainable_parameters(toy())
    config = OptimConfig(lr=0.1, weight_decay=0.3, schedule="linear")
    first = Group("linear", ["0.weight", "0.bias"], lr_scale=0.5, weight_decay=0.7)
    optimizer = build_optimizer(trainable, config, [first, Group("norm", ["1.weight", "1.bias"])])
    assert set_lr(optimizer, config, 5, 10) == pytest.approx(0.05)
    groups = by_name(optimizer)
    assert groups["0.weight"]["lr"] == groups["0.bias"]["lr"] == pytest.approx(0.025)
    assert groups["1.bias"]["lr"] == pytest.approx(0.05)
    assert groups["0.weight"]["weight_decay"] == 0.7


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([Group("a", ["0.weight"])], "3 trainable weights are in no group: 0.bias"),
        ([Group("a", ["2.weight"])], "'2.weight', which is no trainable weight"),
        ([Group("a", ["0.weight"]), Group("b", ["0.weight"])], "in two groups, 'a' and 'b'"),
    ],
)
def test_every_trainable_weight_is_in_one_group(groups, told):
    with pytest.raises(UserError, match=told):
        build_optimizer(trainable_parameters(toy()), OptimConfig(), groups)


def test_trainable_weights_are_found_and_float32():
    assert list(trainable_parameters(toy())) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    model = toy()
    model[2].to(torch.bfloat16)
    trainable_parameters(model)
    model[2].requires_grad_(True)
    with pytest.raises(UserError, match="float32"):
        trainable_parameters(model)


@pytest.mark.parametrize("bad", [{"lr": 0}, {"clip": -1}, {"schedule": "cosin"}, {"precision": "float16"}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        parse(OptimConfig, bad)


def test_muon_moves_its_matrices_and_adamw_the_rest():
    """Each weight moves as the optimizer of its group alone would move it, at its group's learning rate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    alone = copy.deepcopy(model)
    config = OptimConfig(lr=0.1, weight_decay=0.2, schedule="constant")
    rest = ["0.bias", "1.weight", "1.bias"]
    groups = [Group("matrix", ["0.weight"], lr_scale=0.5, muon=True), Group("rest", rest)]
    both = build_optimizer(dict(model.named_parameters()), config, groups)
    others = [
        torch.optim.Muon([alone[0].weight], lr=0.05, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([alone[1].weight], lr=0.1, weight_decay=0.2),
        torch.optim.AdamW([alone[0].bias, alone[1].bias], lr=0.1, weight_decay=0.0),
    ]
    x = torch.randn(5, 3)
    for step in range(3):
        assert set_lr(both, config, step, 3) == 0.1
        for network, steppers in ((model, [both]), (alone, others)):
            network.zero_grad()
            network(x).square().sum().backward()
            for stepper in steppers:
                stepper.step()
    for (name, weight), other in zip(model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(weight, other, msg=name)


def test_muon_refuses_what_is_no_matrix():
    trainable = dict(nn.Linear(3, 4).named_parameters())
    with pytest.raises(UserError, match=r"'bias' in group 'all' has shape \(4,\)"):
        build_optimizer(trainable, OptimConfig(), [Group("all", ["weight", "bias"], muon=True)])


def test_a_group_follows_its_own_factor_and_at_zero_nothing_moves_it():
    """Fault: a frozen group is still decayed."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    config = OptimConfig(lr=0.1, weight_decay=0.5, schedule="constant")
    groups = [
        Group("late", ["weight"], lr_scale=2.0, factor=lambda step: float(step >= 2)),
        Group("always", ["bias"]),
    ]
    optimizer = build_optimizer(dict(model.named_parameters()), config, groups)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    for step in range(3):
        set_lr(optimizer, config, step, 3)
        assert {g["group"]: g["lr"] for g in optimizer.param_groups} == {
            "late": pytest.approx(0.2 if step >= 2 else 0.0),
            "always": 0.1,
        }
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        assert torch.equal(model.weight, weight) is (step < 2)
        assert not torch.equal(model.bias, bias)
