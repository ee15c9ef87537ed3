import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.losses.collapse import (
    collapse_alarm,
    collapse_measures,
    covariance_loss,
    effective_rank,
    relative_std,
    uniformity,
    variance_loss,
    vicreg_loss,
)


def spread(samples: int = 200, width: int = 16, rank: int | None = None, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(samples, width, generator=draw)
    return torch.randn(samples, rank, generator=draw) @ torch.randn(rank, width, generator=draw)


def test_the_alarm_trips_on_collapsed_features_only():
    """Fault: collapse found after days. Constant features, one live direction, and noise on a constant."""
    assert collapse_alarm(spread()) is None
    constant = torch.ones(200, 16)
    assert "effective rank 0.00" in collapse_alarm(constant)
    assert collapse_alarm(constant + spread(rank=1)) is not None
    almost = collapse_alarm(constant + 1e-3 * spread())
    assert almost is not None
    assert "standard deviation 0.0010" in almost
    assert collapse_alarm(torch.zeros(200, 16)) is not None


def test_effective_rank_counts_directions():
    assert effective_rank(spread(rank=1)) == pytest.approx(1.0, abs=1e-3)
    assert effective_rank(torch.ones(50, 8)) == 0.0
    assert 14 < effective_rank(spread(2000)) <= 16
    line = torch.eye(8).repeat(10, 1) + 100.0  # an offset shared by all is no direction
    assert effective_rank(line) == pytest.approx(7.0, abs=0.05)


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.01, 100.0), seed=st.integers(0, 100))
def test_measures_do_not_change_with_the_features_scale(scale, seed):
    features = spread(40, 8, seed=seed) + 1.0
    plain, scaled = collapse_measures(features), collapse_measures(features * scale)
    for name, value in plain.items():
        assert scaled[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_std_and_uniformity_at_their_ends():
    assert relative_std(torch.ones(10, 4)) == 0.0
    assert relative_std(spread(2000)) == pytest.approx(1.0, abs=0.01)
    assert uniformity(torch.ones(10, 4)) == pytest.approx(0.0, abs=1e-5)
    assert uniformity(spread(200)) < -3


def test_effective_rank_is_rankmes_formula_on_centred_features():
    features = spread(60, 8) @ torch.diag(torch.arange(1.0, 9.0)) + 3.0
    values = torch.linalg.svdvals(features - features.mean(dim=0))
    share = values / values.sum() + 1e-7
    assert effective_rank(features) == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-4)


def test_vicreg_is_the_papers_three_terms_written_out():
    """Equations 1 to 6 with loops, and the gradients that follow from them."""
    first, second = (spread(7, 5, seed=s).requires_grad_() for s in (0, 1))
    with torch.no_grad():
        first.mul_(0.4)  # channels short of a deviation of one
    loss, terms = vicreg_loss(first, second)

    variance = covariance = torch.zeros(())
    for view in (first, second):
        mean = sum(view) / 7
        c = sum(torch.outer(row - mean, row - mean) for row in view) / 6
        for i in range(5):
            variance = variance + torch.clamp(1 - (c[i, i] + 1e-4).sqrt(), min=0) / 5 / 2
            covariance = covariance + sum(c[i, j] ** 2 for j in range(5) if i != j) / 5
    invariance = sum((a - b).square().sum() for a, b in zip(first, second, strict=True)) / 35
    written = 25 * invariance + 25 * variance + covariance
    torch.testing.assert_close(loss, written, atol=1e-4, rtol=0)
    for name, value in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
        torch.testing.assert_close(terms[name], value.detach(), atol=1e-5, rtol=0)
    assert float(terms["variance"]) > 0.1
    views = [first, second]
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(written, views), atol=1e-4, rtol=1e-4
    )


def test_variance_and_covariance_name_the_two_ways_to_collapse():
    free = spread(4000, 4) * 1.2
    assert float(variance_loss(free)) == 0.0
    assert float(covariance_loss(free)) < 0.05
    assert float(variance_loss(torch.ones(50, 4))) == pytest.approx(0.99, abs=1e-3)
    copied = free[:, :1].repeat(1, 4)  # one direction in every channel
    assert float(variance_loss(copied)) == 0.0
    assert float(covariance_loss(copied)) > 3.0
    with pytest.raises(ValueError, match="at least two samples"):
        vicreg_loss(free[:1], free[:1])
