"""The tables on answers: what a report shows of their health, and of yes against no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from sutura.compare.answer_tables import health_table, yes_no_table


def test_health_is_shown_per_arm_with_shares(synthetic: Callable[..., pl.DataFrame]) -> None:
    frame = synthetic({("clip", "picture"): 0.5, ("none", "blind"): 0.0}, seeds=(0, 1), pictures=20)
    frame = frame.with_columns(
        pl.when(pl.col("condition") == "blind").then(pl.lit("")).otherwise("prediction").alias("prediction")
    )
    rows = {row[0]: row for row in health_table(frame, "world/test").rows}
    assert rows["blind"][1:3] == ("200", "200 (100.0 %)")
    assert rows["blind"][-1] == "(empty) 100"
    assert rows["clip"][2] == "0"
    # Every reference is "yes", so a "no" is right nowhere.
    wrong = frame.filter((pl.col("condition") == "picture") & (pl.col("prediction") == "no")).height
    assert rows["clip"][-2].startswith(f"{wrong} (")


def test_yes_and_no_are_shown_where_they_are_asked_for(synthetic: Callable[..., Any]) -> None:
    frame = synthetic({("clip", "picture"): 1.0, ("vit", "picture"): 0.0}, seeds=(0,), pictures=4)
    table = yes_no_table(frame, "world/test")
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == [f"{arm}{kind}" for kind in ("", " · count", " · exist") for arm in ("clip", "vit")]
    assert rows["clip · exist"] == rows["clip"]
    assert rows["clip"] == ("100.0", "100.0", "100.0", "100.0", "100.0", "0", "100.0")
    assert rows["vit"] == ("0.0", "0.0", "0.0", "0.0", "0.0", "0", "0.0")
    few = pl.col("item_id") == "p0/q0"
    mixed = synthetic({("clip", "picture"): 1.0}, seeds=(0,), pictures=40).with_columns(
        pl.when(few).then(pl.lit("what")).otherwise(pl.lit("is it")).alias("question_type"),
        pl.when(few).then(pl.lit(["red"])).otherwise("references").alias("references"),
    )
    table = yes_no_table(mixed, "world/test")
    assert table is not None
    assert [row[0] for row in table.rows] == ["clip", "clip · is it"]
    other = frame.with_columns(pl.lit(["red"], pl.List(pl.String)).alias("references"))
    assert yes_no_table(other, "world/test") is None
