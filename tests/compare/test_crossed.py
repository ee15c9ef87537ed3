from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from sutura.compare.crossed import crossed

REPEATS = 600


def _simulate(
    seeds: int,
    pictures: int,
    *,
    picture: float,
    seed: float,
    both: float,
    item: float,
    draw: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Tables of sums with a true mean of 0: unequal clusters, every source of noise on its own."""
    rng = np.random.default_rng(draw)
    sizes = 1 + rng.poisson(5, (REPEATS, pictures)).astype(float)
    table = rng.normal(0, picture, (REPEATS, 1, pictures)) + rng.normal(0, seed, (REPEATS, seeds, 1))
    table = table + rng.normal(0, both, (REPEATS, seeds, pictures))
    table = table + rng.normal(0, item, (REPEATS, seeds, pictures)) / np.sqrt(sizes)[:, None]
    return table * sizes[:, None], sizes


def _coverage(sums: np.ndarray, sizes: np.ndarray) -> float:
    found = crossed(sums, sizes)
    return float(np.mean(np.abs(found.mean) <= stdtrit(found.df, 0.975) * np.sqrt(found.variance)))


@pytest.mark.parametrize(
    ("seeds", "pictures", "noise"),
    [
        (5, 150, {"picture": 0.3, "seed": 0.0, "both": 0.1, "item": 0.4}),
        (5, 150, {"picture": 0.3, "seed": 0.02, "both": 0.1, "item": 0.4}),
        (5, 300, {"picture": 0.1, "seed": 0.02, "both": 0.2, "item": 0.5}),
        (5, 150, {"picture": 0.1, "seed": 0.04, "both": 0.2, "item": 0.5}),
        (8, 150, {"picture": 0.1, "seed": 0.02, "both": 0.2, "item": 0.5}),
        (10, 100, {"picture": 0.2, "seed": 0.05, "both": 0.1, "item": 0.5}),
    ],
)
def test_intervals_cover_the_truth(seeds: int, pictures: int, noise: dict[str, float]) -> None:
    """93 to 97 % from five seeds on, give or take the Monte-Carlo error of 600 tables (0.9 points)."""
    assert 0.93 - 0.018 <= _coverage(*_simulate(seeds, pictures, **noise)) <= 0.97 + 0.018


def test_pictures_alone_would_call_same_against_same_different() -> None:
    """Fault: intervals over items alone. With seed noise of 2 points they miss the truth all the time."""
    sums, sizes = _simulate(5, 300, picture=0.1, seed=0.02, both=0.2, item=0.5)
    pooled = sums.mean(-2, keepdims=True)
    items_only = _coverage(pooled, sizes)
    assert items_only < 0.88
    assert _coverage(sums, sizes) > 0.925


def test_clusters_count() -> None:
    """Fault: items treated as independent although a picture's questions go right or wrong together."""
    sums, sizes = _simulate(1, 200, picture=0.4, seed=0, both=0, item=0.3)
    found = crossed(sums, sizes)
    naive = (0.4**2 + 0.3**2) / sizes.sum(-1)
    assert np.median(found.variance / naive) > 3
    assert 0.92 <= _coverage(sums, sizes) <= 0.98


def test_one_seed_by_hand() -> None:
    """Two pictures of one and three items, sums 1 and 0: mean 1/4, residuals 3/4 and −3/4, mean size 2."""
    found = crossed(np.array([[1.0, 0.0]]), np.array([1.0, 3.0]))
    assert found.mean == pytest.approx(0.25)
    assert found.variance == pytest.approx(2 * (0.375**2) / 1 / 2)
    assert found.df == 1
    assert np.isnan(found.seed_sd)


def test_mean_squares_by_hand() -> None:
    """A 2 × 2 table [[3, 1], [1, 1]] of single items: mean 1.5, MS 1 each, so the sum is 1 / 4."""
    found = crossed(np.array([[3.0, 1.0], [1.0, 1.0]]), np.ones(2))
    assert found.mean == pytest.approx(1.5)
    assert found.variance == pytest.approx(1 / 4)
    assert found.seed_sd == 0


def test_a_pure_seed_effect_has_the_variance_of_seed_means() -> None:
    means = np.array([0.50, 0.54, 0.52, 0.56])
    found = crossed(np.repeat(means[:, None], 50, axis=1), np.ones(50))
    assert found.variance == pytest.approx(means.var(ddof=1) / 4)
    assert found.df == pytest.approx(3)
    assert found.seed_sd == pytest.approx(means.std(ddof=1))


def test_a_batch_is_its_tables_one_by_one() -> None:
    sums, sizes = _simulate(3, 7, picture=0.2, seed=0.1, both=0.1, item=0.4)
    whole = crossed(sums[:5], sizes[:5])
    for i in range(5):
        one = crossed(sums[i], sizes[i])
        for batched, single in zip(whole, one, strict=True):
            np.testing.assert_allclose(batched[i], single, rtol=1e-12)


def test_one_picture_has_no_variance() -> None:
    found = crossed(np.array([[1.0], [0.0]]), np.array([2.0]))
    assert found.mean == 0.25
    assert np.isnan(found.variance)
