from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import trim_mean

from sutura.compare.aggregate import _interval, _pooled, aggregate, aggregate_table, aggregate_words
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing, stand
from sutura.core.errors import UserError

A, B, C = (Arm(name) for name in "abc")
Synthetic = Callable[..., pl.DataFrame]


def _standings(synthetic: Synthetic, seeds: range = range(4), **more: float) -> list[Standing]:
    """Two benchmarks of unequal size and level on which b leads by 10 points."""
    frames = [
        synthetic({A: 0.5, B: 0.6, C: 0.3}, seeds=seeds, draw=1, **more),
        synthetic({A: 0.7, B: 0.8, C: 0.5}, seeds=seeds, draw=2, benchmark="other", pictures=90, **more),
    ]
    return [stand(frame, {}) for frame in frames]


def test_the_mean_is_of_paired_differences_each_benchmark_counted_once(synthetic: Synthetic) -> None:
    standings = _standings(synthetic)
    found = aggregate(standings)
    assert found is not None
    gaps = [s.estimates[B].mean - s.estimates[A].mean for s in standings]
    one = found.pairs[B, A]
    assert one.mean == pytest.approx(np.mean(gaps))
    assert one.low < np.mean(gaps) < one.high  # type: ignore[operator]
    assert one.shown
    assert list(found.field) == [B, A, C]
    assert sum(x.mean for x in found.field.values()) == pytest.approx(0)
    assert (found.benchmarks, found.seeds) == (("other", "world/test"), 4)


def test_the_interquartile_mean_is_that_of_benchmarks_times_seeds(synthetic: Synthetic) -> None:
    standings = _standings(synthetic, seed_noise=0.05)
    found = aggregate(standings)
    assert found is not None
    gaps = [s.scores.answers(B).values.mean(1) - s.scores.answers(A).values.mean(1) for s in standings]
    one = found.pairs[B, A]
    assert one.iqm == pytest.approx(trim_mean(np.concatenate(gaps), 0.25))
    assert one.iqm_low < one.iqm < one.iqm_high
    assert one.improvement is not None
    assert 0.5 < one.improvement[0] <= 1


def test_two_copies_of_a_benchmark_do_not_halve_seed_noise(synthetic: Synthetic) -> None:
    """Fault: seeds drawn anew within each benchmark, though one stitch answers them all."""
    frame = synthetic({A: 0.5, B: 0.5}, seeds=range(5), seed_noise=0.08, picture_noise=0.0, pictures=120)
    both = [stand(frame, {}), stand(frame.with_columns(benchmark=pl.lit("copy")), {})]
    found = aggregate(both)
    assert found is not None
    (pair,) = found.pairs.values()
    single = both[0].pairs[pair.a, pair.b]  # type: ignore[index]
    width = single.high - single.low  # type: ignore[operator]
    assert pair.mean == pytest.approx(single.difference)
    assert pair.high - pair.low > 0.9 * width  # type: ignore[operator]


def test_levels_of_benchmarks_are_no_noise(synthetic: Synthetic) -> None:
    """A benchmark on which the lead is larger is a stratum: its own mean is taken out of its pictures."""
    easy = synthetic({A: 0.9, B: 0.2}, seeds=range(5), seed_noise=0.0, picture_noise=0.0)
    hard = synthetic({A: 0.5, B: 0.5}, seeds=range(5), seed_noise=0.0, picture_noise=0.0, benchmark="hard")
    standings = [stand(easy, {}), stand(hard, {})]
    found = aggregate(standings)
    assert found is not None
    pair = next(iter(found.pairs.values()))
    alone = [next(iter(s.pairs.values())) for s in standings]
    widest = max(gap.high - gap.low for gap in alone)  # type: ignore[operator]
    assert pair.high - pair.low < widest  # type: ignore[operator]


def test_same_against_same_over_benchmarks_is_rarely_shown(synthetic: Synthetic) -> None:
    alarms = 0
    for draw in range(25):
        frames = [
            synthetic({A: 0.6, B: 0.6}, seeds=range(5), pictures=30, draw=2 * draw),
            synthetic({A: 0.4, B: 0.4}, seeds=range(5), pictures=30, draw=2 * draw + 1, benchmark="other"),
        ]
        found = aggregate([stand(frame, {}) for frame in frames])
        assert found is not None
        alarms += any(pair.shown for pair in found.pairs.values())
    assert alarms <= 4


def test_what_cannot_be_put_together(synthetic: Synthetic) -> None:
    standings = _standings(synthetic)
    assert aggregate([]) is None
    assert aggregate(standings[:1]) is None
    fewer = replace(standings[1], encoders=(B, A))
    found = aggregate([standings[0], fewer])
    assert found is not None
    assert found.left_out == (C,)
    assert "Left out, not on every benchmark: c." in aggregate_words(found)
    with pytest.raises(UserError, match="benchmarks are put together over the same seeds"):
        aggregate([standings[0], _standings(synthetic, seeds=range(2))[1]])


def test_the_table_holds_encoders_and_pairs(synthetic: Synthetic) -> None:
    found = aggregate(_standings(synthetic))
    assert found is not None
    table = aggregate_table(found)
    assert [row[0] for row in table.rows] == ["b − all", "a − all", "c − all", "b − a", "b − c", "a − c"]
    assert all(row[2] == "–" for row in table.rows[:3])
    assert aggregate(_standings(synthetic)) == found
    one = aggregate(_standings(synthetic, seeds=range(1)))
    assert one is not None
    assert "training noise is in none" in aggregate_words(one)


def test_a_benchmark_of_few_pictures_does_not_borrow_the_certainty_of_another() -> None:
    """Fault: three pictures beside three hundred, with the degrees of freedom of all of them."""
    rng, sizes = np.random.default_rng(0), (3, 300)
    held = 0
    for _ in range(400):
        rows = [(rng.normal(0, 0.2, (1, count)), np.ones(count)) for count in sizes]
        _, low, high, _ = _interval(_pooled(rows))
        assert low is not None
        assert high is not None
        held += low < 0 < high
    assert 0.91 < held / 400 < 0.99


def test_a_benchmark_of_one_picture_leaves_no_interval() -> None:
    rows = [(np.array([[0.3]]), np.ones(1)), (np.full((1, 50), 0.1), np.ones(50))]
    mean, low, high, p = _interval(_pooled(rows))
    assert mean == pytest.approx(0.2)
    assert low is high is p is None
