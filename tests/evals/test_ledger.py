from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sutura.core.errors import UserError
from sutura.data.samples import BytesPicture, Sample
from sutura.evals.ledger import (
    ADDED,
    SCHEMA,
    check_ledger,
    ledger_row,
    read_ledger,
    read_ledgers,
    read_meta,
    write_ledger,
)


@pytest.fixture
def rows(sample: Callable[..., Sample]) -> Callable[..., list[dict[str, Any]]]:
    def make(encoder: str = "clip", seed: int = 0, run: str = "r0", items: int = 3) -> list[dict[str, Any]]:
        return [
            ledger_row(
                sample(f"i{i}", "no"),
                ("no", "not", "")[i % 3],
                run=run,
                encoder=encoder,
                seed=seed,
                condition="picture",
                benchmark="world/test",
            )
            for i in range(items)
        ]

    return make


def test_rows_come_back_as_they_went_in(tmp_path: Path, rows: Callable[..., Any]) -> None:
    write_ledger(tmp_path / "a.parquet", rows(), {"protocol": "1", "benchmarks": {"world/test": "1"}})
    frame = read_ledger(tmp_path / "a.parquet")
    assert frame.columns == list(SCHEMA)
    assert frame["exact"].to_list() == [1, 0, 0]
    assert frame["lenient"].to_list() == [1, 1, 0]
    assert frame["empty"].to_list() == [False, False, True]
    assert frame["references"].to_list() == [["no"]] * 3
    assert frame["vqa"].null_count() == 3
    assert read_meta(tmp_path / "a.parquet")["benchmarks"] == {"world/test": "1"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_the_same_rows_make_the_same_bytes(tmp_path: Path, rows: Callable[..., Any]) -> None:
    for name in "ab":
        write_ledger(tmp_path / f"{name}.parquet", rows(), {"protocol": "1"})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_duplicates_are_refused_and_nothing_is_written(tmp_path: Path, rows: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"same item twice.*'i0'"):
        write_ledger(tmp_path / "a.parquet", rows() + rows(run="r1"), {})
    assert not list(tmp_path.iterdir())


def test_two_files_with_the_same_answers_are_refused(tmp_path: Path, rows: Callable[..., Any]) -> None:
    write_ledger(tmp_path / "a.parquet", rows(), {})
    write_ledger(tmp_path / "b.parquet", rows(run="r1"), {})
    write_ledger(tmp_path / "c.parquet", rows(seed=1), {})
    with pytest.raises(UserError, match="'r0' and 'r1'"):
        read_ledgers([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert len(read_ledgers([tmp_path / "a.parquet", tmp_path / "c.parquet"])) == 6


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("exact", float("nan"), "not a number"),
        ("exact", 1.5, "outside 0 to 1"),
        ("vqa", float("inf"), "outside 0 to 1"),
        ("exact", None, "empty values in column 'exact'"),
        ("condition", "blnd", "Did you mean 'blind'"),
        ("prediction", None, "empty values in column 'prediction'"),
        ("seed", "three", "another type|wrong type"),
    ],
)
def test_bad_values_are_told(
    tmp_path: Path, rows: Callable[..., Any], column: str, value: Any, message: str
) -> None:
    broken = rows()
    broken[1][column] = value
    with pytest.raises(UserError, match=message):
        write_ledger(tmp_path / "a.parquet", broken, {})
    assert not list(tmp_path.iterdir())


def test_columns_are_exactly_those(rows: Callable[..., Any]) -> None:
    frame = pl.DataFrame(rows(), schema_overrides=SCHEMA)
    with pytest.raises(UserError, match="lacks the columns image_id"):
        check_ledger(frame.drop("image_id"))
    with pytest.raises(UserError, match=r"unknown column 'exat'.*'exact'"):
        check_ledger(frame.with_columns(exat=pl.lit(1.0)))
    with pytest.raises(UserError, match="no rows"):
        check_ledger(frame.clear())


def test_rows_that_differ_in_columns_are_told(tmp_path: Path, rows: Callable[..., Any]) -> None:
    broken = rows()
    del broken[2]["stopped"]
    with pytest.raises(UserError, match="different columns: stopped"):
        write_ledger(tmp_path / "a.parquet", broken, {})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"protocol": "1"}, {"protocol": "2"}),
        ({"benchmarks": {"world/test": "1"}}, {"benchmarks": {"world/test": "2"}}),
        ({"data": {"world/test": "aa"}}, {"data": {"world/test": "bb"}}),
    ],
)
def test_ledgers_of_two_versions_are_not_read_together(
    tmp_path: Path, rows: Callable[..., Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    write_ledger(tmp_path / "a.parquet", rows(), first)
    write_ledger(tmp_path / "b.parquet", rows(seed=1), second)
    with pytest.raises(UserError, match="do not belong together"):
        read_ledgers([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def test_missing_and_damaged_files_are_sentences(tmp_path: Path, rows: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="no ledger at"):
        read_ledger(tmp_path / "none.parquet")
    with pytest.raises(UserError, match="No ledger was given"):
        read_ledgers([])
    write_ledger(tmp_path / "a.parquet", rows(), {})
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        read_ledger(tmp_path / "b.parquet")
    with pytest.raises(UserError, match="cannot be read"):
        read_ledgers([tmp_path / "b.parquet"])


def test_ledgers_that_know_other_right_answers_are_refused(
    tmp_path: Path, rows: Callable[..., list[dict[str, Any]]]
) -> None:
    """Fault: a ledger from elsewhere takes its own answers for the right ones."""
    write_ledger(tmp_path / "a.parquet", rows(), {})
    other = pl.DataFrame(rows(encoder="vit"), schema=SCHEMA)
    own = other.with_columns(references=pl.concat_list("prediction"))
    for frame, name in ((other, "same"), (own, "own")):
        write_ledger(tmp_path / f"{name}.parquet", frame, {})
    assert len(read_ledgers([tmp_path / "a.parquet", tmp_path / "same.parquet"])) == 6
    with pytest.raises(UserError, match=r"disagree about what is asked or right at item 'i[12]'"):
        read_ledgers([tmp_path / "a.parquet", tmp_path / "own.parquet"])


def test_older_ledgers_are_read_and_say_what_they_do_not_know(
    tmp_path: Path, rows: Callable[..., Any]
) -> None:
    """Columns of a later version are filled in, whole; a ledger with some of them is refused."""
    later = list(ADDED[2])
    old = check_ledger(pl.DataFrame(rows())).drop(later)
    old.write_parquet(tmp_path / "old.parquet")
    frame = read_ledger(tmp_path / "old.parquet")
    assert frame.columns == list(SCHEMA)
    assert frame["choices"].to_list() == [[]] * 3
    assert all(frame[name].null_count() == 3 for name in later if name != "choices")
    write_ledger(tmp_path / "new.parquet", rows(seed=1), {})
    both = read_ledgers([tmp_path / "old.parquet", tmp_path / "new.parquet"])
    assert both["anls"].null_count() == 3
    with pytest.raises(UserError, match="lacks the columns anls"):
        check_ledger(check_ledger(pl.DataFrame(rows())).drop("anls"))


def test_choices_and_scores_by_likelihood_come_back(tmp_path: Path) -> None:
    asked = Sample(BytesPicture(b""), "which?", ("a",), "p", "i", "", ("a", "b"))
    row = ledger_row(
        asked,
        "b",
        run="r",
        encoder="e",
        seed=0,
        condition="picture",
        benchmark="x",
        by_choice={"likelihood_byte": 1.0, "rotated": 0.5, "circular": 0.0},
    )
    write_ledger(tmp_path / "a.parquet", [row], {})
    frame = read_ledger(tmp_path / "a.parquet")
    assert frame["choices"].to_list() == [["a", "b"]]
    assert frame.select("likelihood_token", "likelihood_byte", "rotated", "circular").row(0) == (
        None,
        1.0,
        0.5,
        0.0,
    )
