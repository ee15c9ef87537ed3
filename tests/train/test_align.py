"""The loss of an `align` step: who counts as a negative, and what is written down of it."""

from __future__ import annotations

import pytest
import torch

from sutura.core.log import read_metrics
from sutura.losses.queue import NegativeQueue
from sutura.models.momentum import MomentumTowers
from sutura.train.align import AlignObjective, AlignTraining, Embedded
from sutura.train.align_config import LossConfig, Phase, ViewsConfig
from sutura.train.loop import fit
from sutura.train.optim import OptimConfig
from tiny_align import DIM, tiny_feed, tiny_model, tiny_plan


@pytest.mark.parametrize("queue", [0, 4])
@pytest.mark.parametrize("kind", ["siglip", "infonce"])
def test_a_picture_that_is_in_a_step_twice_is_not_its_own_negative(tmp_path, kind, queue):
    """Fault: a step spans two shuffles, and a picture is told apart from its own copy."""
    feed = tiny_feed(tmp_path, count=12, batch=8)
    step = next(s for s in range(40) if len({*feed.indices(s).tolist()}) < 8)
    batch = feed.micro_batches(step)[0]
    model = tiny_model(siglip=kind == "siglip")
    training = AlignTraining(model)
    if queue:
        training = AlignTraining(model, MomentumTowers(model), NegativeQueue(queue, DIM))
        training.queue.push(-torch.ones(4, DIM), -torch.ones(4, DIM), torch.full((4,), 99))
    with torch.no_grad():
        model.log_scale.fill_(4.6)
        if model.bias is not None:
            model.bias.fill_(-50.0)
    own = torch.eye(12, DIM)[batch.ids]  # every picture at a place of its own, its texts with it
    same = torch.tensor(batch.ids)[:, None] == torch.tensor(batch.ids)
    objective = AlignObjective(
        tiny_plan([Phase()]), LossConfig(contrastive=kind, smoothing=0.0), ViewsConfig()
    )
    weights = {"contrastive": 1.0, "variance": 0.0, "hard_negative": 0.0}
    terms = objective.compare(training, Embedded(own, own, own[:, None]), same, batch.ids, weights)
    assert float(terms["contrastive"].detach()) < 1e-6


def test_terms_of_uneven_micro_batches_add_up_to_the_loss(tmp_path):
    """Fault: three pairs and two pairs weigh alike in what is written down, and not in what is trained."""
    planned = tiny_plan([Phase(alpha=0.3, beta=0.7, gamma=0.5, delta=0.2)])
    objective = AlignObjective(planned, LossConfig(), ViewsConfig(), gradient_every=0)
    feed = tiny_feed(tmp_path, planned, micro_batch=3)
    assert feed.sizes() == [3, 3, 2]
    fit(
        AlignTraining(tiny_model()), objective, feed, OptimConfig(lr=1e-3), seed=0, directory=tmp_path / "run"
    )
    for row in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        told = sum(row[f"{name}_weight"] * row[name] for name in planned.at(0).weights())
        assert told == pytest.approx(row["loss"], rel=1e-5)
