"""Metrics of probes against slow references, their intervals against known coverage, and their floors."""

from __future__ import annotations

import numpy as np
import pytest

from sutura.core.errors import UserError
from sutura.evals.probe_scores import average_precision, plain_score, scored, wilson
from sutura.train.self_check import mean_average_precision

CLASSES = ("a", "b", "c")


def judge(scores: np.ndarray, labels: np.ndarray, **options: int):
    return scored(scores, labels, classes=CLASSES, **{"majority": 0, "resamples": 200, "seed": 0, **options})


def test_wilson_by_hand():
    # 8 of 10: centre (0.8 + 0.19207) / 1.38415, half width 0.22664; 0 of 10 still reaches 27.8 %.
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)


def test_average_precision_with_counts_equals_repeated_rows():
    """Ties included: scores are coarse, so every class has some."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (40, 3)).astype(np.float32)
    truth = rng.random((40, 3)) < 0.3
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=5)
    expected = [mean_average_precision(np.repeat(scores, c, 0), np.repeat(truth, c, 0)) for c in counts]
    assert average_precision(scores, truth, counts) == pytest.approx(expected)
    once = np.ones((1, 40))
    assert average_precision(scores, truth, once)[0] == pytest.approx(mean_average_precision(scores, truth))


def test_a_constant_scores_the_floor_that_stands_beside_it():
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 3)) < 0.3).astype(np.float32)
    told = judge(np.zeros((1, 60, 3), np.float32), truth)
    assert told.score == pytest.approx(told.base)
    labels = np.array([0] * 6 + [1] * 3 + [2])
    always = np.zeros((1, 10, 3), np.float32)
    always[..., 1] = 1
    told = judge(always, labels, majority=1)
    assert (told.score, told.base, told.n) == (0.3, 0.3, 10)
    assert "'b'" in told.base_of


def test_classes_without_a_test_picture_are_left_out_and_told():
    truth = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]], np.float32)
    told = judge(truth[None], truth)
    assert (told.score, told.classes, told.metric) == (1.0, 2, "mAP")
    with pytest.raises(UserError, match="No class is shown"):
        judge(truth[None], np.zeros_like(truth))
    with pytest.raises(UserError, match="not all finite"):
        judge(truth[None] * np.nan, truth)


def test_the_precision_interval_covers_the_truth():
    """A bootstrap that is not centred sits above it: repeated pictures raise average precision."""
    rng = np.random.default_rng(1)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.random((n, 3)) < 0.15
        return (rng.normal(size=(n, 3)) + 1.2 * truth).astype(np.float32), truth.astype(np.float32)

    scores, labels = draw(100_000)
    true = plain_score(scores, labels)
    below = above = 0
    for _ in range(60):
        scores, labels = draw(150)
        told = judge(scores[None], labels)
        assert told.low <= told.score <= told.high
        below, above = below + (told.high < true), above + (told.low > true)
    assert below + above <= 9
    assert abs(below - above) <= 6


def test_the_interval_over_draws_is_wider_than_over_pictures_alone():
    """Fault: few-shot scores with an interval that leaves out which pictures were drawn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    skill = np.array([0.3, 0.5, 0.7, 0.9, 0.6])  # what the draws differ in
    right = rng.random((5, 300)) < skill[:, None]
    answers = np.where(right, labels, (labels + 1) % 3)
    scores = np.eye(3, dtype=np.float32)[answers]
    told = judge(scores, labels)
    assert told.score == pytest.approx(right.mean())
    assert told.interval == "bootstrap over draws and pictures"
    low, high = wilson(right.mean() * 300, 300)
    assert told.high - told.low > 2 * (high - low)
    one = judge(scores[:1], labels)
    assert (one.low, one.high) == wilson(right[0].sum(), 300)


def test_the_order_of_equal_scores_changes_nothing():
    truth = np.array([[1], [0], [1], [0], [0]], np.float32)
    flat = np.zeros((5, 1), np.float32)
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 3, 4, 0, 2]):
        assert plain_score(flat, truth[order]) == pytest.approx(0.4)
