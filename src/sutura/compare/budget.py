"""Accuracy against picture tokens and against the block that is read, where rows differ in that alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.tables import Table, gap_cell, score_cell

#: What may be varied → how it is called. Blocks are counted from 1, as people do.
VARIED = {"num_tokens": "picture tokens", "layer": "block"}
#: Facts that must be equal for two rows to differ in one thing alone.
_SAME = ("id", "image_size", "final_norm", "untrained_seed", "trained", "num_tokens", "layer")

Series = dict[str, dict[int, Arm]]
"""Encoder's id → value → the arm that has it, ascending."""


def series(standing: Standing, facts: Mapping[str, Mapping[str, Any]], varied: str) -> Series:
    """Encoders that stand in a comparison several times with different values of one setting, all else equal.

    Args:
        standing: of a benchmark.
        facts: encoder's name → its facts.
        varied: a key of VARIED.
    """
    groups: dict[str, dict[int, Arm]] = {}
    for arm in (*standing.encoders, *standing.untrained):
        fact = facts.get(arm.encoder, {})
        if fact.get(varied) is None or not fact.get("id"):
            continue
        key = json.dumps([[name, fact.get(name)] for name in _SAME if name != varied], default=str)
        value = int(fact[varied]) + (varied == "layer")
        groups.setdefault(key, {}).setdefault(value, arm)
    found: Series = {}
    for key, arms in groups.items():
        if len(arms) < 2:
            continue
        same = dict(json.loads(key))
        name = str(same["id"])
        if name in found:  # the same encoder twice, at two picture sizes for one
            name = ", ".join([name, *(f"{k} {v}" for k, v in same.items() if k != "id" and v is not None)])
        found[name] = dict(sorted(arms.items()))
    return found


def series_table(standing: Standing, found: Series, title: str) -> Table:
    """A row a value: its accuracy, and the paired difference from the value before it."""
    rows = []
    for name, arms in found.items():
        before: Arm | None = None
        for value, arm in arms.items():
            gap = "–" if before is None else _step(standing, before, arm)
            rows.append((name, str(value), score_cell(standing.estimates[arm]), gap))
            before = arm
    return Table(("encoder", title, "accuracy % [95 %]", "from the one before"), tuple(rows))


def _step(standing: Standing, before: Arm, arm: Arm) -> str:
    """The later minus the earlier one, from the pair that the standing has, whichever way round."""
    if (arm, before) in standing.pairs:
        return gap_cell(standing.pairs[arm, before])
    gap = standing.pairs.get((before, arm))
    if gap is None:
        return "–"
    low = None if gap.high is None else -gap.high
    high = None if gap.low is None else -gap.low
    return gap_cell(replace(gap, difference=-gap.difference, low=low, high=high))


def plot_series(standing: Standing, found: Series, title: str, path: Path) -> None:
    """A line an encoder with intervals, floors as level lines."""
    from sutura.compare.plots import COLOURS, STYLES, new_axes, save_figure

    figure, axes = new_axes(6.4, 4.0)
    for number, (name, arms) in enumerate(found.items()):
        colour = COLOURS[number % len(COLOURS)]
        estimates = [standing.estimates[arm] for arm in arms.values()]
        heights = [100 * estimate.mean for estimate in estimates]
        axes.plot(list(arms), heights, STYLES[number % len(STYLES)], marker="o", color=colour, label=name)
        for value, estimate in zip(arms, estimates, strict=True):
            if estimate.low is not None and estimate.high is not None:
                axes.plot([value] * 2, [100 * estimate.low, 100 * estimate.high], color=colour, alpha=0.5)
    for arm in standing.floors:
        axes.axhline(100 * standing.estimates[arm].mean, color="#999999", linestyle="--", linewidth=1)
        axes.annotate(
            arm.label,
            (0, 100 * standing.estimates[arm].mean),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize=8,
        )
    axes.set_xticks(sorted({value for arms in found.values() for value in arms}))
    axes.set_xlabel(title)
    axes.set_ylabel(f"{standing.scores.metric} accuracy in %, with 95 % interval")
    axes.set_title(standing.scores.benchmark)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    save_figure(figure, path)
