"""What other computations add to the page: ranks, learning curves, Pareto, leakage, health of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from markupsafe import Markup

from sutura.compare.aggregate import aggregate_table, aggregate_words
from sutura.compare.answer_tables import HEALTH_NOTE, YES_NO_NOTE
from sutura.compare.cost import cost_table, pareto_table, varied_costs
from sutura.compare.curves import Curves, curves_table, levels_of, speed_table
from sutura.compare.plots import Curve
from sutura.compare.ranking import RANKING_WORDS
from sutura.compare.report_cost import also_read
from sutura.compare.report_page.curves import accuracy_figure
from sutura.compare.report_page.markup import bullets, folded, join, paragraph, table, table_block, tag
from sutura.compare.report_page.view import View
from sutura.compare.without import without_sentence, without_table


def with_others(view: View) -> View:
    """The view with all that is computed elsewhere, before whatever extras it has already."""
    made: Mapping[str, Iterator[Markup]] = {
        "ranking": _ranks(view),
        "curves": _learning(view),
        "cost": _costs(view),
        "leakage": _without(view),
        "metrics": _answers(view),
    }
    extras: dict[str, Sequence[Markup]] = dict(view.extras)
    for name, blocks in made.items():
        extras[name] = [*blocks, *extras.get(name, ())]
    return replace(view, extras=extras)


def _ranks(view: View) -> Iterator[Markup]:
    shown = view.shown
    if shown.ranks:
        yield tag("h3", "Ranks")
        yield paragraph(_plain(RANKING_WORDS), class_="hint")
    for name, ranks in shown.ranks.items():
        yield table(ranks, caption=f"Ranks on {name}")
    if shown.together:
        words = _plain(aggregate_words(shown.together))
        yield table_block("Over all benchmarks", aggregate_table(shown.together), words)


def _learning(view: View) -> Iterator[Markup]:
    found = view.shown.learning
    if found.of:
        levels = levels_of(found, (view.config.get("curve") or {}).get("levels") or ())
        behind = [
            table(curves_table(found, levels), caption="Area under the curve, and answers to reach a level")
        ]
        if len(found.encoders) > 1:
            behind.append(table(speed_table(found, levels), caption="Encoder against encoder"))
        first = next(iter(found.of.values()))[0]
        rates = view.notes.get("rates") or {}
        text = f"Exact accuracy on {len(first.items)} questions of the selection split, {also_read(rates)}; "
        text += "mean over training seeds, band from the lowest to the highest."
        order = [arm.label for arm in (*view.standings[0].encoders, *view.standings[0].untrained)]
        yield accuracy_figure(_spread(found), order, text, behind)
    if found.notes:
        yield bullets(found.notes)


def _spread(found: Curves) -> list[Curve]:
    """Mean, lowest and highest over seeds, in percent."""
    curves = []
    for arm, members in found.of.items():
        grid = members[0].answers
        heights = np.stack([100 * np.interp(grid, one.answers, one.accuracy) for one in members])
        curves.append(Curve(arm.label, grid, heights.mean(0), heights.min(0), heights.max(0), len(members)))
    return curves


def _costs(view: View) -> Iterator[Markup]:
    if not view.cells:
        return
    note = "Measured in the cells with whatever else ran on the machine; GFLOP are counted."
    yield table_block("What an encoder costs", cost_table(view.cells), note)
    for standing in view.standings:
        costs = varied_costs(view.cells, [arm.encoder for arm in standing.encoders])
        if costs:
            words = "Undominated: each cheaper encoder is shown to be less accurate, and none that costs no more is "
            words += "shown to be more accurate; open: the data do not tell."
            yield table_block(
                f"Worth its cost, {standing.scores.benchmark}", pareto_table(standing, costs), words
            )


def _without(view: View) -> Iterator[Markup]:
    for pair in view.shown.without:
        yield table_block(
            f"{pair.benchmark} without what was trained on",
            without_table(pair),
            _plain(without_sentence(pair)),
        )
    for name, sheet in dict(view.notes.get("sheets") or {}).items():
        yield paragraph(f"Pairs of {name} to be looked at: {sheet}, beside this page.", class_="hint")


def _answers(view: View) -> Iterator[Markup]:
    health = [
        folded(name, table(found, caption=f"Suspect answers on {name}"))
        for name, found in view.shown.health.items()
    ]
    if health:
        yield join(
            [tag("h3", "Health of the answers"), paragraph(_plain(HEALTH_NOTE), class_="hint"), *health]
        )
    for name, found in view.shown.yes_no.items():
        yield table_block(f"Yes and no on {name}", found, _plain(YES_NO_NOTE))


def _plain(text: str) -> str:
    """Words of report.md without their emphasis."""
    return text.replace("**", "").replace("*", "")
