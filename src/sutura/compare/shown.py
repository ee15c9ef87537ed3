"""What report.md and report.html both show beside the standings, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from sutura.compare.aggregate import Aggregate, aggregate
from sutura.compare.answer_tables import health_table, yes_no_table
from sutura.compare.curves import Curves, read_curves
from sutura.compare.ranking import ranking_table
from sutura.compare.standing import Standing
from sutura.compare.tables import Table
from sutura.compare.without import Without, stand_without


@dataclass(frozen=True)
class Shown:
    """Results that take a while.

    Args:
        ranks: benchmark → its table, where encoders are compared.
        together: over all benchmarks; None with one.
        learning: accuracy while training.
        without: standings without items that were trained on.
        health: benchmark → table of suspect answers.
        yes_no: benchmark → precision and the rest, where it asks for yes or no.
    """

    ranks: Mapping[str, Table]
    together: Aggregate | None
    learning: Curves
    without: Sequence[Without]
    health: Mapping[str, Table]
    yes_no: Mapping[str, Table]


def compute(
    standings: Sequence[Standing],
    frame: pl.DataFrame,
    facts: Mapping[str, Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    affected: Mapping[str, Any],
) -> Shown:
    """All of it.

    Args:
        standings: one a benchmark.
        frame: what they were computed from.
        facts: encoder name to its facts.
        cells: what each left beside its ledger.
        affected: benchmark → ids of items whose pictures were trained on.
    """
    names = [standing.scores.benchmark for standing in standings]
    yes_no = {name: yes_no_table(frame, name) for name in names}
    return Shown(
        {standing.scores.benchmark: ranking_table(standing) for standing in standings if standing.pairs},
        aggregate(standings),
        read_curves(cells),
        stand_without(frame, standings, facts, affected),
        {name: health_table(frame, name) for name in names},
        {name: table for name, table in yes_no.items() if table is not None},
    )
