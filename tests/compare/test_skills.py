from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest

from sutura.compare.scores import Arm
from sutura.compare.skills import REST, SKILLS, best_of, by_family, by_skill, families_table, skills_table
from sutura.compare.standing import stand
from sutura.compare.tables import Table
from sutura.data.scenes.questions import FAMILIES

Synthetic = Callable[..., pl.DataFrame]
FACTS: dict[str, dict[str, Any]] = {"untrained": {"trained": False}}
BLIND, MAJORITY, UNTRAINED = Arm("none", "blind"), Arm("none", "majority"), Arm("untrained")
FLOOR = {UNTRAINED: 0.45, BLIND: 0.4, MAJORITY: 0.3}
#: Where clip counts, clip and mae name alike, and nobody places.
TRUTH: dict[str, Mapping[Arm, float]] = {
    "count": {Arm("clip"): 0.85, Arm("mae"): 0.6, **FLOOR},
    "compare_count": {Arm("clip"): 0.8, Arm("mae"): 0.6, **FLOOR},
    "query_colour": {Arm("clip"): 0.75, Arm("mae"): 0.75, **FLOOR},
    "side": {Arm("clip"): 0.4, Arm("mae"): 0.4, **FLOOR, UNTRAINED: 0.4},
}


@pytest.fixture
def frame(synthetic: Synthetic) -> pl.DataFrame:
    parts = [
        synthetic(skills, types=[family], per_picture=3, draw=draw).with_columns(
            item_id=pl.concat_str(pl.col("item_id"), pl.lit(family))
        )
        for draw, (family, skills) in enumerate(TRUTH.items())
    ]
    return pl.concat(parts)


def _row(table: Table, first: str) -> dict[str, str]:
    return next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0] == first)


def test_every_family_of_the_world_is_in_one_skill() -> None:
    listed = [family for families in SKILLS.values() for family in families]
    assert sorted(listed) == sorted(FAMILIES)


def test_a_skill_is_scored_on_all_of_its_families_and_no_other(frame: pl.DataFrame) -> None:
    standing = by_skill(frame, FACTS, "world/test")["counts"]
    rows = frame.filter(
        pl.col("question_type").is_in(["count", "compare_count"]) & (pl.col("encoder") == "clip")
    )
    assert standing.estimates[Arm("clip")].mean == pytest.approx(rows["exact"].mean())
    assert standing.estimates[Arm("clip")].n_items == 2 * 60 * 3


def test_who_is_best_where_and_where_nobody_is_shown_to_be(frame: pl.DataFrame) -> None:
    """Fault: the highest number called the best, where the difference, or sight itself, is not shown."""
    skills = by_skill(frame, FACTS, "world/test")
    assert best_of(skills["counts"]) == (Arm("clip"),)
    assert set(best_of(skills["names"])) == {Arm("clip"), Arm("mae")}
    assert best_of(skills["places"]) == ()
    table = skills_table(skills)
    counts, names, places = (_row(table, skill) for skill in ("counts", "names", "places"))
    assert counts["highest"].startswith("clip ")
    assert counts["shown to be below it"].startswith("mae -2")
    assert counts["not shown to differ from it"] == "–"
    assert counts["highest above untrained"].endswith("*")
    assert names["shown to be below it"] == "–"
    assert {"clip", "mae"} == {names["highest"].split()[0], names["not shown to differ from it"].split()[0]}
    assert places["highest"] == "nobody is shown above the floor"
    assert places["n"] == "180"


def test_families_are_marked_as_far_as_they_are_shown(frame: pl.DataFrame) -> None:
    whole = stand(frame, FACTS, "world/test")
    table = families_table(by_family(frame, FACTS, "world/test"), whole)
    assert [row[0] for row in table.rows] == ["count", "compare_count", "query_colour", "side"]
    assert table.columns == ("question family", "n", "clip", "mae", "untrained", "blind", "majority")
    marked = {row[0]: [c for c in ("clip", "mae", "untrained", "blind") if _row(table, row[0])[c][0] == "*"]
              for row in table.rows}  # fmt: skip
    assert marked == {
        "count": ["clip"],
        "compare_count": ["clip"],
        "query_colour": ["clip", "mae"],
        "side": [],
    }
    mean = frame.filter((pl.col("question_type") == "side") & (pl.col("encoder") == "mae"))["exact"].mean()
    assert _row(table, "side")["mae"].startswith(f"{100 * mean:.1f} [")  # type: ignore[operator]


def test_families_that_no_skill_lists_are_not_lost(synthetic: Synthetic) -> None:
    frame = synthetic({Arm("clip"): 0.6, BLIND: 0.4}, types=["count", "what is it", "where"])
    skills = by_skill(frame, {}, "world/test")
    assert list(skills) == ["counts", REST]
    assert skills[REST].scores.types == ("what is it", "where")
    assert sum(s.estimates[Arm("clip")].n_items for s in skills.values()) == 300
