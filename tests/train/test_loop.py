"""The loop against a plain torch loop, and the claims its docstring makes."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors
from sutura.core.log import read_metrics
from sutura.core.runtime import seed_everything
from sutura.train.loop import fit
from sutura.train.modes import set_train_mode
from sutura.train.optim import Group, OptimConfig, lr_factor


def losses_of(result):
    return [row["loss"] for row in read_metrics(result.history)]


def test_losses_equal_those_of_a_plain_torch_loop(toy, tmp_path):
    """Golden losses, recomputed: accumulation, clipping, decay, schedule and dropout written out by hand."""
    feed, config = toy.feed(), toy.optim.model_copy(update={"clip": 0.5})
    result = fit(toy.model(), toy.objective, feed, config, seed=5, directory=tmp_path)

    model = toy.model()
    set_train_mode(model)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
    )
    expected, norms = [], []
    for step in range(feed.steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * lr_factor(step, feed.steps, "cosine", 3)
        seed_everything(5, "step", step)
        optimizer.zero_grad()
        total = 0.0
        for batch in feed.micro_batches(step):
            loss = (model(batch.x) - batch.y).square().sum() / 10
            loss.backward()
            total += loss.item()
        norms.append(float(torch.nn.utils.clip_grad_norm_(weights, 0.5)))
        optimizer.step()
        expected.append(total)

    assert losses_of(result) == pytest.approx(expected, rel=1e-5)
    assert [row["grad_norm"] for row in read_metrics(result.history)] == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 0.5, "clipping was never needed, so it was not tested"


def test_four_examples_are_learned_by_heart(tmp_path):
    x, y = torch.eye(4), torch.tensor([[1.0], [-1.0], [0.5], [2.0]])

    class Feed:
        steps = 200

        def micro_batches(self, step):
            return [slice(0, 3), slice(3, 4)]

    def objective(model, part, step):
        return (model(x[part]) - y[part]).square().sum() / 4, {}

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 1))
    config = OptimConfig(lr=2e-2, weight_decay=0.0, schedule="linear", clip=None)
    result = fit(model, objective, Feed(), config, seed=0, directory=tmp_path)
    assert result.loss.first > 0.5
    assert result.loss.final_mean < 1e-3


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(toy):
    """Fault: the seed is in the config and never read."""

    def bits(seed, order):
        model = toy.model()
        fit(model, toy.objective, toy.feed(seed=order), toy.optim, seed=seed, directory=None)
        return fingerprint_tensors(model.state_dict())

    assert bits(1, 1) == bits(1, 1)
    assert bits(1, 1) != bits(2, 1), "dropout does not follow the run's seed"
    assert bits(1, 1) != bits(1, 2), "the order of the data does not follow the feed's seed"


def test_randomness_outside_the_loop_does_not_reach_it(toy):
    """Fault: data order and dropout differ per encoder, because one of them drew more numbers before."""

    def bits(before, during):
        torch.rand(before)
        model = toy.model()

        def evaluate(model, step):
            return {"noise": float(torch.rand(during).sum())}

        fit(
            model,
            toy.objective,
            toy.feed(),
            toy.optim,
            seed=1,
            directory=None,
            evaluate=evaluate,
            evaluate_every=2,
        )
        return fingerprint_tensors(model.state_dict())

    assert bits(1, 1) == bits(7, 5)


def test_frozen_weights_keep_their_bits_and_get_no_gradient(toy):
    """Fault: `model.train()` on the parent puts the frozen encoder back in train mode."""
    model = toy.model()
    before = fingerprint_tensors(model.encoder.state_dict())
    moved_before = fingerprint_tensors(model.projector.state_dict())

    def watching(model, batch, step):
        assert not model.encoder.training
        assert not any(m.training for m in model.encoder.modules())
        assert all(m.training for m in model.projector.modules())
        return toy.objective(model, batch, step)

    def evaluate(model, step):
        assert not any(m.training for m in model.modules())
        assert not torch.is_grad_enabled()
        return {}

    fit(model, watching, toy.feed(), toy.optim, seed=0, directory=None, evaluate=evaluate, evaluate_every=2)
    assert fingerprint_tensors(model.encoder.state_dict()) == before
    assert fingerprint_tensors(model.projector.state_dict()) != moved_before
    assert all(p.grad is None for p in model.encoder.parameters())


def test_half_precision_weights_do_not_train(toy):
    """Fault: trained weights in bfloat16 without a float32 master."""
    model = toy.model()
    model.head.to(torch.bfloat16)
    with pytest.raises(
        UserError, match=r"2 trainable weights are not float32: head\.weight \(torch\.bfloat16\)"
    ):
        fit(model, toy.objective, toy.feed(), toy.optim, seed=0, directory=None)


def test_bfloat16_is_autocast_over_float32_weights(toy, tmp_path):
    """Fault: no float32 master; here weights, gradients and the optimizer's state all stay float32."""
    seen = {}

    def objective(model, batch, step):
        seen["activation"] = model.projector[0](batch.x @ torch.ones(6, 8)).dtype
        return toy.objective(model, batch, step)

    def on_weights(model, step):
        seen["gradient"] = {p.grad.dtype for p in model.parameters() if p.requires_grad}

    model = toy.model()
    config = toy.optim.model_copy(
        update={"precision": "bfloat16", "lr": 1e-5, "warmup": 0, "weight_decay": 0.0}
    )
    start = model.head.weight.detach().clone()
    fit(
        model,
        objective,
        toy.feed(2),
        config,
        seed=0,
        directory=tmp_path,
        after_step=on_weights,
        checkpoint_every=2,
    )
    assert seen == {"activation": torch.bfloat16, "gradient": {torch.float32}}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    step = (model.head.weight - start).abs().max().item()
    assert 0 < step < 3e-5, "an update smaller than bfloat16's spacing has to land"

    from sutura.core.checkpoint import load_tensors

    state = load_tensors(tmp_path / "checkpoint-2" / "optimizer.safetensors")
    assert {t.dtype for t in state.values()} == {torch.float32}
    fp32 = fit(toy.model(), toy.objective, toy.feed(2), toy.optim, seed=0, directory=None)
    assert fp32.steps == 2, "precision can change from run to run in one process"


def test_nothing_to_train_is_an_error(toy):
    model = toy.model().requires_grad_(False)
    with pytest.raises(UserError, match="every weight of the model is frozen"):
        fit(model, toy.objective, toy.feed(), toy.optim, seed=0, directory=None)


def test_a_bad_step_changes_nothing_and_is_written_down(toy, tmp_path):
    """Fault: NaN skipped silently."""
    seen = []

    def after(model, step):
        seen.append(step)

    model = toy.model()
    feed = toy.feed(6, bad=[2, 4])
    bits = {}

    def on_step(done, row):
        bits[done] = fingerprint_tensors(dict(model.named_parameters()))

    result = fit(
        model, toy.objective, feed, toy.optim, seed=0, directory=tmp_path, after_step=after, on_step=on_step
    )
    assert result.bad_batches == 2
    assert seen == [0, 1, 3, 5]
    assert bits[3] == bits[2]
    assert bits[4] != bits[3]
    rows = list(read_metrics(tmp_path / "metrics.jsonl"))
    assert [row["loss"] is None for row in rows] == [False, False, True, False, True, False]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text(), "NaN is not JSON"
    dumped = [json.loads(line) for line in (tmp_path / "bad_batches.jsonl").read_text().splitlines()]
    assert [d["step"] for d in dumped] == [3, 5]
    assert dumped[0]["ids"] == [str(i) for i in feed.plan[2].tolist()]
    assert math.isfinite(result.loss.final_mean)
    assert result.loss.window == 4


def test_an_infinite_gradient_under_a_finite_loss_is_skipped_too(toy):
    def objective(model, batch, step):
        loss, metrics = toy.objective(model, batch, step)
        # the square root has an infinite slope at zero
        return loss + (model.head.bias.sum() - model.head.bias.detach().sum()).sqrt() * 1.0, metrics

    result = fit(toy.model(), objective, toy.feed(3), toy.optim, seed=0, directory=None)
    assert result.bad_batches == 3


def test_too_many_bad_steps_stop_the_run(toy, tmp_path):
    config = toy.optim.model_copy(update={"max_bad_batches": 2})
    with pytest.raises(UserError, match=r"3 steps had a loss or gradient that is not finite \(2 allowed\)"):
        fit(toy.model(), toy.objective, toy.feed(9, bad=range(1, 9)), config, seed=0, directory=tmp_path)


def test_metrics_are_averaged_over_micro_batches(toy, tmp_path):
    rows = []
    result = fit(
        toy.model(),
        toy.objective,
        toy.feed(2),
        toy.optim,
        seed=0,
        directory=tmp_path,
        on_step=lambda done, row: rows.append((done, row)),
        evaluate=lambda model, done: {"score": done * 10},
        evaluate_every=1,
    )
    assert [done for done, _ in rows] == [1, 2]
    assert rows[0][1]["size"] == 5.0
    assert list(read_metrics(result.history))[1] == {"step": 2, **rows[1][1]}
    assert rows[1][1]["evaluation"] == {"score": 20}
    assert rows[0][1].keys() == {"loss", "grad_norm", "lr", "seconds", "evaluation", "size", "worst"}


def test_a_metric_may_not_take_the_loops_names(toy):
    with pytest.raises(UserError, match="'loss'"):
        fit(
            toy.model(),
            lambda m, b, s: (m(b.x).sum(), {"loss": 1.0}),
            toy.feed(),
            toy.optim,
            seed=0,
            directory=None,
        )


def test_groups_scale_the_learning_rate(toy):
    """A group at rate 0 keeps its bits (and its decay is off with it)."""

    def groups(model):
        head = [n for n, p in model.named_parameters() if p.requires_grad and n.startswith("head")]
        rest = [n for n, p in model.named_parameters() if p.requires_grad and n not in head]
        return [Group("projector", rest), Group("head", head, lr_scale=0.0)]

    model = toy.model()
    head, projector = (fingerprint_tensors(m.state_dict()) for m in (model.head, model.projector))
    fit(model, toy.objective, toy.feed(3), toy.optim, seed=0, directory=None, groups=groups)
    assert fingerprint_tensors(model.head.state_dict()) == head
    assert fingerprint_tensors(model.projector.state_dict()) != projector


def test_the_final_loss_is_smoothed(toy, tmp_path):
    """Fault: the last step's loss called the final loss."""
    result = fit(toy.model(), toy.objective, toy.feed(), toy.optim, seed=0, directory=tmp_path, window=4)
    tail = torch.tensor(losses_of(result)[-4:], dtype=torch.float64)
    assert result.loss.final_mean == pytest.approx(tail.mean().item())
    assert result.loss.final_sd == pytest.approx(tail.std().item())
    assert result.loss.first == losses_of(result)[0]


def test_a_feed_that_runs_dry_is_an_error(toy):
    class Dry:
        steps = 3

        def micro_batches(self, step):
            return []

    with pytest.raises(UserError, match="no batch for step 0"):
        fit(toy.model(), toy.objective, Dry(), toy.optim, seed=0, directory=None)


def test_gradients_from_before_do_not_count(toy):
    def bits(model):
        fit(model, toy.objective, toy.feed(1), toy.optim, seed=0, directory=None)
        return fingerprint_tensors(dict(model.named_parameters()))

    stale = toy.model()
    stale.head.bias.grad = torch.full((1,), 100.0)
    assert bits(stale) == bits(toy.model())
    assert stale.head.bias.grad is None
