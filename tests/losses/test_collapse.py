import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.losses.collapse import collapse_alarm, collapse_measures, effective_rank, relative_std, uniformity


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
