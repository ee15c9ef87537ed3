"""Learning rates chosen for each encoder on a selection split: one rate for all is a difference between them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from sutura.compare.grid import LEDGER, Cell, cell_directory
from sutura.evals.ledger import read_ledger

#: What the selection split is called in the ledgers of the runs that choose.
SELECT = "selection"


@dataclass(frozen=True)
class Sweep:
    """What was tried.

    Args:
        scores: encoder's name ("none" for the blind run) → learning rate → accuracy on the selection split (0 to 1).
    """

    scores: dict[str, dict[float, float]] = field(default_factory=dict)

    @property
    def chosen(self) -> dict[str, float]:
        """The best rate of each; of equal ones the smallest."""
        return {name: min(tried, key=lambda lr: (-tried[lr], lr)) for name, tried in self.scores.items()}

    def facts(self) -> dict[str, Any]:
        """For the report: encoder → the rate chosen, and what each rate scored."""
        return {
            name: {"chosen": self.chosen[name], "scores": {f"{lr:g}": score for lr, score in tried.items()}}
            for name, tried in self.scores.items()
        }


def read_sweep(runs: Path, cells: Sequence[tuple[float, Cell]]) -> Sweep:
    """The scores of finished cells, from their ledgers; rows of the selection split with the right picture."""
    scores: dict[str, dict[float, float]] = {}
    for lr, cell in cells:
        frame = read_ledger(cell_directory(runs, cell) / LEDGER)
        frame = frame.filter(pl.col("benchmark") == SELECT, pl.col("condition") == cell.condition)
        name = cell.facts["name"] if cell.facts is not None else "none"
        scores.setdefault(name, {})[lr] = float(frame["exact"].sum()) / max(1, len(frame))
    return Sweep(scores)
