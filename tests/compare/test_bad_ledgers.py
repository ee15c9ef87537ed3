"""Ledgers that do not fit together, or hardly hold anything: an explained refusal, or an exclusion that is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sutura.compare.report import write_report
from sutura.compare.scores import Arm
from sutura.core.errors import UserError
from sutura.evals.ledger import write_ledger

A, B, BLIND = Arm("a"), Arm("b"), Arm("none", "blind")
Synthetic = Callable[..., pl.DataFrame]
Report = Callable[..., str]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Writes frames as ledgers, one a frame, and the report over them; gives its text."""

    def write(*frames: pl.DataFrame, metas: tuple[Mapping[str, Any], ...] = (), **notes: Any) -> str:
        paths = []
        for number, frame in enumerate(frames):
            paths.append(tmp_path / f"{number}.parquet")
            write_ledger(paths[-1], frame, metas[number] if metas else {"protocol": "1"})
        return write_report(tmp_path / "report", paths, [], {}, notes).read_text()

    return write


def _of(frame: pl.DataFrame, encoder: str) -> pl.DataFrame:
    return frame.filter(pl.col("encoder") == encoder)


def test_other_versions_of_a_benchmark_are_refused(synthetic: Synthetic, report: Report) -> None:
    frame = synthetic({A: 0.6, B: 0.5})
    metas = ({"benchmarks": {"world/test": "1"}}, {"benchmarks": {"world/test": "2"}})
    with pytest.raises(
        UserError, match=r"benchmarks of 'world/test' is '1' in the first and '2' in the second"
    ):
        report(_of(frame, "a"), _of(frame, "b"), metas=metas)


def test_other_items_are_refused_and_a_few_missing_ones_counted(synthetic: Synthetic, report: Report) -> None:
    frame = synthetic({A: 0.6, B: 0.5})
    half = _of(frame, "b").filter(pl.col("image_id") < "p35")
    with pytest.raises(UserError, match="Only 145 of 300 items of world/test were answered in every run"):
        report(_of(frame, "a"), half)
    most = _of(frame, "b").filter(pl.col("item_id") != "p7/q1")
    assert "1 of 300 items of world/test are left out" in report(_of(frame, "a"), most)


def test_duplicate_rows_are_refused_within_and_between_ledgers(synthetic: Synthetic, report: Report) -> None:
    frame = synthetic({A: 0.6, B: 0.5})
    with pytest.raises(UserError, match="holds 600 rows that answer the same item twice"):
        report(pl.concat([frame, frame.head(300)]))
    with pytest.raises(
        UserError, match=r"The ledgers together holds 1800 rows that answer the same item twice"
    ):
        report(frame, _of(frame, "a"))


def test_missing_seeds_are_left_out_and_named(synthetic: Synthetic, report: Report) -> None:
    frame = synthetic({A: 0.6, B: 0.5})
    short = frame.filter((pl.col("encoder") == "a") | (pl.col("seed") < 2))
    text = report(short)
    assert "a on world/test: seeds [2] left out, not all others have them" in text
    assert "2 training seeds" in text
    with pytest.raises(UserError, match="No training seed is common to all runs"):
        report(frame.filter((pl.col("encoder") == "a") == (pl.col("seed") == 0)))


def test_scores_that_are_no_number_are_refused(synthetic: Synthetic, report: Report) -> None:
    frame = synthetic({A: 0.6, B: 0.5})
    bad = pl.when(pl.col("item_id") == "p3/q2").then(float("nan")).otherwise(pl.col("exact"))
    with pytest.raises(UserError, match=r"6 values of 'exact' outside 0 to 1 or not a number, .*'p3/q2'"):
        report(frame.with_columns(exact=bad))


def test_an_encoder_without_the_headline_metric_is_named(synthetic: Synthetic, report: Report) -> None:
    """Fault: it vanished from every table, and nobody was told."""
    frame = synthetic({A: 0.6, B: 0.5, BLIND: 0.3})
    vqa = pl.when(pl.col("encoder") != "b").then(pl.col("exact"))
    text = report(frame.with_columns(vqa=vqa), metrics={"world/test": "vqa"})
    assert "Without any vqa score, so not compared: b." in text
    assert "a answers" in text


def test_a_single_item_has_no_interval_and_shows_nothing(synthetic: Synthetic, report: Report) -> None:
    one = synthetic({A: 1.0, B: 0.0, BLIND: 0.0}, pictures=1, per_picture=1)
    text = report(one, one.with_columns(benchmark=pl.lit("other")))
    assert "a | 100.0 [–]" in text
    assert "No difference shown on world/test between a and b" in text
    assert "+100.0 points (no interval can be computed)" in text


def test_all_right_and_all_wrong_runs_keep_honest_intervals(synthetic: Synthetic, report: Report) -> None:
    skills = {A: 1.0, B: 0.0, Arm("c"): 1.0, BLIND: 0.0}
    text = report(synthetic(skills, pictures=40))
    assert "every picture" not in text.split("## world/test")[0]
    assert "| a | 100.0 [90.7, 100.0] | +100.0 [+90.7, +100.0] *" in text
    assert "| a − c | +0.0 [-9.3, +9.3] | 1.000 |" in text
    assert "| a − b | +100.0 [+90.7, +100.0] * | < 0.001 |" in text
    assert "| c | 1 (to 2) | a |" in text
    assert "| b | 3 | b |" in text


def test_a_whole_report_of_few_pictures_is_written(synthetic: Synthetic, report: Report) -> None:
    for pictures in (2, 3):
        frame = synthetic({A: 0.6, B: 0.5, BLIND: 0.3}, pictures=pictures, per_picture=1)
        text = report(frame, frame.with_columns(benchmark=pl.lit("other")))
        assert "nan" not in text.replace("nance", "")
