import numpy as np
import pytest
import torch

from sutura.core.errors import UserError
from sutura.train.self_check import linear_probe, mean_average_precision


def test_average_precision_by_hand():
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    truth = np.array([[True], [False], [True], [False]])
    assert mean_average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    assert mean_average_precision(-scores, truth) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_constant_scores_find_no_more_than_the_base_rate():
    """Fault: ties counted in favour make a constant look good, whatever the order of the items."""
    truth = np.array([[True], [True], [False], [False], [False]])
    for order in (slice(None), slice(None, None, -1)):
        assert mean_average_precision(np.zeros((5, 1)), truth[order]) == pytest.approx(0.4)


def labelled(noise: float, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(400, 10, generator=draw)
    labels = (features[:, :3] + noise * torch.randn(400, 3, generator=draw) > 0.5).float()
    return features, torch.cat([labels, torch.zeros(400, 1)], dim=1)


def test_the_probe_finds_what_is_there_and_nothing_where_nothing_is():
    features, labels = labelled(noise=0.0)
    known = linear_probe(features, labels, fitted=300)
    assert known.score > 0.95
    assert known.low <= known.score <= known.high
    assert (known.fitted, known.scored, known.labels) == (300, 100, 3)  # the label nobody has is left out
    shuffled = linear_probe(
        features[torch.randperm(400, generator=torch.Generator().manual_seed(1))], labels, 300
    )
    assert shuffled.score < known.base_rate + 0.15
    constant = linear_probe(torch.ones(400, 10), labels, fitted=300)
    assert constant.score == pytest.approx(known.base_rate, abs=1e-6)


def test_the_probe_is_not_scored_on_what_it_was_fitted_on():
    """Fault: linear probe scored on its own training images."""
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(200, 90, generator=draw)  # nearly enough directions to learn 100 pictures by heart
    labels = (torch.rand(200, 2, generator=draw) < 0.4).float()
    assert linear_probe(features, labels, fitted=100).score < 0.6
    with pytest.raises(UserError, match="200 of 200 pictures to fit on leaves none"):
        linear_probe(features, labels, fitted=200)
