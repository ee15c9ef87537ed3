"""Cached contrastive gradients against those of the large batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sutura.core.errors import UserError
from sutura.core.runtime import seed_everything
from sutura.train.align import PLACES, AlignObjective, AlignTraining
from sutura.train.align_config import LossConfig, Phase, RatesConfig, ViewsConfig
from sutura.train.align_phases import Freezer
from sutura.train.grad_cache import CachedStep, RandomState
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig
from tiny_align import tiny_feed, tiny_model, tiny_plan

PHASE = Phase(alpha=0.3, beta=0.7, gamma=0.05, delta=0.2)


class Plain:
    """As much of an accelerator as a step uses."""

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def backward(self, loss):
        loss.backward()


def gradients(training) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in training.named_parameters() if p.grad is not None}
    training.zero_grad(set_to_none=True)
    return found


def objective_of(planned, loss, views=None, every=0):
    return AlignObjective(planned, loss, views or ViewsConfig(), every)


@pytest.mark.parametrize("kind", ["siglip", "infonce"])
@pytest.mark.parametrize("micro", [3, 4, 8])
def test_equal_to_the_large_batch(tmp_path, kind, micro):
    """Chunks of 3, 3, 2 and 4, 4: gradients of every weight to 1e-5, the scale's and the bias's too."""
    planned = tiny_plan([PHASE])
    loss, views = LossConfig(contrastive=kind), ViewsConfig(local=2, size=8)
    training = AlignTraining(tiny_model(siglip=kind == "siglip"))
    objective = objective_of(planned, loss, views, every=1)
    large = tiny_feed(tmp_path, planned, views=views).micro_batches(0)[0]
    total, wanted_metrics = objective(training, large, 0)
    total.backward()
    wanted = gradients(training)
    parts = tiny_feed(tmp_path, planned, micro_batch=micro, views=views).micro_batches(0)
    loss_found, metrics = CachedStep(objective)(training, parts, 0, Plain())
    found = gradients(training)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name
    assert float(loss_found) == pytest.approx(float(total.detach()), rel=1e-5)
    assert metrics.keys() == wanted_metrics.keys()
    for name in wanted_metrics:
        if name != "explained":  # a mean over micro-batches
            assert float(metrics[name]) == pytest.approx(float(wanted_metrics[name]), rel=1e-3, abs=1e-6), (
                name
            )


def test_accumulation_alone_is_another_gradient(tmp_path):
    """Fault: accumulation is believed to add negatives."""
    planned = tiny_plan([Phase()])
    training = AlignTraining(tiny_model())
    objective = objective_of(planned, LossConfig())
    parts = tiny_feed(tmp_path, planned, micro_batch=4).micro_batches(0)
    for part in parts:
        objective(training, part, 0)[0].backward()
    accumulated = gradients(training)
    CachedStep(objective)(training, parts, 0, Plain())
    cached = gradients(training)
    name = "model.image_head.1.weight"
    assert not torch.allclose(accumulated[name], cached[name], rtol=0.05)


def test_dropout_is_drawn_again_as_before(tmp_path):
    """The second pass has to see the embeddings of the first; without the replay the gradient is another."""
    planned = tiny_plan([PHASE])
    training = AlignTraining(tiny_model(dropout=0.5)).train()
    objective = objective_of(planned, LossConfig())
    part = tiny_feed(tmp_path, planned).micro_batches(0)
    seed_everything(3)
    objective(training, part[0], 0)[0].backward()
    wanted = gradients(training)
    seed_everything(3)
    CachedStep(objective)(training, part, 0, Plain())
    found = gradients(training)
    assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


class Halves(Plain):
    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16)


def test_in_half_precision_no_gradient_is_lost(tmp_path):
    """Autocast keeps the weights it has cast; cast in the pass without a graph, they would get no gradient."""
    planned = tiny_plan([PHASE])
    training = AlignTraining(tiny_model())
    objective = objective_of(planned, LossConfig())
    CachedStep(objective)(training, tiny_feed(tmp_path, planned, micro_batch=4).micro_batches(0), 0, Plain())
    whole = gradients(training)
    CachedStep(objective)(training, tiny_feed(tmp_path, planned, micro_batch=4).micro_batches(0), 0, Halves())
    halves = gradients(training)
    assert halves.keys() == whole.keys()
    one, other = (torch.cat([found[name].flatten() for name in whole]) for found in (whole, halves))
    assert float(torch.nn.functional.cosine_similarity(one, other, dim=0)) > 0.98


def test_random_state_is_the_same_inside_and_untouched_outside():
    state, drop = RandomState.now(torch.device("cpu")), nn.Dropout(0.5)
    first, after = drop(torch.ones(50)), torch.get_rng_state()
    with state.again(torch.device("cpu")):
        assert torch.equal(drop(torch.ones(50)), first)
    assert torch.equal(torch.get_rng_state(), after)


def test_through_the_loop_it_is_the_run_of_the_large_batch(tmp_path):
    planned = tiny_plan([Phase(share=0.5, frozen=("vision",)), PHASE])

    def run(micro, cached):
        training = AlignTraining(tiny_model())
        objective = objective_of(planned, LossConfig())
        freeze = Freezer(
            training, PLACES, planned, RatesConfig(), 1e-3, {"image_head": 1.0, "text_head": 1.0}
        )
        result = fit(
            training,
            objective,
            tiny_feed(tmp_path, planned, micro_batch=micro),
            OptimConfig(lr=1e-3, weight_decay=0.1),
            seed=0,
            directory=tmp_path / f"{micro}-{cached}",
            groups=freeze.groups,
            before_step=freeze.before_step,
            whole_step=CachedStep(objective) if cached else None,
        )
        return training, result.loss.final_mean

    large, cached, accumulated = run(8, False), run(3, True), run(3, False)
    assert cached[1] == pytest.approx(large[1], rel=1e-4)
    assert accumulated[1] != pytest.approx(large[1], rel=1e-2)
    for (name, one), other in zip(large[0].named_parameters(), cached[0].parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-4), name


def test_several_processes_are_refused(tmp_path, monkeypatch):
    planned = tiny_plan([Phase()])
    objective = objective_of(planned, LossConfig())
    monkeypatch.setattr(
        "sutura.train.loop.here", lambda: SimpleNamespace(several=True, count=2, first=True, rank=0)
    )
    with pytest.raises(UserError, match="cannot be shared out over 2 processes"):
        fit(
            AlignTraining(tiny_model()),
            objective,
            tiny_feed(tmp_path, planned),
            OptimConfig(),
            seed=0,
            directory=None,
            whole_step=CachedStep(objective),
        )
