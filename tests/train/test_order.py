"""The order of a stitch's training data is a function of the seed and the data, nothing else."""

from __future__ import annotations

from collections import Counter

from sutura.train.stitching import FeedConfig, deal

ANSWERS = [3, 1, 2, 4, 1, 5, 2, 2]


def test_order_repeats_with_the_seed_and_changes_with_it():
    """Fault: data order differs per encoder."""
    config = FeedConfig(batch=6, epochs=3)
    assert deal(ANSWERS, config, 0) == deal(ANSWERS, config, 0)
    assert deal(ANSWERS, config, 0) != deal(ANSWERS, config, 1)
    steps = deal(ANSWERS, config, 0)
    assert Counter(i for step in steps for i in step) == dict.fromkeys(range(8), 3)


def test_epochs_have_orders_of_their_own():
    flat = [i for step in deal([1] * 32, FeedConfig(batch=4, epochs=2), 0) for i in step]
    assert sorted(flat[:32]) == sorted(flat[32:]) == list(range(32))
    assert flat[:32] != flat[32:]
