from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_1samp

from sutura.compare.resampling import bootstrap, expanded_tail, resample_pictures, resampled, sign_flip
from sutura.compare.scores import Arm, Scores
from sutura.compare.statistics import accuracy, paired
from sutura.core.errors import UserError

A, B = Arm("a"), Arm("b")
Synthetic = Callable[..., pl.DataFrame]


def test_the_bootstrap_stands_beside_the_formula(synthetic: Synthetic) -> None:
    scores = Scores.of(synthetic({A: 0.7, B: 0.5}, seeds=range(5), pictures=150))
    gap, again = paired(scores, A, B), resampled(scores, A, B)
    assert again.mean == pytest.approx(gap.difference)
    assert again.low < gap.difference < again.high
    width = (again.high - again.low) / (gap.high - gap.low)  # type: ignore[operator]
    assert 0.8 < width < 3
    alone, found = resampled(scores, A), accuracy(scores, A)
    assert alone.mean == pytest.approx(found.mean)
    assert alone.p_pictures is None
    assert resampled(scores, A, B) == again
    assert resampled(scores, A, B, draw=1) != again


def test_seeds_are_resampled_too() -> None:
    """Fault: a bootstrap over items alone. A pure seed effect leaves it no spread at all."""
    sums = np.repeat(np.array([0.50, 0.54, 0.52, 0.56, 0.53])[:, None], 50, axis=1)
    low, high = bootstrap(sums, np.ones(50))
    assert high - low > 0.04


def test_pictures_are_drawn_whole_and_for_all_rows_alike() -> None:
    rng = np.random.default_rng(0)
    sums = rng.random((2, 40)) * 3
    means = resample_pictures(np.vstack([sums, sums[0] + 2.0]), np.full(40, 4.0), 600, rng)
    assert means.shape == (600, 3)
    np.testing.assert_allclose(means[:, 2], means[:, 0] + 0.5)
    assert means[:, 0].mean() == pytest.approx(sums[0].mean() / 4, abs=0.01)
    assert means[:, 0].std() == pytest.approx(sums[0].std() / 4 / np.sqrt(40), rel=0.15)


def test_percentiles_reach_as_far_as_a_t_quantile() -> None:
    assert expanded_tail(1e9) == pytest.approx(0.025)
    assert expanded_tail(4) == pytest.approx(0.00096, rel=0.01)


def test_sign_flips_agree_with_a_t_test_and_enumerate_few_pictures() -> None:
    values = np.random.default_rng(3).normal(0.25, 1, (1, 80))
    assert sign_flip(values) == pytest.approx(ttest_1samp(values[0], 0).pvalue, abs=0.02)
    assert sign_flip(np.ones((3, 5))) == pytest.approx(2 / 32)


def test_the_permutation_over_pictures_says_nothing_about_encoders() -> None:
    """Same against same with seed noise of 2 points: pictures alone see a difference in many of these."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        gaps = rng.normal(0, 0.02 * np.sqrt(2), (5, 1)) + rng.normal(0, 0.3, (5, 300))
        found.append(sign_flip(gaps, permutations=400) < 0.05)
    assert np.mean(found) > 0.1


def test_one_picture_cannot_be_resampled(synthetic: Synthetic) -> None:
    with pytest.raises(UserError, match="one picture here"):
        resampled(Scores.of(synthetic({A: 0.5, B: 0.5}, pictures=1)), A, B)
