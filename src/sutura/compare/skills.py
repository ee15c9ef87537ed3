"""What an encoder is good for: question families put together by what they ask of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from sutura.compare.scores import Arm
from sutura.compare.standing import Standing, stand
from sutura.compare.tables import Table, gap_cell, score_cell, shown_arms

#: Families of the built-in world by what has to be seen to answer them.
SKILLS = {
    "counts": ("count", "compare_count"),
    "notices": ("exist",),
    "names": ("query_colour", "query_shape", "query_size", "query_material"),
    "places": ("side",),
    "names by place": ("chain",),
}
#: For families that no skill lists.
REST = "other"

Standings = dict[str, Standing]


def by_skill(
    frame: pl.DataFrame, facts: Mapping[str, Mapping[str, Any]], benchmark: str, metric: str = "exact"
) -> Standings:
    """A standing of each skill that the benchmark asks for.

    Corrections for several comparisons are made within a skill, as they are within a benchmark elsewhere.

    Args:
        frame: ledgers, as `read_ledgers` gives them.
        facts: as `stand` takes them.
        benchmark: which.
        metric: the headline score column.
    """
    listed = [family for families in SKILLS.values() for family in families]
    families = _families(frame, benchmark)
    groups = {**SKILLS, REST: tuple(name for name in families if name not in listed)}
    return {
        skill: _stand_on(frame, facts, benchmark, metric, names)
        for skill, names in groups.items()
        if set(names) & set(families)
    }


def by_family(
    frame: pl.DataFrame, facts: Mapping[str, Mapping[str, Any]], benchmark: str, metric: str = "exact"
) -> Standings:
    """A standing of each question family, those of one skill together."""
    order = [name for families in SKILLS.values() for name in families]
    found = sorted(
        _families(frame, benchmark),
        key=lambda name: (order.index(name) if name in order else len(order), name),
    )
    return {name: _stand_on(frame, facts, benchmark, metric, (name,)) for name in found}


def _families(frame: pl.DataFrame, benchmark: str) -> list[str]:
    return frame.filter(pl.col("benchmark") == benchmark)["question_type"].unique().sort().to_list()


def _stand_on(
    frame: pl.DataFrame,
    facts: Mapping[str, Mapping[str, Any]],
    benchmark: str,
    metric: str,
    families: tuple[str, ...],
) -> Standing:
    return stand(frame.filter(pl.col("question_type").is_in(families)), facts, benchmark, metric)


def best_of(standing: Standing) -> tuple[Arm, ...]:
    """The encoder with the highest score and those not shown to differ from it, as far as they are shown to be
    above every floor; nobody where the highest is not: a ranking of guesses means nothing."""
    if not standing.encoders or not standing.clears_floor(standing.encoders[0]):
        return ()
    return tuple(arm for arm in standing.leaders() if standing.clears_floor(arm))


def skills_table(skills: Standings) -> Table:
    """Which encoder does what best, and what is not shown."""
    rows = []
    for skill, standing in skills.items():
        best = best_of(standing)
        families = ", ".join(standing.scores.types)
        if not best:
            row = ("nobody is shown above the floor", "–", "–", "–", "–")
        else:
            first = best[0]
            beaten = [arm for arm in standing.encoders if arm not in standing.leaders()]
            row = (
                f"{first.label} {score_cell(standing.estimates[first])}",
                _gaps(standing, [arm for arm in standing.leaders() if arm != first]),
                _gaps(standing, beaten),
                gap_cell(standing.above_floor[first]),
                gap_cell(standing.above_untrained.get(first)),
            )
        rows.append((skill, families, f"{_items(standing):,}", *row))
    columns = (
        "skill",
        "families",
        "n",
        "highest",
        "not shown to differ from it",
        "shown to be below it",
        "highest above the floor",
        "highest above untrained",
    )
    return Table(columns, tuple(rows))


def _gaps(standing: Standing, arms: list[Arm]) -> str:
    best = standing.encoders[0]
    told = [f"{arm.label} {100 * -standing.pairs[best, arm].difference:+.1f}" for arm in arms]
    return ", ".join(told) or "–"


def families_table(families: Standings, whole: Standing) -> Table:
    """Accuracy of every arm in each family.

    Args:
        families: a standing each.
        whole: of all families together, which gives the order of the columns.
    """
    arms = [arm for arm in shown_arms(whole) if arm.condition != "majority-overall"]
    rows = []
    for name, standing in families.items():
        best = best_of(standing)
        cells = []
        for arm in arms:
            estimate = standing.estimates.get(arm)
            text = score_cell(estimate) if estimate else "–"
            cells.append(f"**{text}**" if arm in best else text)
        rows.append((name, f"{_items(standing):,}", *cells))
    return Table(("question family", "n", *(arm.label for arm in arms)), tuple(rows))


def _items(standing: Standing) -> int:
    return max(estimate.n_items for estimate in standing.estimates.values())
