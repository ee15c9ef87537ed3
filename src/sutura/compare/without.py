"""Scores with and without the items whose pictures were trained on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from sutura.compare.scores import Arm
from sutura.compare.standing import Standing, stand
from sutura.compare.tables import Table, display, score_cell
from sutura.evals.ledger import of_benchmark

#: Pictures that must be left for scores without the others.
LEAST = 2


@dataclass(frozen=True, slots=True, eq=False)
class Without:
    """One benchmark with all of its items, and without some.

    Args:
        before: on all items.
        after: without them; None where fewer than two pictures are left.
        removed: items left out.
    """

    before: Standing
    after: Standing | None
    removed: int

    @property
    def benchmark(self) -> str:
        """Its name."""
        return self.before.scores.benchmark

    def arms(self) -> tuple[Arm, ...]:
        """Encoders, best first, then untrained ones and floors."""
        return (*self.before.encoders, *self.before.untrained, *self.before.floors)


def without_items(frame: pl.DataFrame, items: Mapping[str, Collection[str]]) -> pl.DataFrame:
    """A ledger without some items.

    Args:
        frame: as `read_ledgers` gives it.
        items: benchmark → item ids to leave out. Ids that the ledger has not are of no effect.
    """
    listed = [(name, item) for name, own in items.items() for item in own]
    gone = pl.DataFrame(listed, {"benchmark": pl.String, "item_id": pl.String}, orient="row").unique()
    return frame.join(gone, on=["benchmark", "item_id"], how="anti", maintain_order="left")


def stand_without(
    frame: pl.DataFrame,
    standings: Sequence[Standing],
    facts: Mapping[str, Mapping[str, Any]],
    items: Mapping[str, Collection[str]],
) -> list[Without]:
    """The standing of every benchmark with affected items in the ledger, computed again without them.

    Args:
        frame: what the standings were computed from.
        standings: on all items.
        facts: encoder name to its facts, as `stand` takes them.
        items: benchmark → ids of the affected items.
    """
    found = []
    for standing in standings:
        name = standing.scores.benchmark
        if not items.get(name):
            continue
        own = of_benchmark(frame, name)
        left = without_items(own, {name: items.get(name, ())})
        removed = own["item_id"].n_unique() - left["item_id"].n_unique()
        if not removed:
            continue
        enough = left["image_id"].n_unique() >= LEAST
        after = stand(left, facts, name, standing.scores.metric) if enough else None
        found.append(Without(standing, after, removed))
    return found


def without_table(pair: Without) -> Table:
    """Every arm on all items and without the affected ones, in percent, and the change in points."""
    rows = []
    for arm in pair.arms():
        before = pair.before.estimates[arm]
        after = pair.after.estimates.get(arm) if pair.after is not None else None
        change = f"{100 * (after.mean - before.mean):+.1f}" if after is not None else "–"
        left = (score_cell(after), change) if after is not None else ("–", "–")
        rows.append((display(pair.before, arm), score_cell(before), *left))
    return Table(("", "all items, %", "without them, %", "change"), tuple(rows))


def without_lines(pairs: Sequence[Without]) -> list[str]:
    """Markdown of the report: for each benchmark what changes, and the table."""
    lines = []
    for pair in pairs:
        lines += [without_sentence(pair), "", without_table(pair).markdown(), ""]
    return lines


def without_sentence(pair: Without) -> str:
    """What changes, in words of report.md."""
    total = len(pair.before.scores.item_ids)
    head = f"**{pair.benchmark} without the {pair.removed:,} of {total:,} items whose pictures were trained on.**"
    if pair.after is None:
        return f"{head} Fewer than {LEAST} pictures are left, so there is no score that leaves them out."
    if not pair.before.encoders:
        return head
    names = [tuple(arm.label for arm in standing.encoders) for standing in (pair.before, pair.after)]
    leaders = [{arm.label for arm in standing.leaders()} for standing in (pair.before, pair.after)]
    if len(names[0]) < 2:
        return head
    if leaders[0] == leaders[1]:
        same = "the order too" if names[0] == names[1] else f"the order is now {', '.join(names[1])}"
        return f"{head} The best of them, and those not shown to be worse, stay the same; {same}."
    return (
        f"{head} The lead changes: with all items {', '.join(sorted(leaders[0]))}; without these "
        f"{', '.join(sorted(leaders[1]))}."
    )
