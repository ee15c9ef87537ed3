from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from compare_on_disk import make_comparison
from sutura.compare.merge import merge, run_names
from sutura.compare.publish import read_comparison
from sutura.core.errors import UserError


def rows_of(directory: Path) -> pl.DataFrame:
    """The table of every estimate of a report."""
    found = pl.read_csv(directory / "tables" / "results.csv")
    return found.filter(pl.col("question_type").is_null() & (pl.col("condition") == "picture"))


def test_encoders_of_two_comparisons_stand_in_one_report(tmp_path: Path) -> None:
    first = make_comparison(tmp_path, "first", encoders={"clip": 0.9})
    second = make_comparison(tmp_path, "second", encoders={"vit": 0.5})
    text = merge([first, second], tmp_path / "both").read_text()
    assert text.startswith("# first + second\n")
    assert "| clip − vit |" in text
    assert rows_of(tmp_path / "both")["encoder"].sort().to_list() == ["clip", "vit"]
    # Both trained the same blind cell; it is one arm with its own seeds, not two.
    assert "| *blind* |" in text
    for part in (
        "sutura compare name=first",
        "sutura compare name=second",
        "report runs/first runs/second --into DIRECTORY",
    ):
        assert part in text, part
    page = (tmp_path / "both" / "report.html").read_text()
    assert "data:image/webp" in page
    assert "clip − vit" in page


def test_further_seeds_of_one_encoder_are_pooled(tmp_path: Path) -> None:
    few = make_comparison(tmp_path, "few", seeds=(0, 1))
    more = make_comparison(tmp_path, "more", seeds=(1, 2))
    merge([few, more], tmp_path / "all", pictures=False)
    assert rows_of(tmp_path / "all")["seeds"].to_list() == [3, 3]


def test_one_training_asked_two_benchmarks_stays_one_encoder(tmp_path: Path) -> None:
    """Fault: other benchmarks make another name, so that nothing can be said over both."""
    here = make_comparison(tmp_path, "here")
    there = make_comparison(tmp_path, "there", benchmark="world/compositional", pictures=6)
    text = merge([here, there], tmp_path / "both", pictures=False).read_text()
    rows = rows_of(tmp_path / "both")
    assert sorted(set(rows["encoder"].to_list())) == ["clip", "vit"]
    assert "## Over all benchmarks" in text
    assert "told apart by the comparison's name" not in text


def test_one_benchmark_evaluated_in_two_ways_is_told_apart(tmp_path: Path) -> None:
    few = make_comparison(tmp_path, "few", encoders={"clip": 0.9})
    again = make_comparison(tmp_path, "again", encoders={"clip": 0.9}, evaluated="other")
    merge([few, again], tmp_path / "both", pictures=False)
    assert rows_of(tmp_path / "both")["encoder"].sort().to_list() == ["clip (again)", "clip (few)"]


def test_a_merged_report_does_not_depend_on_its_place(tmp_path: Path) -> None:
    pair = [make_comparison(tmp_path, "one", encoders={"clip": 0.9}), make_comparison(tmp_path, "two")]
    for place in ("here", "there/deeper"):
        merge(pair, tmp_path / place, pictures=False)
    for name in ("report.md", "report.html", "plots/loss.svg"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there/deeper" / name).read_bytes(), (
            name
        )
    assert str(tmp_path) not in (tmp_path / "here" / "report.html").read_text()


def test_one_name_for_two_trainings_is_told_apart(tmp_path: Path) -> None:
    slow = make_comparison(tmp_path, "slow", lr=0.001)
    fast = make_comparison(tmp_path, "fast", lr=0.003, encoders={"clip": 0.9})
    text = merge([slow, fast], tmp_path / "both", pictures=False).read_text()
    assert rows_of(tmp_path / "both")["encoder"].sort().to_list() == ["clip (fast)", "clip (slow)", "vit"]
    assert "- Not matched between comparisons – optim.lr: slow 0.001, fast 0.003." in text
    assert "*slow, blind*" in text
    assert "*fast, blind*" in text
    assert "told apart by the comparison's name" in text
    page = (tmp_path / "both" / "report.html").read_text()
    assert "optim.lr: slow 0.001, fast 0.003" in page


def test_other_versions_or_data_are_refused_by_name(tmp_path: Path) -> None:
    first = make_comparison(tmp_path / "a", "first")
    second = make_comparison(tmp_path / "b", "second", version="2")
    with pytest.raises(
        UserError, match=r"first and second cannot be merged: the version of world/test is '1' .* '2'"
    ):
        merge([first, second], tmp_path / "both")
    third = make_comparison(tmp_path / "c", "third", pictures=5)
    with pytest.raises(UserError, match="fingerprint of the data of world/test"):
        merge([first, third], tmp_path / "both")
    fourth = make_comparison(tmp_path / "d", "fourth", metrics={"world/test": "token_f1"})
    with pytest.raises(UserError, match=r"headline metric of world/test is 'exact' .* 'token_f1'"):
        merge([first, fourth], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_places_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    first = make_comparison(tmp_path, "first", encoders={"clip": 0.9})
    second = make_comparison(tmp_path, "second")
    for directories, into, sentence in (
        ([first, first], tmp_path / "both", "given twice"),
        ([first], tmp_path / "both", "two comparisons or more"),
        ([first, second], first, "own directory"),
        ([first, tmp_path / "cells"], tmp_path / "both", "holds no comparison.json"),
    ):
        with pytest.raises(UserError, match=sentence):
            merge(directories, into)
    assert not (first / "report.md").exists()


def test_names_of_runs_are_as_long_as_they_must_be() -> None:
    assert run_names([Path("/runs/a"), Path("/runs/b")]) == ["a", "b"]
    assert run_names([Path("/one/a"), Path("/two/a")]) == ["one/a", "two/a"]


def test_a_merged_report_changes_no_comparison(tmp_path: Path) -> None:
    first = make_comparison(tmp_path, "first", encoders={"clip": 0.9})
    second = make_comparison(tmp_path, "second", lr=0.1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    merge([first, second], tmp_path / "both", pictures=False)
    assert {p: p.read_bytes() for p in before} == before
    assert len(read_comparison(first).cells) == 4
