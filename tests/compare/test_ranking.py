from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sutura.compare.ranking import Rank, alike, improvement, rank_groups, ranking_table, superiority
from sutura.compare.scores import Arm, Scores
from sutura.compare.standing import Standing, stand
from sutura.core.errors import UserError

A, B, C, D = (Arm(name) for name in "abcd")
Synthetic = Callable[..., pl.DataFrame]


def _standing(synthetic: Synthetic, shown: set[tuple[Arm, Arm]]) -> Standing:
    """A standing of a > b > c in which exactly the named pairs are shown."""
    standing = stand(synthetic({A: 0.7, B: 0.6, C: 0.5}, pictures=20), {})
    assert standing.encoders == (A, B, C)
    pairs = {
        pair: replace(gap, p_adjusted=0.01 if pair in shown else 0.5) for pair, gap in standing.pairs.items()
    }
    return replace(standing, pairs=pairs)


def test_those_not_told_apart_share_a_rank(synthetic: Synthetic) -> None:
    clear = rank_groups(_standing(synthetic, {(A, B), (A, C), (B, C)}))
    assert clear == {A: Rank(1, 1, "a"), B: Rank(2, 2, "b"), C: Rank(3, 3, "c")}
    assert rank_groups(_standing(synthetic, set())) == dict.fromkeys((A, B, C), Rank(1, 3, "a"))
    tied = rank_groups(_standing(synthetic, {(A, B), (A, C)}))
    assert tied == {A: Rank(1, 1, "a"), B: Rank(2, 3, "b"), C: Rank(2, 3, "b")}


def test_a_chain_of_ties_keeps_the_difference_of_its_ends(synthetic: Synthetic) -> None:
    """A = B and B = C but A above C: fault would be one rank for all three, or one that B has to choose."""
    ranks = rank_groups(_standing(synthetic, {(A, C)}))
    assert ranks == {A: Rank(1, 2, "a"), B: Rank(1, 3, "ab"), C: Rank(2, 3, "b")}


def test_letters_are_shared_exactly_by_pairs_not_told_apart() -> None:
    rng = np.random.default_rng(0)
    arms = tuple(Arm(f"{i}") for i in range(7))
    for _ in range(20):
        told = {frozenset((a, b)) for a in arms for b in arms if a < b and rng.random() < 0.5}
        groups = alike(arms, told)
        together = {frozenset((a, b)) for group in groups for a in group for b in group if a < b}
        everything = {frozenset((a, b)) for a in arms for b in arms if a < b}
        assert together == everything - told
        assert not any(set(x) < set(y) for x in groups for y in groups)
        assert len(set(groups)) == len(groups)


def test_ranks_hold_the_truth_when_encoders_are_the_same(synthetic: Synthetic) -> None:
    """Four names of one distribution: ranks 1 to 4 must be possible for all in about 95 % of draws."""
    same = dict.fromkeys((A, B, C, D), 0.6)
    wrong = 0
    for draw in range(20):
        ranks = rank_groups(stand(synthetic(same, seeds=range(5), pictures=30, draw=draw), {}))
        wrong += any(rank != Rank(1, 4, "a") for rank in ranks.values())
    assert wrong <= 3


def test_superiority_by_hand() -> None:
    """Runs 1, 3 against 2, 3: of four pairs one is won, one tied, two lost."""
    assert superiority(np.array([[1.0, 3.0]]), np.array([[2.0, 3.0]])) == pytest.approx([0.375])
    assert superiority(np.array([[0.1 + 0.2]]), np.array([[0.3]])) == pytest.approx([0.5])


def test_improvement_is_counted_over_all_pairs_of_seeds(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.62, B: 0.6}, seeds=range(4), seed_noise=0.05)
    means = {
        name: frame.filter(pl.col("encoder") == name).group_by("seed").agg(pl.col("exact").mean())["exact"]
        for name in "ab"
    }
    won = np.mean([[(x > y) + 0.5 * (x == y) for y in means["b"]] for x in means["a"]])
    found = improvement(Scores.of(frame), A, B)
    assert found.probability == pytest.approx(won)
    assert found.low <= found.probability <= found.high
    assert found.n_seeds == 4
    back = improvement(Scores.of(frame), B, A)
    assert back.probability == pytest.approx(1 - won)


def test_a_clear_improvement_is_certain_and_same_against_same_is_not(synthetic: Synthetic) -> None:
    found = improvement(Scores.of(synthetic({A: 0.9, B: 0.4})), A, B)
    assert (found.probability, found.low, found.high) == (1.0, 1.0, 1.0)
    frame = synthetic({A: 0.6})
    twin = improvement(Scores.of(pl.concat([frame, frame.with_columns(encoder=pl.lit("b"))])), A, B)
    assert twin.probability == 0.5
    short = synthetic({A: 0.9, B: 0.4}).filter((pl.col("encoder") == "a") | (pl.col("seed") < 2))
    with pytest.raises(UserError, match="same seeds"):
        improvement(Scores.of(short), A, B)


def test_the_table_shows_ranks_and_groups(synthetic: Synthetic) -> None:
    table = ranking_table(_standing(synthetic, {(A, C)}))
    assert [row[:3] for row in table.rows] == [
        ("a", "1 (to 2)", "a"),
        ("b", "1 (to 3)", "ab"),
        ("c", "2 (to 3)", "b"),
    ]
    assert table.rows[0][4] == "–"
    assert "a run of a is above one of it" in table.columns[4]
