"""Tables of a report, computed from a standing or from what the cells wrote down; Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import Any

import polars as pl

from sutura.compare.matching import count_words, show_fact
from sutura.compare.scores import Arm, Scores
from sutura.compare.standing import Standing
from sutura.compare.statistics import Difference, Estimate, accuracy
from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.evals.ledger import of_benchmark

#: Question types that get a row of their own; the rest share one.
TYPES_SHOWN = 12
OTHER = "(other types)"

Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A pipe table: first column to the left, the others to the right."""
        rule = [":--"] + ["--:"] * (len(self.columns) - 1)
        lines = [self.columns, rule, *self.rows]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )

    def csv(self) -> str:
        """Comma-separated, with a header."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def score_cell(estimate: Estimate) -> str:
    """66.0 [63.1, 68.8], in percent."""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:.1f} [–]"
    return f"{100 * estimate.mean:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def gap_cell(gap: Difference | None) -> str:
    """+3.1 [+1.2, +5.0], in points; a star where it is shown."""
    if gap is None:
        return "–"
    text = f"{100 * gap.difference:+.1f}"
    if gap.low is not None and gap.high is not None:
        text += f" [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
    return text + (" *" if gap.shown else "")


def accuracy_table(standing: Standing, facts: Facts) -> Table:
    """Encoders, best first, with their controls beside them; then what needs no encoder."""
    rows = []
    for arm in (*standing.encoders, *standing.untrained):
        estimate, fact = standing.estimates[arm], facts.get(arm.encoder, {})
        wrong = standing.estimates.get(Arm(arm.encoder, "wrong-picture"))
        rows.append(
            (
                display(standing, arm),
                score_cell(estimate),
                gap_cell(standing.above_floor.get(arm)),
                score_cell(wrong) if wrong else "–",
                "–" if estimate.seed_sd is None else f"{100 * estimate.seed_sd:.1f}",
                str(estimate.n_seeds),
                show_fact("num_tokens", fact.get("num_tokens")),
                show_fact("params", fact.get("params")),
            )
        )
    bare = [*standing.floors, *([standing.ceiling] if standing.ceiling else [])]
    for arm in bare:
        estimate = standing.estimates[arm]
        sd = "–" if estimate.seed_sd is None or arm.seedless else f"{100 * estimate.seed_sd:.1f}"
        seeds = "–" if arm.seedless else str(estimate.n_seeds)
        rows.append((f"*{arm.label}*", score_cell(estimate), "–", "–", sd, seeds, "–", "–"))
    columns = (
        "encoder",
        "accuracy % [95 %]",
        "above the floor",
        "wrong picture",
        "sd of seeds",
        "seeds",
        "tokens",
        "parameters",
    )
    return Table(columns, tuple(rows))


def display(standing: Standing, arm: Arm) -> str:
    """An encoder's name, with a word where its weights are random."""
    return f"{arm.label} (untrained)" if arm in standing.untrained and arm.label != "untrained" else arm.label


def pairs_table(standing: Standing) -> Table:
    """Every pair of trained encoders, the better one first."""
    rows = []
    for (a, b), gap in standing.pairs.items():
        p = (
            "–"
            if gap.p_adjusted is None
            else "< 0.001"
            if gap.p_adjusted < 0.001
            else f"{gap.p_adjusted:.3f}"
        )
        smallest = "–" if gap.detectable is None else f"{100 * gap.detectable:.1f}"
        rows.append((f"{a.label} − {b.label}", gap_cell(gap), p, smallest))
    columns = ("pair", "points [95 %]", "p (Holm)", "smallest difference found in 80 % of repeats")
    return Table(columns, tuple(rows))


def type_groups(scores: Scores) -> dict[str, tuple[str, ...]]:
    """Question types as a report shows them: the commonest by themselves, the rest together."""
    counts = Counter(scores.type_of.tolist())
    order = sorted(range(len(scores.types)), key=lambda code: (-counts[code], scores.types[code]))
    shown = order if len(order) <= TYPES_SHOWN + 1 else order[:TYPES_SHOWN]
    groups: dict[str, tuple[str, ...]] = {
        scores.types[code] or "(none)": (scores.types[code],) for code in sorted(shown)
    }
    if rest := tuple(scores.types[code] for code in order if code not in shown):
        groups[OTHER] = rest
    return groups


def types_table(standing: Standing) -> Table:
    """Accuracy per question type: a row a type, a column an arm."""
    scores = standing.scores
    arms = shown_arms(standing)
    rows = []
    for name, types in type_groups(scores).items():
        cells = []
        count = 0
        for arm in arms:
            estimate = type_estimate(scores, arm, types)
            count = max(count, estimate.n_items if estimate else 0)
            cells.append(score_cell(estimate) if estimate else "–")
        rows.append((name, str(count), *cells))
    return Table(("question type", "n", *(arm.label for arm in arms)), tuple(rows))


def type_estimate(scores: Scores, arm: Arm, types: tuple[str, ...]) -> Estimate | None:
    """Accuracy on some types; None where the metric applies to no item of them."""
    try:
        return accuracy(scores, arm, types)
    except UserError:
        return None


def shown_arms(standing: Standing) -> tuple[Arm, ...]:
    """Arms that stand side by side per type: encoders, then floors, then the ceiling."""
    ceiling = (standing.ceiling,) if standing.ceiling else ()
    return (*standing.encoders, *standing.untrained, *standing.floors, *ceiling)


def metrics_table(frame: pl.DataFrame, benchmark: str, metrics: Sequence[str]) -> Table:
    """Other metrics and the health of the answers, per arm: plain means in percent, no interval."""
    means = (
        of_benchmark(frame, benchmark)
        .group_by("condition", "encoder")
        .agg(
            pl.len().alias("answers"),
            *(pl.col(name).mean() for name in metrics),
            pl.col("empty").mean(),
            (~pl.col("stopped")).mean().alias("unstopped"),
        )
        .sort("condition", "encoder")
    )
    names = (*metrics, "empty", "unstopped")
    rows = []
    for row in means.iter_rows(named=True):
        values = ("–" if row[name] is None else f"{100 * row[name]:.1f}" for name in names)
        rows.append((Arm(row["encoder"], row["condition"]).label, str(row["answers"]), *values))
    return Table(("arm", "answers", *names), tuple(rows))


def convergence_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Loss, time and size of what was trained, a row for each encoder and condition, over its seeds.

    The final loss is the mean of the last steps, with the spread *over those steps*; how far seeds lie apart
    stands beside it. The loss of the last step and the lowest of any step, means over seeds, are there for those who
    compare with tables that give them; they say little: one batch decides.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((str(cell.get("condition")), str(cell.get("encoder"))), []).append(cell)
    rows = []
    for (condition, encoder), members in sorted(groups.items(), key=lambda g: (g[0][0] == "blind", g[0])):
        finals = _numbers(members, "loss", "final_mean")
        spread = _numbers(members, "loss", "final_sd")
        facts = members[0].get("encoder_facts") or {}
        lasts = [ends for cell in members if (ends := loss_ends(cell)) is not None]
        final = f"{fmean(finals):.4f} ± {fmean(spread):.4f}" if finals and spread else "–"
        rows.append(
            (
                Arm(encoder, condition).label,
                str(len(members)),
                _mean(_numbers(members, "answers"), "{:,.0f}"),
                _mean(_numbers(members, "loss", "first"), "{:.3f}"),
                _mean([ends[0] for ends in lasts], "{:.4f}"),
                _mean([ends[1] for ends in lasts], "{:.4f}"),
                final,
                f"{stdev(finals):.4f}" if len(finals) > 1 else "–",
                _mean(_numbers(members, "seconds", "train"), "{:.0f}"),
                _mean(_numbers(members, "seconds", "evaluate"), "{:.0f}"),
                _mean(_numbers(members, "answers_per_second"), "{:.0f}"),
                _count(_numbers(members, "trainable", "projector")),
                _count(_numbers(members, "trainable", "adapter")),
                show_fact("params", facts.get("params")) if condition != "blind" else "–",
                show_fact("num_tokens", facts.get("num_tokens")) if condition != "blind" else "–",
                _peak(members),
            )
        )
    columns = (
        "stitch",
        "seeds",
        "answers trained on",
        "first loss",
        "last step",
        "lowest step",
        "final loss ± sd of last steps",
        "sd of seeds",
        "train s",
        "evaluate s",
        "answers/s",
        "projector",
        "adapter",
        "encoder",
        "tokens",
        "peak MB",
    )
    return Table(columns, tuple(rows))


def loss_ends(cell: Mapping[str, Any]) -> tuple[float, float] | None:
    """Loss of the last step and the lowest of any, from a cell's metrics; None where they are not at hand."""
    where = cell.get("metrics_path")
    if not where or not Path(where).is_file():
        return None
    losses = [float(row["loss"]) for row in read_metrics(Path(where)) if row.get("loss") is not None]
    return (losses[-1], min(losses)) if losses else None


def results_table(standings: Sequence[Standing]) -> Table:
    """Every estimate at full precision, long form, for other programs."""
    rows = []
    for standing in standings:
        scores = standing.scores
        for arm in scores.arms:
            for name, types in {"": None, **{t: (t,) for t in scores.types}}.items():
                if types is None:
                    found: Estimate | None = standing.estimates[arm]
                else:
                    found = type_estimate(scores, arm, types)
                if found is not None:
                    rows.append((scores.benchmark, scores.metric, *arm, name, *_plain(found)))
    columns = ("benchmark", "metric", "encoder", "condition", "question_type", "mean", "low", "high")
    return Table((*columns, "items", "pictures", "seeds", "seed_sd", "excluded", "note"), tuple(rows))


def _plain(found: Estimate) -> tuple[str, ...]:
    values = (found.mean, found.low, found.high, found.n_items, found.n_pictures, found.n_seeds)
    return tuple("" if v is None else str(v) for v in (*values, found.seed_sd, found.excluded, found.note))


def _numbers(cells: Sequence[Mapping[str, Any]], *path: str) -> list[float]:
    values = []
    for cell in cells:
        value: Any = cell
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            values.append(float(value))
    return values


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(fmean(values)) if values else "–"


def _peak(cells: Sequence[Mapping[str, Any]]) -> str:
    """Peak memory; an upper bound where it may be that of an earlier cell in the same process."""
    shown = _mean(_numbers(cells, "peak_memory_mb"), "{:,.0f}")
    own = all(cell.get("peak_memory_of") == "cell" for cell in cells)
    return shown if own or shown == "–" else f"≤ {shown}"


def _count(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return count_words(round(values[0])) if pstdev(values) == 0 else "varies"
