"""Suspect answers are counted whatever their score, each kind by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from sutura.core.errors import UserError
from sutura.data.samples import BytesPicture, Sample
from sutura.evals.ledger import check_ledger, ledger_row
from sutura.evals.pope import asks_yes_or_no, read_as_published, read_strictly, yes_no_scores
from sutura.evals.prediction_health import answer_form, health_by_arm, is_loop, prediction_health

Asked = tuple[str, tuple[str, ...], tuple[str, ...]]  # prediction, references, choices


def ledger(asked: Sequence[Asked], seed: int = 0, encoder: str = "clip", **more: Any) -> pl.DataFrame:
    rows = [
        ledger_row(
            Sample(BytesPicture(b""), "q?", references, f"p{i}", f"i{i}", "kind", choices),
            prediction,
            run=f"{encoder}-{seed}",
            encoder=encoder,
            seed=seed,
            condition="picture",
            benchmark="b",
            **more,
        )
        for i, (prediction, references, choices) in enumerate(asked)
    ]
    return check_ledger(pl.DataFrame(rows))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red red red", True),
        ("red red", False),
        ("on the on the on the", True),
        ("it is on the on the on the", True),
        ("on the on the on a", False),
        ("red red blue red red blue red red blue", True),
        ("a b a b b a b a b", False),
        ("", False),
        ("red", False),
        (" ".join("abcdefgh" * 3), True),
    ],
)
def test_a_loop_is_the_same_words_three_times_in_a_row(text: str, expected: bool) -> None:
    assert is_loop(text.split()) is expected


def test_each_kind_is_counted_by_itself() -> None:
    asked: list[Asked] = [
        ("yes", ("no",), ()),
        ("maybe", ("yes",), ()),  # off format, unknown
        ("...", ("yes",), ()),  # empty, not off format as well
        ("4", ("3",), ()),  # a number, unknown
        ("several", ("3",), ()),  # off format, unknown
        ("three", ("3",), ()),
        ("cat", ("dog",), ("dog", "cat")),  # unknown: right nowhere; one of the options
        ("cow", ("dog",), ("The dog", "cat")),  # off format, unknown
        ("red red red", ("red",), ()),  # loop, unknown
    ]
    (row,) = prediction_health(ledger(asked)).to_dicts()
    assert row["answers"] == 9
    assert {name: row[name] for name in ("empty", "looping", "off_format", "out_of_vocabulary")} == {
        "empty": 1,
        "looping": 1,
        "off_format": 3,
        "out_of_vocabulary": 6,
    }
    assert row["repeated"] == 0
    assert row["unstopped"] == 0
    assert prediction_health(ledger(asked, stopped=False))["unstopped"].to_list() == [9]


def test_one_answer_to_everything_is_seen_however_well_it_scores() -> None:
    golds = ["yes"] * 50 + ["no"] * 50
    always = prediction_health(ledger([("Yes.", (gold,), ()) for gold in golds])).row(0, named=True)
    assert (always["repeated"], always["top"], always["most"], always["top_right"]) == (100, "yes", 100, 50)
    fair = prediction_health(ledger([(gold, (gold,), ()) for gold in golds])).row(0, named=True)
    assert (fair["repeated"], fair["most"]) == (0, 50)
    # Half yes is what is right; 76 of 100 lie beyond halfway from there to all.
    lean = [("yes" if i < 76 else "no", (gold,), ()) for i, gold in enumerate(golds)]
    assert prediction_health(ledger(lean))["repeated"].to_list() == [76]
    assert prediction_health(
        ledger([("yes", *rest) if i < 75 else ("no", *rest) for i, (_, *rest) in enumerate(lean)])
    )["repeated"].to_list() == [0]


def test_runs_are_counted_apart_and_summed_by_arm() -> None:
    good = ledger([("yes", ("yes",), ()), ("no", ("no",), ())])
    bad = ledger([("", ("yes",), ()), ("green", ("no",), ())], seed=1)
    frame = pl.concat([good, bad])
    assert prediction_health(frame)["empty"].to_list() == [0, 1]
    (row,) = health_by_arm(frame, "b")
    assert (row["answers"], row["empty"], row["off_format"], row["out_of_vocabulary"]) == (4, 1, 1, 1)


def test_the_form_of_an_answer_comes_from_what_is_right() -> None:
    assert answer_form(["Yes."], ()) == "yes/no"
    assert answer_form(["yes", "maybe"], ()) == ""
    assert answer_form(["two", "2"], ()) == "number"
    assert answer_form(["two"], ("one", "two")) == "choice"
    assert answer_form([], ()) == ""


# Yes and no.


def test_precision_and_recall_by_hand() -> None:
    said = ["yes", "yes", "yes", "no", "no", "no", "dunno"]
    gold = ["yes", "yes", "no", "yes", "no", "no", "yes"]
    (found,) = yes_no_scores(ledger([(s, (g,), ()) for s, g in zip(said, gold, strict=True)]), "b")
    assert (found.true_yes, found.false_yes, found.true_no, found.false_no, found.neither) == (2, 1, 2, 1, 1)
    assert found.accuracy == pytest.approx(4 / 7)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 4)
    assert found.f1 == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert found.yes_ratio == pytest.approx(3 / 7)


def test_saying_yes_to_everything_shows() -> None:
    (found,) = yes_no_scores(ledger([("yes", (gold,), ()) for gold in ("yes", "no") * 5]), "b")
    assert (found.accuracy, found.precision, found.recall, found.yes_ratio) == (0.5, 0.5, 1.0, 1.0)
    (never,) = yes_no_scores(ledger([("no", (gold,), ()) for gold in ("yes", "no") * 5]), "b")
    assert (never.precision, never.recall, never.f1, never.yes_ratio) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "strict", "published"),
    [
        ("Yes", "yes", "yes"),
        ("no", "no", "no"),
        ("No, there is not.", "", "no"),
        ("Yes, there is. No doubt.", "", "yes"),  # the first sentence alone
        ("NO", "no", "yes"),  # the published rule knows No and no
        ("nothing", "", "yes"),
        ("", "", "yes"),
    ],
)
def test_two_readings(text: str, strict: str, published: str) -> None:
    assert read_strictly(text) == strict
    assert read_as_published(text) == published


def test_sets_that_ask_for_something_else_are_no_yes_no_sets() -> None:
    frame = ledger([("red", ("red",), ()), ("yes", ("yes",), ())])
    assert not asks_yes_or_no(frame, "b")
    assert len(yes_no_scores(frame, "b")) == 1  # its yes/no items alone
    with pytest.raises(UserError, match="no meaning"):
        yes_no_scores(ledger([("red", ("red",), ())]), "b")
    with pytest.raises(UserError, match="strict or published"):
        yes_no_scores(frame, "b", "lax")  # type: ignore[arg-type]
