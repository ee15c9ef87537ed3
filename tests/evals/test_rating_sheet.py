"""Sheets that give nothing away, and what comes back from people: unrated, rated twice, unknown, unreadable."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from sutura.core.errors import UserError
from sutura.data.samples import Sample
from sutura.evals.ledger import check_ledger, ledger_row, read_ledger, write_ledger
from sutura.evals.rating_sheet import Shown, make_sheet, rated_ledger, read_sheets, sheet_csv, sheet_key


@pytest.fixture
def frame(sample: Callable[..., Sample]) -> pl.DataFrame:
    """Three systems, two of them with two seeds, ten items each; `mae` has no answer to the last."""
    rows = []
    for encoder, seeds in (("clip", (0, 1)), ("vit", (0, 1)), ("mae", (0,))):
        for seed in seeds:
            for i in range(10 if encoder != "mae" else 9):
                rows.append(
                    ledger_row(
                        sample(f"i{i}", "yes", picture=f"p{i}"),
                        f"{encoder} says {i} at seed {seed}",
                        run=f"{encoder}{seed}",
                        encoder=encoder,
                        seed=seed,
                        condition="picture",
                        benchmark="b",
                    )
                )
    return check_ledger(pl.DataFrame(rows))


def filled(sheet: list[Shown], rate: Callable[[Shown], str], rater: str = "ann") -> str:
    """The sheet as somebody would hand it back."""
    lines = list(csv.DictReader(io.StringIO(sheet_csv(sheet))))
    for one, line in zip(sheet, lines, strict=True):
        line["rating"], line["rater"] = rate(one), rater
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]))
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def test_every_system_answers_every_item_behind_a_letter_drawn_for_it(frame: pl.DataFrame) -> None:
    sheet = make_sheet(frame, 9, seed=3)
    assert len(sheet) == 27
    orders = set()
    for code in {one.code for one in sheet}:
        answers = [one for one in sheet if one.code == code]
        assert [one.letter for one in answers] == ["A", "B", "C"]
        assert {one.row["encoder"] for one in answers} == {"clip", "vit", "mae"}
        assert len({one.row["item_id"] for one in answers}) == 1
        assert all(one.row["seed"] == 0 for one in answers)
        orders.add(tuple(one.row["encoder"] for one in answers))
    assert len(orders) > 1, "a letter must not belong to a system"
    assert make_sheet(frame, 9, seed=3) == sheet
    assert make_sheet(frame, 9, seed=4) != sheet
    assert len({one.row["item_id"] for one in make_sheet(frame, 4)}) == 4


def test_the_sheet_names_no_system(frame: pl.DataFrame) -> None:
    sheet = make_sheet(frame.with_columns(pl.lit("an answer").alias("prediction")), 9)
    text = sheet_csv(sheet)
    assert not any(name in text for name in ("clip", "vit", "mae", "p0", "yes"))
    assert set(sheet_key(sheet, 0)["answers"]) == {f"{one.code}{one.letter}" for one in sheet}


def test_ratings_come_back_as_ledger_rows(frame: pl.DataFrame, tmp_path: Any) -> None:
    sheet = make_sheet(frame, 9)
    key = json.loads(json.dumps(sheet_key(sheet, 0)))
    worth = {"clip": "5", "vit": "3", "mae": "1"}
    ratings = read_sheets([filled(sheet, lambda one: worth[one.row["encoder"]])], key)
    assert (len(ratings.rows), ratings.unrated, ratings.agreement) == (27, 0, None)
    ledger = rated_ledger(frame, ratings)
    write_ledger(tmp_path / "rated.parquet", ledger, {})
    means = dict(
        read_ledger(tmp_path / "rated.parquet").group_by("encoder").agg(pl.mean("rating")).iter_rows()
    )
    assert means == {"clip": 1.0, "vit": 0.5, "mae": 0.0}
    assert ledger.drop("rating").equals(frame.join(ledger, on=["run", "item_id"], how="semi").drop("rating"))


def test_what_cannot_be_used_is_counted_not_guessed(frame: pl.DataFrame) -> None:
    sheet = make_sheet(frame, 3)
    key = sheet_key(sheet, 0)
    ann = filled(sheet, lambda one: {"A": "4", "B": "", "C": "six"}[one.letter])
    bob = filled(sheet, lambda one: {"A": "2", "B": "", "C": "0"}[one.letter], "bob")
    stray = "code,question,letter,answer,rating,rater\nq0099,q,A,x,5,bob\nq0001,q,a,x,5,ann\n"
    ratings = read_sheets([ann, bob, stray], key)
    assert len(ratings.rows) == 3
    assert {row["rating"] for row in ratings.rows} == {0.5}  # 4 and 2: the mean is 3
    assert {row["raters"] for row in ratings.rows} == {2}
    assert ratings.unrated == 6
    assert ratings.unknown == ["q0099A"]
    assert len(ratings.refused) == 6
    assert "q0001C: 'six'" in ratings.refused
    assert ratings.repeated == ["q0001A"], "the same person again; the first rating counts"
    assert ratings.agreement == 0.0
    assert "6 unrated" in ratings.summary()
    assert "1 lines left out, unknown code (q0099A)" in ratings.summary()


def test_sheets_that_cannot_be_read_at_all_are_refused(frame: pl.DataFrame) -> None:
    sheet = make_sheet(frame, 2)
    key = sheet_key(sheet, 0)
    with pytest.raises(UserError, match="lacks the column code, rating"):
        read_sheets(["question,letter,answer,rater\n"], key)
    with pytest.raises(UserError, match="No answer was rated"):
        read_sheets([sheet_csv(sheet)], key)
    with pytest.raises(UserError, match=r"key\.json"):
        read_sheets([sheet_csv(sheet)], {"answers": []})
    ratings = read_sheets([filled(sheet, lambda one: "3")], key)
    with pytest.raises(UserError, match="belongs to another run"):
        rated_ledger(frame.filter(pl.col("encoder") != "vit"), ratings)


def test_one_system_is_no_comparison(frame: pl.DataFrame) -> None:
    with pytest.raises(UserError, match="1 systems answered"):
        make_sheet(frame.filter(pl.col("encoder") == "clip"), 5)
    with pytest.raises(UserError, match="0 systems"):
        make_sheet(frame, 5, conditions=("blind",))


def test_answers_are_no_formulas(frame: pl.DataFrame) -> None:
    sheet = make_sheet(frame.with_columns(pl.lit("=1+1").alias("prediction")), 1)
    assert ",'=1+1," in sheet_csv(sheet)
