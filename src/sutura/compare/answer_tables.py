"""Tables on the answers themselves: their health, and yes against no."""

from __future__ import annotations

import polars as pl

from sutura.compare.scores import Arm
from sutura.compare.tables import Table
from sutura.evals.ledger import of_benchmark
from sutura.evals.pope import asks_yes_or_no, yes_no_scores
from sutura.evals.prediction_health import COUNTS, health_by_arm

#: Question types of a yes/no set that are shown by themselves.
MOST_TYPES = 4

HEALTH_NOTE = (
    "Answers that are suspect whatever their score, over all seeds: *repeated* are a run's most frequent answer where "
    "it is given far more often than any one answer is right, *looping* say the same words three times in a row, "
    "*off-format* are no yes or no, no number or none of the options where one is asked for, *unknown* are no right "
    "answer of any item."
)
YES_NO_NOTE = (
    "Yes is the positive answer; what is neither yes nor no is wrong. Precision, recall, F1 and the share of yes are "
    "POPE's (arXiv:2305.10355); *as POPE reads* is the accuracy under its own rule, which takes every answer without a "
    "no for a yes."
)


def health_table(frame: pl.DataFrame, benchmark: str) -> Table:
    """Counts of suspect answers, a row an arm; shares in percent beside them."""
    rows = []
    for row in health_by_arm(frame, benchmark):
        cells = [_count(row[name], row["answers"]) for name in COUNTS]
        top = f"{row['top'] or '(empty)'} {100 * row['top_share']:.0f}"
        rows.append((Arm(row["encoder"], row["condition"]).label, str(row["answers"]), *cells, top))
    names = ("empty", "unstopped", "repeated", "looping", "off-format", "unknown")
    return Table(("arm", "answers", *names, "most frequent answer, % of a run"), tuple(rows))


def _count(number: int, answers: int) -> str:
    return f"{number} ({100 * number / answers:.1f} %)" if number else "0"


def yes_no_table(frame: pl.DataFrame, benchmark: str) -> Table | None:
    """Accuracy, precision, recall, F1 and share of yes in percent; None for a set that asks for something else.

    Where the set has two to four question types, such as POPE's ways of drawing absent objects, each that asks for yes
    or no has rows of its own behind those of the whole.
    """
    if not asks_yes_or_no(frame, benchmark):
        return None
    here = of_benchmark(frame, benchmark)
    types = here["question_type"].unique().sort().to_list()
    shown = [
        kind for kind in types if asks_yes_or_no(here.filter(pl.col("question_type") == kind), benchmark)
    ]
    rows = []
    for kind in (None, *(shown if 2 <= len(types) <= MOST_TYPES else ())):
        published = yes_no_scores(frame, benchmark, "published", kind)
        for strict, theirs in zip(yes_no_scores(frame, benchmark, "strict", kind), published, strict=True):
            values = (strict.accuracy, strict.precision, strict.recall, strict.f1, strict.yes_ratio)
            label = Arm(strict.encoder, strict.condition).label
            rows.append(
                (
                    label if kind is None else f"{label} · {kind}",
                    *(f"{100 * value:.1f}" for value in values),
                    str(strict.neither),
                    f"{100 * theirs.accuracy:.1f}",
                )
            )
    names = ("accuracy", "precision", "recall", "F1", "yes", "neither", "accuracy as POPE reads")
    return Table(("arm", *names), tuple(rows))
