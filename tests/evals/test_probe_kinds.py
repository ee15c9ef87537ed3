"""The probes themselves: solvers at their optimum, votes by hand, draws that are what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sutura.core.checkpoint import write_json
from sutura.core.errors import UserError
from sutura.encoders.cache import INDEX, ROWS, FeatureStore
from sutura.evals.probe_attentive import AttentiveProbe, FeatureFeed, attentive_probe, default_heads
from sutura.evals.probe_config import AttentiveConfig
from sutura.evals.probe_features import Features
from sutura.evals.probe_fewshot import draw_shots, fewshot
from sutura.evals.probe_knn import vote
from sutura.evals.probe_linear import choose_penalty, fit_linear, sweep

Make = Callable[[Tensor, np.ndarray], Features]


@pytest.fixture
def store(tmp_path: Path) -> Make:
    """Features on disk, made from a tensor."""
    made = 0

    def write(patches: Tensor, labels: np.ndarray) -> Features:
        nonlocal made
        made += 1
        folder = tmp_path / str(made)
        folder.mkdir()
        (folder / ROWS).write_bytes(patches.float().contiguous().numpy().tobytes())
        ids = [f"{made}/{i}" for i in range(len(patches))]
        index = {"fingerprint": str(made), "num_tokens": patches.shape[1], "width": patches.shape[2]}
        index |= {"dtype": "float32", "image_ids": ids, "unreadable": {}, "facts": {}}
        write_json(folder / INDEX, index)
        return Features([(FeatureStore(folder), ids)], labels)

    return write


def clouds(n: int, width: int = 6, classes: int = 3, seed: int = 0, spread: float = 1.0):
    draw = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    return centres[labels] + spread * torch.randn(n, width, generator=draw), labels.numpy()


@pytest.mark.parametrize("several", [False, True])
def test_the_linear_probe_is_at_the_optimum(several: bool):
    """The gradient of the objective, written with torch's own losses, is zero at the solution."""
    features, labels = clouds(90, spread=4.0)
    if several:
        labels = (np.random.default_rng(0).random((90, 3)) < 0.4).astype(np.float32)
    found = fit_linear(features, labels, 3, 0.1)
    x = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0)
    weight = torch.from_numpy(found.weight.copy()).requires_grad_(True)
    bias = torch.from_numpy(found.bias.copy()).requires_grad_(True)
    logits, y = x @ weight + bias, torch.from_numpy(labels)
    if several:
        loss = F.binary_cross_entropy_with_logits(logits, y.double(), reduction="sum") / 90
    else:
        loss = F.cross_entropy(logits, y)
    (loss + 0.05 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 2e-5
    assert torch.from_numpy(found.scores(features)) == pytest.approx(logits.detach().float(), abs=1e-4)


def test_scale_shift_and_dead_channels_of_the_features_change_nothing():
    features, labels = clouds(60)
    other = torch.cat([features * 7 - 30, torch.full((60, 1), 1e4)], dim=1)
    a, b = (fit_linear(x, labels, 3, 0.01).scores(x) for x in (features, other))
    assert a == pytest.approx(b, abs=2e-2)
    assert np.isfinite(fit_linear(torch.ones(60, 4), labels, 3, 0.01).scores(torch.ones(5, 4))).all()


def test_the_penalty_is_chosen_on_the_selection_part_and_nowhere_else():
    """Noise to learn by heart: the fit alone wants no penalty, unseen pictures want one."""
    draw = torch.Generator().manual_seed(0)
    labels = np.arange(40) % 2
    signal = torch.from_numpy(labels * 2.0 - 1).float()[:, None] + torch.randn(40, 1, generator=draw)
    features = torch.cat([signal, torch.randn(40, 60, generator=draw)], dim=1)
    unseen = np.arange(400) % 2
    fresh = torch.from_numpy(unseen * 2.0 - 1).float()[:, None] + torch.randn(400, 1, generator=draw)
    select = torch.cat([fresh, torch.randn(400, 60, generator=draw)], dim=1)
    fits = sweep(features, labels, 2, [1e-6, 10.0])
    assert [one.penalty for one in fits] == [10.0, 1e-6]
    assert (fits[1].scores(features).argmax(1) == labels).all()
    chosen, told = choose_penalty(fits, select, unseen)
    assert chosen == 10.0
    assert told[10.0] > told[1e-6] + 0.02
    equal, _ = choose_penalty([fits[0], fits[0]._replace(penalty=1.0)], select, unseen)
    assert equal == 10.0  # of equal scores the most decayed


def test_votes_by_hand():
    bank = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    labels = np.array([0, 1, 1])
    query = torch.tensor([[5.0, 1.0]])
    cosine = F.normalize(query) @ F.normalize(bank).T
    for k, near in ((1, [0]), (2, [0, 2]), (3, [0, 2, 1])):
        weight = (cosine[0, near] / 0.5).exp()
        expected = [float(weight[labels[near] == c].sum() / weight.sum()) for c in range(2)]
        assert vote(query, bank, labels, 2, [k], 0.5)[k][0].tolist() == pytest.approx(expected)
    both = vote(query, bank, labels, 2, [1, 3], 0.5)
    assert both[1].tolist() == [[1.0, 0.0]]
    several = np.array([[1, 1], [0, 1], [0, 0]], np.float32)
    assert vote(query, bank, several, 2, [1], 0.5)[1].tolist() == [[1.0, 1.0]]


def test_neighbours_ignore_length_and_find_clouds():
    features, labels = clouds(90)
    queries, truth = clouds(30, seed=1)
    scores = vote(queries * 100, features, labels, 3, [5], 0.07)[5]
    assert (scores.argmax(1) == truth).mean() > 0.9


def test_patches_come_from_both_stores_in_the_order_asked_for(store: Make):
    first, second = torch.randn(4, 3, 5), torch.randn(3, 3, 5)
    both = store(first, np.zeros(4, int)) + store(second, np.ones(3, int))
    whole = torch.cat([first, second])
    order = [6, 0, 4, 3, 0]
    assert torch.equal(both.patches(order), whole[order])
    assert torch.allclose(both.pooled(), whole.mean(1), atol=1e-6)
    assert both.labels.tolist() == [0] * 4 + [1] * 3


def test_the_attentive_probe_reads_what_averaging_hides(store: Make):
    """The class is the sign of one channel at the one marked patch; the others carry it with random signs."""
    draw = torch.Generator().manual_seed(0)

    def make(n: int) -> Features:
        patches = torch.randn(n, 9, 16, generator=draw)
        patches[:, :, 0] = 0
        sign = torch.randint(0, 2, (n,), generator=draw)
        where = torch.randint(0, 9, (n,), generator=draw)
        patches[torch.arange(n), where, 0] = 6.0
        patches[:, :, 1] = 3.0 * (2.0 * torch.randint(0, 2, (n, 9), generator=draw) - 1)
        patches[torch.arange(n), where, 1] = 3.0 * (2.0 * sign - 1)
        return store(patches, sign.numpy())

    fit, select, test = make(400), make(100), make(200)
    config = AttentiveConfig(lrs=(1e-5, 1e-2), weight_decays=(0.01,), epochs=12, batch=64, heads=2)
    scores, told = attentive_probe(fit, select, test, 2, config, seed=0, device="cpu")
    assert told["lr"] == 1e-2
    assert set(told["selection"]) == {"lr 1e-05, weight decay 0.01", "lr 0.01, weight decay 0.01"}
    attentive = (scores.argmax(1) == test.labels).mean()
    pooled = fit_linear(fit.pooled(), fit.labels, 2, 0.01).scores(test.pooled())
    assert attentive > 0.95
    assert (pooled.argmax(1) == test.labels).mean() < 0.75


def test_the_attentive_probe_repeats_and_its_passes_hold_every_picture(store: Make):
    features = store(torch.randn(10, 2, 4), np.arange(10) % 2)
    feed = FeatureFeed(features, epochs=2, batch=4, seed=3)
    assert feed.steps == 6
    shown = torch.cat([feed.micro_batches(i)[0].patches.sum((1, 2)) for i in range(3)])
    assert torch.allclose(shown.sort().values, features.patches(range(10)).sum((1, 2)).sort().values)
    config = AttentiveConfig(lrs=(1e-2,), weight_decays=(0.01,), epochs=2, batch=4)
    runs = [attentive_probe(features, features, features, 2, config, seed=1, device="cpu")[0] for _ in "ab"]
    assert np.array_equal(*runs)
    with pytest.raises(ValueError, match="not a multiple"):
        AttentiveProbe(10, 2, 4)
    assert [default_heads(w) for w in (16, 128, 384, 200)] == [1, 2, 6, 2]


def test_shots_are_as_many_of_each_class_as_asked():
    labels = np.repeat(np.arange(4), [20, 5, 9, 30])
    for seed in range(3):
        assert np.bincount(labels[draw_shots(labels, 4, 5, seed)]).tolist() == [5, 5, 5, 5]
    assert not np.array_equal(draw_shots(labels, 4, 5, 0), draw_shots(labels, 4, 5, 1))
    with pytest.raises(UserError, match="1 classes have fewer than 6 pictures to draw from, the fewest 5"):
        draw_shots(labels, 4, 6, 0)
    several = (np.random.default_rng(0).random((200, 6)) < 0.2).astype(np.float32)
    several[:, 5] = 0  # nobody shows it
    taken = draw_shots(several, 6, 3, 0)
    assert several[taken].sum(0)[:5].min() >= 3
    assert len(taken) <= 15


def test_more_shots_score_higher_and_are_fitted_on_the_shots_alone(store: Make):
    features, labels = clouds(300, spread=4.0)
    select, chosen_on = clouds(100, seed=1, spread=4.0)
    test, truth = clouds(300, seed=2, spread=4.0)
    parts = [store(x[:, None], y) for x, y in ((features, labels), (select, chosen_on), (test, truth))]
    score = {}
    for shots in (1, 10):
        scores, told = fewshot(*parts, 3, shots=shots, draws=4, penalties=(0.01, 1.0), steps=200, seed=0)
        assert scores.shape == (4, 300, 3)
        assert told["fitted"] == [3 * shots] * 4
        score[shots] = (scores.argmax(2) == truth).mean()
    assert score[10] > score[1] + 0.05
