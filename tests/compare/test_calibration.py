"""Levels and power on simulated comparisons; the whole table is made by benchmarks/interval_coverage.py."""

from __future__ import annotations

import numpy as np
import pytest

from sutura.compare.components import components
from sutura.compare.crossed import crossed
from sutura.compare.power import Design, detectable
from sutura.compare.simulation import Noise, covered, p_values, pairs_of, simulate

RUNS, ENCODERS, PICTURES, EACH = 400, 4, 60, 3
PAIRS = ENCODERS * (ENCODERS - 1) // 2


def _error(share: float, runs: int = RUNS) -> float:
    """Twice the Monte-Carlo standard error, and a little: these tests run with one fixed draw."""
    return 2.5 * float(np.sqrt(share * (1 - share) / runs))


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("noise", [Noise(), Noise(seed=1.0), Noise(seed=0.0), Noise(seed=1.0, late=0.2)])
def test_same_against_same_is_called_different_in_at_most_a_twentieth_of_runs(
    seeds: int, noise: Noise
) -> None:
    """A run is a comparison of four encoders that are the same, with Holm; a pair is tested alone."""
    p = np.concatenate(
        [p_values(pairs_of(run)) for run in simulate(RUNS, [0.6] * ENCODERS, seeds, PICTURES, EACH, noise)]
    )
    assert len(p) == RUNS
    assert (p.min(1) * PAIRS < 0.05).mean() <= 0.05 + _error(0.05)
    assert (p < 0.05).mean() <= 0.05 + _error(0.05)


@pytest.mark.parametrize("seeds", [5, 8])
@pytest.mark.parametrize("noise", [Noise(), Noise(seed=2.0), Noise(seed=1.0), Noise(picture=15.0, seed=1.0)])
def test_intervals_hold_a_planted_difference_as_often_as_they_say(seeds: int, noise: Noise) -> None:
    """93 to 97 % from five seeds on."""
    held = [
        covered(pairs_of(run), -0.1) for run in simulate(2 * RUNS, [0.5, 0.6], seeds, PICTURES, EACH, noise)
    ]
    assert 0.93 - _error(0.05, 2 * RUNS) <= np.concatenate(held).mean() <= 0.97 + _error(0.05, 2 * RUNS)


@pytest.mark.parametrize(("seeds", "noise"), [(3, Noise(seed=1.0)), (5, Noise()), (8, Noise(seed=2.0))])
def test_planted_differences_are_found_at_the_stated_power(seeds: int, noise: Noise) -> None:
    """Components from one comparison of 800 seeds, the difference from `detectable`, then new comparisons."""
    (pilot,) = simulate(1, [0.55, 0.55], 800, 300, 1, noise)
    size = detectable(components(pilot.sums[0, 0] - pilot.sums[0, 1], np.arange(300)), Design(seeds, 300, 1))
    low, high = 0.55 - size / 2, 0.55 + size / 2
    shown = [
        p_values(pairs_of(run)) < 0.05 for run in simulate(RUNS, [low, high], seeds, 300, 1, noise, draw=1)
    ]
    assert np.concatenate(shown).mean() == pytest.approx(0.8, abs=0.06)


def test_pictures_alone_call_same_against_same_different() -> None:
    """Fault: seeds pooled as if they were more items. At seed noise of 2 points a sixth and more are false alarms."""
    alarms = []
    for run in simulate(RUNS, [0.6, 0.6], 5, 400, 1, Noise(seed=2.0)):
        gap = (run.sums[:, 0] - run.sums[:, 1]).mean(1, keepdims=True)
        alarms.append(p_values(crossed(gap, run.sizes)) < 0.05)
    assert np.concatenate(alarms).mean() > 0.15


def test_two_seeds_that_happen_to_agree_prove_nothing() -> None:
    """Fault: a mean square of seeds of 0, by luck and whole numbers, made every difference certain."""
    rng = np.random.default_rng(0)
    table = rng.normal(0, 0.5, (2, 400))
    table[1] += table[0].mean() - table[1].mean()
    table += 0.02
    found = crossed(table, np.ones(400))
    assert float(p_values(found)) > 0.01


def test_simulated_accuracies_are_the_true_ones() -> None:
    for noise in (Noise(), Noise(late=0.3)):
        means = [run.sums.mean((0, 2, 3)) / EACH for run in simulate(150, [0.3, 0.8], 8, 40, EACH, noise)]
        np.testing.assert_allclose(np.mean(means, axis=0), [0.3, 0.8], atol=0.012)
