from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from sutura.compare.scores import Arm, Scores, common_items, common_seeds
from sutura.compare.statistics import UNMEASURED, Difference, accuracy, holm, paired
from sutura.core.errors import UserError

A, B = Arm("a"), Arm("b")
Synthetic = Callable[..., pl.DataFrame]


def test_accuracy_is_the_mean_of_the_column(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6, B: 0.5})
    found = accuracy(Scores.of(frame), A)
    column = frame.filter(pl.col("encoder") == "a")["exact"]
    assert found.mean == pytest.approx(column.mean())
    assert (found.n_items, found.n_pictures, found.n_seeds) == (300, 60, 3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    assert not found.note


def test_a_question_type_is_its_own_items(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6})
    scores = Scores.of(frame)
    counts = accuracy(scores, A, "count")
    assert counts.mean == pytest.approx(frame.filter(pl.col("question_type") == "count")["exact"].mean())
    assert counts.n_items == 180
    assert accuracy(scores, A, ("count", "exist")) == accuracy(scores, A)
    with pytest.raises(UserError, match="Did you mean 'count'"):
        accuracy(scores, A, "cuont")


def test_one_seed_says_that_training_noise_is_unmeasured(synthetic: Synthetic) -> None:
    scores = Scores.of(synthetic({A: 0.6, B: 0.5}, seeds=(0,)))
    assert accuracy(scores, A).note == UNMEASURED
    assert accuracy(scores, A).seed_sd is None
    assert paired(scores, A, B).note == UNMEASURED


def test_seed_noise_widens_the_interval(synthetic: Synthetic) -> None:
    quiet = accuracy(Scores.of(synthetic({A: 0.6}, seed_noise=0.0, seeds=range(5))), A)
    loud = accuracy(Scores.of(synthetic({A: 0.6}, seed_noise=0.1, seeds=range(5))), A)
    assert loud.high - loud.low > 1.6 * (quiet.high - quiet.low)  # type: ignore[operator]
    assert loud.seed_sd > 0.05  # type: ignore[operator]


@pytest.mark.parametrize(("skill", "side"), [(1.0, "high"), (0.0, "low")])
def test_all_right_and_all_wrong_keep_an_honest_interval(
    synthetic: Synthetic, skill: float, side: str
) -> None:
    found = accuracy(Scores.of(synthetic({A: skill}, pictures=40)), A)
    assert found.mean == skill == getattr(found, side)
    other = found.low if side == "high" else found.high
    assert 0.03 < abs(other - skill) < 0.15  # type: ignore[operator]
    assert "every picture scores the same" in found.note


def test_intervals_stay_between_0_and_1(synthetic: Synthetic) -> None:
    found = accuracy(Scores.of(synthetic({A: 0.985}, picture_noise=0.0, pictures=12)), A)
    assert found.high <= 1  # type: ignore[operator]
    assert found.low < found.mean  # type: ignore[operator]


def test_a_single_picture_has_no_interval(synthetic: Synthetic) -> None:
    scores = Scores.of(synthetic({A: 0.5, B: 0.5}, pictures=1))
    found = accuracy(scores, A)
    assert found.low is None
    assert "one picture" in found.note
    gap = paired(scores, A, B)
    assert gap.p is None
    assert not gap.shown


def test_a_difference_is_the_mean_of_differences(synthetic: Synthetic) -> None:
    scores = Scores.of(synthetic({A: 0.75, B: 0.5}, pictures=200))
    gap = paired(scores, A, B)
    assert gap.difference == pytest.approx(accuracy(scores, A).mean - accuracy(scores, B).mean)
    assert gap.low < 0.25 < gap.high  # type: ignore[operator]
    assert gap.shown
    back = paired(scores, B, A)
    assert (back.difference, back.low, back.p) == (-gap.difference, -gap.high, gap.p)  # type: ignore[operator]


def test_pairing_uses_that_items_are_shared() -> None:
    """Two arms that agree on all but a few items: unpaired intervals overlap, the paired one is narrow."""
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.5
    better = right.copy()
    better[np.flatnonzero(~right)[:16]] = True
    frame = pl.concat(_bare(name, values) for name, values in (("a", better), ("b", right)))
    scores = Scores.of(frame)
    gap = paired(scores, A, B)
    assert gap.shown
    assert gap.high - gap.low < 0.5 * (accuracy(scores, A).high - accuracy(scores, A).low)  # type: ignore[operator]


def _bare(name: str, values: np.ndarray, seed: int = 0) -> pl.DataFrame:
    """The columns that scores are read from, one item a picture."""
    items = [f"i{k:05d}" for k in range(len(values))]
    return pl.DataFrame(
        {
            "encoder": name,
            "condition": "picture",
            "seed": seed,
            "benchmark": "b",
            "item_id": items,
            "image_id": items,
            "question_type": "t",
            "exact": values.astype(float),
        }
    )


def test_items_are_matched_by_name_and_not_by_place(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.7, B: 0.5})
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    assert paired(Scores.of(shuffled), A, B) == paired(Scores.of(frame), A, B)


def test_the_same_answers_differ_by_nothing(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6})
    twin = frame.with_columns(encoder=pl.lit("b"))
    gap = paired(Scores.of(pl.concat([frame, twin])), A, B)
    assert (gap.difference, gap.p, gap.shown) == (0.0, 1.0, False)
    assert "the same score on every picture" in gap.note
    assert gap.high > 0  # type: ignore[operator]


def test_all_right_against_all_wrong_is_shown(synthetic: Synthetic) -> None:
    gap = paired(Scores.of(synthetic({A: 1.0, B: 0.0}, pictures=30)), A, B)
    assert gap.difference == 1.0
    assert gap.p == pytest.approx(2.0**-29)
    assert gap.shown


def test_unequal_items_are_refused(synthetic: Synthetic) -> None:
    """Fault: scores over different items set side by side."""
    frame = synthetic({A: 0.6, B: 0.6})
    short = frame.filter(~((pl.col("encoder") == "b") & (pl.col("item_id") == "p7/q1")))
    with pytest.raises(UserError, match=r"1 only the first, 0 only the second .*'p7/q1'"):
        paired(Scores.of(short), A, B)


def test_unequal_seeds_are_refused(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6, B: 0.6})
    short = frame.filter(~((pl.col("encoder") == "b") & (pl.col("seed") == 2)))
    with pytest.raises(UserError, match=r"\[0, 1, 2\] and b with \[0, 1\]"):
        paired(Scores.of(short), A, B)
    kept, notes = common_seeds(short)
    assert notes == ["a on world/test: seeds [2] left out, not all others have them."]
    assert paired(Scores.of(kept), A, B).n_seeds == 2
    with pytest.raises(UserError, match="No training seed is common"):
        common_seeds(frame.filter((pl.col("encoder") == "a") == (pl.col("seed") == 0)))


def test_a_seed_with_other_items_is_refused(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6})
    short = frame.filter(~((pl.col("seed") == 1) & (pl.col("item_id") == "p7/q1")))
    with pytest.raises(UserError, match=r"different items of world/test under different seeds .*seed 1: 299"):
        Scores.of(short)


def test_a_few_missing_items_are_left_out_and_counted_and_many_are_refused(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6, B: 0.6, Arm("none", "majority"): 0.3})
    short = frame.filter(~((pl.col("encoder") == "b") & (pl.col("item_id") == "p7/q1")))
    kept, notes = common_items(short)
    assert notes == ["1 of 300 items of world/test are left out: not every run answered them."]
    assert paired(Scores.of(kept), A, B).n_items == 299
    assert common_items(frame)[0].equals(frame)
    assert common_items(frame)[1] == []
    with pytest.raises(UserError, match="Only 145 of 300 items"):
        common_items(frame.filter((pl.col("encoder") != "b") | (pl.col("image_id") < "p35")))


def test_an_item_that_changes_its_picture_is_refused(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6, B: 0.6})
    odd = (pl.col("encoder") == "b") & (pl.col("item_id") == "p7/q1")
    moved = frame.with_columns(image_id=pl.when(odd).then(pl.lit("p8")).otherwise(pl.col("image_id")))
    with pytest.raises(UserError, match="'p7/q1' of world/test has another picture"):
        Scores.of(moved)


def test_wrong_names_are_told(synthetic: Synthetic) -> None:
    frame = pl.concat([synthetic({A: 0.6}), synthetic({A: 0.6}, benchmark="daquar")])
    with pytest.raises(UserError, match=r"2 benchmarks \(daquar, world/test\)"):
        Scores.of(frame)
    with pytest.raises(UserError, match="Did you mean 'daquar'"):
        Scores.of(frame, "daqar")
    with pytest.raises(UserError, match="Did you mean 'exact'"):
        Scores.of(frame, "daquar", "exat")
    with pytest.raises(UserError, match="no scores of 'blind'"):
        accuracy(Scores.of(frame, "daquar"), Arm("none", "blind"))
    with pytest.raises(UserError, match="No item of daquar has a value of 'vqa'"):
        Scores.of(frame, "daquar", "vqa")


def test_a_metric_that_does_not_apply_everywhere_is_counted(synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6})
    some = frame.with_columns(numeric=pl.when(pl.col("question_type") == "count").then(pl.col("exact")))
    found = accuracy(Scores.of(some, metric="numeric"), A)
    assert (found.n_items, found.excluded) == (180, 120)


def test_a_seedless_arm_is_set_against_every_seed(synthetic: Synthetic) -> None:
    scores = Scores.of(synthetic({A: 0.7, Arm("none", "majority"): 0.3}))
    gap = paired(scores, A, Arm("none", "majority"))
    assert gap.n_seeds == 3
    assert gap.difference == pytest.approx(
        accuracy(scores, A).mean - accuracy(scores, Arm("none", "majority")).mean
    )
    assert gap.shown


def test_holm_by_hand() -> None:
    values = [0.01, 0.04, 0.03, None, 0.005]
    family = [Difference(A, B, 0.1, 0, 0, p, 1, 2, 3) for p in values]
    adjusted = [d.p_adjusted for d in holm(family)]
    assert adjusted[3] is None
    assert [adjusted[i] for i in (4, 0, 2, 1)] == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert [d.shown for d in holm(family)] == [True, False, False, False, True]


def test_same_against_same_is_rarely_called_different() -> None:
    """Two names for one distribution, items and training noise as in our runs: at most 5 % false alarms."""
    rng = np.random.default_rng(1)
    repeats, seeds, pictures, each = 120, 5, 50, 4
    alarms = 0
    ids = np.repeat([f"p{k:03d}" for k in range(pictures)], each)
    base = pl.DataFrame({"item_id": [f"i{k:04d}" for k in range(len(ids))], "image_id": ids})
    base = base.with_columns(condition=pl.lit("picture"), benchmark=pl.lit("b"), question_type=pl.lit("t"))
    for _ in range(repeats):
        hard = rng.normal(0.6, 0.2, pictures)
        frames = []
        for name in "ab":
            for seed in range(seeds):
                chance = np.clip(hard + rng.normal(0, 0.02), 0.02, 0.98)
                right = (rng.random((pictures, each)) < chance[:, None]).reshape(-1).astype(float)
                frames.append(base.with_columns(encoder=pl.lit(name), seed=pl.lit(seed), exact=right))
        alarms += paired(Scores.of(pl.concat(frames)), A, B).shown
    assert alarms / repeats <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / repeats)


def test_a_planted_difference_is_found_and_the_detectable_one_is_told(synthetic: Synthetic) -> None:
    found = 0
    told = []
    for draw in range(12):
        gap = paired(Scores.of(synthetic({A: 0.70, B: 0.58}, seeds=range(5), draw=draw, pictures=80)), A, B)
        found += gap.shown
        told.append(gap.detectable)
    assert found >= 9
    assert 0.04 < float(np.median(told)) < 0.12
