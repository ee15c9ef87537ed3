from __future__ import annotations

from collections.abc import Callable

import pytest

from sutura.core.errors import UserError
from sutura.data.samples import Sample
from sutura.evals.baselines import fit_majority, majority_rows
from sutura.evals.ledger import check_ledger


def _data(sample: Callable[..., Sample]) -> tuple[list[Sample], list[Sample]]:
    train = [sample(f"a{i}", "red", question_type="colour") for i in range(5)]
    train += [sample(f"b{i}", "two" if i else "2", question_type="count") for i in range(3)]
    train += [sample("c", "yes", question_type="exist")]
    test = [sample(f"t{i}", "blue", question_type="colour") for i in range(4)]
    test += [sample("u", "2", question_type="count"), sample("v", "red", question_type="new")]
    return train, test


def test_the_majority_is_counted_on_training_answers(sample: Callable[..., Sample]) -> None:
    """Fault: a floor counted on the test answers would be "blue" here, and too high."""
    train, test = _data(sample)
    rows = [row for row in majority_rows(train, test, benchmark="b") if row["condition"] == "majority"]
    assert [row["prediction"] for row in rows] == ["red"] * 4 + ["two", "red"]
    assert [row["exact"] for row in rows] == [0, 0, 0, 0, 1, 1]


def test_both_guessers_make_a_valid_ledger(sample: Callable[..., Sample]) -> None:
    import polars as pl

    train, test = _data(sample)
    frame = check_ledger(pl.DataFrame(majority_rows(train, test, benchmark="b"), strict=False))
    assert sorted(frame["condition"].unique()) == ["majority", "majority-overall"]
    overall = frame.filter(pl.col("condition") == "majority-overall")
    assert overall["prediction"].unique().to_list() == ["red"]


def test_spellings_are_one_answer_and_ties_are_settled(sample: Callable[..., Sample]) -> None:
    majority = fit_majority([sample("a", "one"), sample("b", "1"), sample("c", "no"), sample("d", "1")])
    assert majority.overall == "1"
    assert majority.counted == 4
    assert fit_majority([sample("a", "no"), sample("b", "maybe")]).overall == "maybe"


def test_all_ten_answers_of_a_question_count(sample: Callable[..., Sample]) -> None:
    crowd = sample("a", ("no",) * 7 + ("yes",) * 3)
    assert fit_majority([crowd, sample("b", "yes"), sample("c", "yes")]).overall == "no"


def test_no_training_sample_is_an_error(sample: Callable[..., Sample]) -> None:
    with pytest.raises(UserError, match="there are none"):
        majority_rows([], [sample("a")], benchmark="b")
