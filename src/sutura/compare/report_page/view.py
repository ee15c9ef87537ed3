"""What the page is drawn from: plain results, computed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from markupsafe import Markup

from sutura.compare.plots import Curves
from sutura.compare.shown import Shown
from sutura.compare.standing import Standing


@dataclass(frozen=True)
class View:
    """A report's results.

    Args:
        standings: one a benchmark.
        frame: the ledgers' rows that were compared.
        facts: encoder's name → its facts.
        cells: what each trained cell left beside its ledger.
        config: the comparison's, resolved.
        notes: as `write_report` takes them.
        left_out: sentences on seeds and items that were not compared.
        curves: training losses.
        shown: what report.md shows too.
        extras: section's name → blocks of HTML that other computations add at its end. Names: ranking, curves,
            cost, leakage, metrics.
    """

    standings: Sequence[Standing]
    frame: pl.DataFrame
    facts: Mapping[str, Mapping[str, Any]]
    cells: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    notes: Mapping[str, Any]
    left_out: Sequence[str]
    curves: Curves
    shown: Shown
    extras: Mapping[str, Sequence[Markup]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the comparison."""
        return str(self.notes.get("name", "Comparison"))

    @property
    def compared(self) -> list[str]:
        """Names of the trained encoders."""
        return sorted({arm.encoder for standing in self.standings for arm in standing.encoders})

    def extra(self, section: str) -> Sequence[Markup]:
        """What others add to a section."""
        return self.extras.get(section, ())
