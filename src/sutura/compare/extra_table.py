"""An extra metric of finished runs as a table with intervals."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from sutura.compare.publish import COMPARISON, read_comparison
from sutura.compare.scores import Scores, common_items, common_seeds
from sutura.compare.statistics import accuracy
from sutura.compare.tables import Table, score_cell
from sutura.core.errors import UserError
from sutura.evals.extra_metrics import with_extra
from sutura.evals.ledger import read_ledgers


def ledgers_at(source: Path) -> list[Path]:
    """The ledgers of a comparison's folder, or the one file that is given.

    Raises:
        UserError: neither.
    """
    if source.is_file():
        return [source]
    if (source / COMPARISON).is_file():
        return read_comparison(source).ledgers
    raise UserError(f"{source} is neither a ledger (Parquet) nor runs/<name>, as a comparison left it.")


def extra_table(source: Path, metric: str) -> str:
    """Markdown: every arm's mean of an extra metric with its interval, a table a benchmark."""
    frame: pl.DataFrame = with_extra(read_ledgers(ledgers_at(source)), metric)
    frame, _ = common_seeds(frame)
    frame, notes = common_items(frame)
    parts = [*notes]
    for name in frame["benchmark"].unique(maintain_order=True).to_list():
        scores = Scores.of(frame, name, "exact")
        parts += [name, *means(scores, ("arm", f"{metric}, % [95 %]", "n"))]
    return "\n\n".join(parts)


def means(scores: Scores, columns: tuple[str, str, str]) -> list[str]:
    """Every arm's mean with its interval as a Markdown table, and a sentence on what limits the intervals."""
    estimates = {arm: accuracy(scores, arm) for arm in scores.arms}
    rows = tuple((arm.label, score_cell(found), f"{found.n_items:,}") for arm, found in estimates.items())
    notes = dict.fromkeys(found.note for found in estimates.values() if found.note)
    return [Table(columns, rows).markdown(), *([f"{'; '.join(notes)}."] if notes else [])]
