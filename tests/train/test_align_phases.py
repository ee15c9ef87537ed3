"""Phases: what each step weighs and moves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_tensors
from sutura.core.log import read_metrics
from sutura.train.align import PLACES, AlignObjective, AlignTraining
from sutura.train.align_config import LossConfig, Phase, RatesConfig, ViewsConfig
from sutura.train.align_phases import Freezer, plan
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig
from tiny_align import tiny_feed, tiny_model, tiny_plan

HEADS = {"image_head": 10.0, "text_head": 10.0}
PUBLISHED = (
    Phase(epochs=3, frozen=("vision", "text")),
    Phase(epochs=1, alpha=0.1, beta=0.9, frozen=("vision", "text")),
    Phase(alpha=0.1, beta=0.9, frozen=("vision", "text"), vision_blocks=1, vision_lr=2e-3),
)


def freezer(training, planned, lr=1e-2, rates=None):
    return Freezer(training, PLACES, planned, rates or RatesConfig(), lr, HEADS)


def run(tmp_path, planned, steps=None, *, optim=None, resume=False, every=0, on_step=None, directory=None):
    training = AlignTraining(tiny_model())
    freeze = freezer(training, planned)
    feed = tiny_feed(tmp_path, planned)
    result = fit(
        training,
        AlignObjective(planned, LossConfig(), ViewsConfig()),
        feed,
        optim or OptimConfig(lr=1e-2, weight_decay=0.1, warmup=1, decay_all=True),
        seed=0,
        directory=directory,
        groups=freeze.groups,
        before_step=freeze.before_step,
        on_step=on_step,
        checkpoint_every=every,
        resume=resume,
    )
    return training, result


def bits(training, prefix):
    return fingerprint_tensors({n: p for n, p in training.named_parameters() if n.startswith(prefix)})


def test_steps_of_the_published_order():
    found = plan(PUBLISHED, 150, per_epoch=10, epochs=15)
    assert found.starts == (0, 30, 40)
    assert [found.number(step) for step in (0, 29, 30, 39, 40, 149)] == [0, 0, 1, 1, 2, 2]
    assert found.at(35).alpha == 0.1


def test_the_published_order_is_flagged_and_the_corrected_one_is_not():
    """Fault: the target is the average of a frozen network, and so the same network for ever."""
    told = plan(PUBLISHED, 150, per_epoch=10, epochs=15).flags()
    assert len(told) == 1
    assert "EMA OF A FROZEN NETWORK in phase 2 (steps 31 to 40)" in told[0]
    thawed = Phase(epochs=1, frozen=("vision", "text"), vision_blocks=1)
    corrected = (PUBLISHED[0], thawed, PUBLISHED[2])
    assert plan(corrected, 150, per_epoch=10, epochs=15).flags() == []
    ends_frozen = (Phase(epochs=5, alpha=0.1), Phase(alpha=0.1, frozen=("vision",)))
    told = plan(ends_frozen, 150, per_epoch=10, epochs=15).flags()
    assert "FROZEN PICTURE TOWER in phase 2 (steps 51 to 150)" in told[0]
    assert "EMA OF A FROZEN NETWORK" not in told[0]
    never = plan([Phase()], 150, per_epoch=10, epochs=15).flags()
    assert "alpha is 0 in every phase" in never[0]


def test_phases_that_do_not_fill_the_run_are_refused():
    with pytest.raises(UserError, match="The phases take 20 steps and the run has 30"):
        plan([Phase(epochs=2)], 30, per_epoch=10, epochs=3)
    with pytest.raises(UserError, match="neither epochs nor share"):
        plan([Phase(), Phase(epochs=1)], 30, per_epoch=10, epochs=3)
    with pytest.raises(UserError, match=r"phases.1 has no step"):
        plan([Phase(share=1.0), Phase()], 30, per_epoch=10, epochs=3)


def test_frozen_is_the_same_bits_until_its_phase_and_decay_does_not_move_it(tmp_path):
    """Fault: weight decay, or moments from another phase, move what is called frozen."""
    planned = tiny_plan(
        [
            Phase(share=1 / 3, frozen=("vision", "text")),
            Phase(share=1 / 3, alpha=0.2, frozen=("text",)),
            Phase(frozen=("vision",), vision_blocks=1, alpha=0.2),
        ],
        steps=9,
    )
    training = AlignTraining(tiny_model())
    freeze = freezer(training, planned)
    parts = {
        "vision": "model.context_encoder",
        "first block": "model.context_encoder.blocks.0",
        "last block": "model.context_encoder.blocks.1",
        "norm": "model.context_encoder.norm",
        "text": "model.text.",
        "predictor": "model.predictor",
        "head": "model.image_head",
    }
    seen = [{name: bits(training, prefix) for name, prefix in parts.items()}]
    fit(
        training,
        AlignObjective(planned, LossConfig(), ViewsConfig()),
        tiny_feed(tmp_path, planned),
        OptimConfig(lr=1e-2, weight_decay=0.1, decay_all=True),
        seed=0,
        directory=None,
        groups=freeze.groups,
        before_step=freeze.before_step,
        on_step=lambda done, row: seen.append({n: bits(training, p) for n, p in parts.items()}),
    )
    moved = [{name for name in parts if a[name] != b[name]} for a, b in pairwise(seen)]
    assert moved[:3] == [{"head"}] * 3
    assert moved[3:6] == [set(parts) - {"text"}] * 3
    assert moved[6:] == [{"vision", "last block", "norm", "text", "predictor", "head"}] * 3


def test_a_frozen_tower_has_no_graph_and_no_optimizer_state(tmp_path):
    planned = tiny_plan([Phase(frozen=("vision", "text"))])
    training = AlignTraining(tiny_model())
    freeze = freezer(training, planned)
    freeze.before_step(training, 0)
    batch = tiny_feed(tmp_path, planned).micro_batches(0)[0]
    assert not training.model.context_encoder(batch.pixels)[0].requires_grad
    names = {name for group in freeze.groups(training) for name in group.parameters}
    assert not any(name.startswith(("model.context_encoder", "model.text.")) for name in names)


def test_rates_of_the_parts(tmp_path):
    planned = plan(PUBLISHED, 15, per_epoch=1, epochs=15)
    training = AlignTraining(tiny_model())
    groups = freezer(training, planned).groups(training)
    rate = {name: [g.factor(step) for step in (0, 3, 4)] for g in groups for name in g.parameters}
    assert rate["model.predictor.mask_token"] == [0, 20, 20]
    assert rate["model.image_head.1.weight"] == [10, 10, 10]
    assert rate["model.log_scale"] == [1, 1, 1]
    assert rate["model.context_encoder.blocks.1.mlp.up.weight"] == [0, 0, pytest.approx(0.2)]
    assert rate["model.context_encoder.norm.weight"] == [0, 0, pytest.approx(0.2)]
    assert "model.context_encoder.blocks.0.mlp.up.weight" not in rate
    assert not any(name.startswith("model.target_encoder") for name in rate)


def test_phases_that_ask_for_what_is_not_there():
    training = AlignTraining(tiny_model())
    with pytest.raises(UserError, match="has 2 blocks"):
        freezer(training, tiny_plan([Phase(frozen=("vision",), vision_blocks=3)]))
    every = ("vision", "text", "predictor", "image_head", "text_head", "scale")
    with pytest.raises(UserError, match="freezes everything"):
        freezer(training, tiny_plan([Phase(frozen=every)]))
    with pytest.raises(ValueError, match="Input should be"):
        Phase(frozen=("heads",))
    with pytest.raises(ValueError, match="no loss"):
        Phase(beta=0, gamma=0)


def test_resumed_across_a_phase_equals_uninterrupted(tmp_path):
    planned = tiny_plan([Phase(share=0.5, frozen=("vision", "text")), Phase(alpha=0.2)], steps=8)
    whole, _ = run(tmp_path / "a", planned, directory=tmp_path / "whole", every=2)

    class Stop(Exception):
        pass

    def stop(done, row):
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "a", planned, directory=tmp_path / "cut", every=2, on_step=stop)
    again, result = run(tmp_path / "a", planned, directory=tmp_path / "cut", every=2, resume=True)
    assert fingerprint_tensors(dict(again.named_parameters())) == fingerprint_tensors(
        dict(whole.named_parameters())
    )
    rows = [
        [
            {k: v for k, v in row.items() if k != "seconds"}
            for row in read_metrics(tmp_path / n / "metrics.jsonl")
        ]
        for n in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    assert result.steps == 8
