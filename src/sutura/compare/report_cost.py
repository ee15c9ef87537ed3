"""Parts of the report: learning curves, accuracy against a budget of tokens or blocks, and what encoders cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sutura.compare.budget import VARIED, plot_series, series, series_table
from sutura.compare.cost import COSTS, cost_table, pareto_table, plot_pareto, varied_costs
from sutura.compare.curves import Curves, curves_table, levels_of, plot_curves, speed_table
from sutura.compare.standing import Standing
from sutura.compare.tables import Table

Save = Callable[[str, Table], str]
"""Keeps a table under a name and gives its Markdown."""


def curve_lines(
    directory: Path,
    save: Save,
    curves: Curves,
    config: Mapping[str, Any],
    rates: Mapping[str, Any],
) -> list[str]:
    """Accuracy against answers seen, where the cells measured it."""
    if not curves.of:
        return [f"{note}\n" for note in curves.notes]
    levels = levels_of(curves, (config.get("curve") or {}).get("levels") or ())
    items = len(next(iter(curves.of.values()))[0].items)
    plot_curves(curves, directory / "plots" / "curves.png", levels)
    lines = [
        "## Learning curves",
        "",
        f"Exact accuracy on {items} questions of the selection split, {also_read(rates)}, against training "
        "answers seen. The area is the mean height of the curve, in percent; a level counts as reached where the curve "
        "is at or above it at two points one after the other (the last one alone). Below 1, a ratio says that the "
        "first of a pair needs fewer answers.",
        "",
        *(f"- {note}" for note in curves.notes),
        save("curves", curves_table(curves, levels)),
        "",
        "![Accuracy against training answers seen](plots/curves.png)",
        "",
    ]
    if len(curves.encoders) > 1:
        lines += [save("curves-pairs", speed_table(curves, levels)), ""]
    return lines


def also_read(rates: Mapping[str, Any]) -> str:
    """What else reads the questions of a curve."""
    if rates:
        return "which also chose the learning rates, so that ends and areas are a little high"
    return "which no other score reads"


def pareto_lines(
    directory: Path, save: Save, cells: Sequence[Mapping[str, Any]], standings: Sequence[Standing]
) -> list[str]:
    """What the encoders cost, and which of them are worth it."""
    if not cells:
        return []
    lines = [
        "## Cost",
        "",
        "Measured in the cells with whatever else ran on the machine: one picture alone through the encoder, and one "
        "question alone from the patches to the decoded answer. GFLOP are counted, a product and its sum as two.",
        "",
        save("cost", cost_table(cells)),
        "",
    ]
    for standing in standings:
        costs = varied_costs(cells, [arm.encoder for arm in standing.encoders])
        if not costs:
            continue
        name, slug = standing.scores.benchmark, slug_of(standing.scores.benchmark)
        kind = next(iter(costs))
        plot_pareto(standing, costs[kind], kind, directory / "plots" / f"{slug}-cost.png")
        lines += [
            f"Accuracy on {name} against cost. *Undominated*: each cheaper encoder is shown to be less accurate, and "
            "none that costs no more is shown to be more accurate; *open*: the data do not tell.",
            "",
            save(f"{slug}-cost", pareto_table(standing, costs)),
            "",
            f"![Accuracy on {name} against {COSTS[kind].title}](plots/{slug}-cost.png)",
            "",
        ]
    return lines


def budget_lines(
    directory: Path, save: Save, standing: Standing, facts: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Rows that are one encoder with different numbers of tokens, or different blocks."""
    name, slug = standing.scores.benchmark, slug_of(standing.scores.benchmark)
    lines = []
    for varied, title in VARIED.items():
        if found := series(standing, facts, varied):
            file = f"{slug}-{varied.replace('_', '-')}"
            plot_series(standing, found, title, directory / "plots" / f"{file}.png")
            lines += [f"### Accuracy against {title}", ""]
            lines += [save(file, series_table(standing, found, title)), ""]
            lines += [f"![Accuracy on {name} against {title}](plots/{file}.png)", ""]
    return lines


def slug_of(benchmark: str) -> str:
    """A benchmark's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", benchmark.lower()).strip("-")
