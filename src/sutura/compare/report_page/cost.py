"""Accuracy against what it costs: a small plane for each cost that differs between encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from markupsafe import Markup

from sutura.compare.cost import CLOSE, CLOSE_TIMES, COSTS, Cost, costs_of
from sutura.compare.report_page.markup import join, paragraph, tag
from sutura.compare.report_page.plane import down, plane
from sutura.compare.report_page.scale import Scale, around, key, mark, number, short
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.tables import display

HEIGHT = 230.0
#: A factor above this is drawn with a log scale.
WIDE_APART = 8.0
#: Pixels of the narrowest plane, and of a letter, to see which names would lie on each other.
NARROW, LETTER = 200.0, 7.0
#: Letters that fit between two labels one above the other, in pixels.
APART = 14.0


def cost_figures(standing: Standing, cells: Sequence[Mapping[str, Any]]) -> Markup:
    """Planes of accuracy against every cost that is known and differs; a sentence for those alike."""
    arms = (*standing.encoders, *standing.untrained)
    planes, alike = [], []
    for kind, cost in COSTS.items():
        known = costs_of(cells, kind)
        prices = {arm: known[arm.encoder] for arm in arms if arm.encoder in known}
        if len(prices) < 2:
            continue
        if min(prices.values()) >= (1 - cost.close) * max(prices.values()):
            alike.append(f"{cost.title} {cost.show(fmean(prices.values()))}")
            continue
        planes.append(_plane(standing, cost, prices))
    keys = (key(i, display(standing, a), hollow=a in standing.untrained) for i, a in enumerate(arms))
    legend = tag("ul", *keys, class_="legend")
    parts: list[Markup] = [legend, tag("div", *planes, class_="planes")] if planes else []
    if alike:
        shares = f"within {100 * CLOSE:.0f} %, what was timed within {100 * CLOSE_TIMES:.0f} %"
        parts.append(paragraph(f"Alike for all of them, {shares}: {'; '.join(alike)}.", class_="hint"))
    return join(parts)


def _plane(standing: Standing, cost: Cost, prices: Mapping[Arm, float]) -> Markup:
    low, high = min(prices.values()), max(prices.values())
    if low > 0 and high > WIDE_APART * low:
        x = Scale(low / 1.5, high * 1.5, log=True)
    else:
        x = around(list(prices.values()), least=0.1 * high, room=0.12)
    estimates = standing.estimates
    ends = [100 * e for arm in prices for e in _ends(standing, arm)]
    y = around(ends, least=4.0, room=0.08)
    order = {arm: i for i, arm in enumerate((*standing.encoders, *standing.untrained))}
    bars, marks = [], []
    for arm, price in prices.items():
        place = x.percent(price)
        bottom, top = (down(y, 100 * value, HEIGHT) for value in _ends(standing, arm))
        bars.append(tag("line", x1=place, x2=place, y1=number(top), y2=number(bottom), class_="whisker thin"))
        hollow = arm in standing.untrained
        marks.append(mark(place, down(y, 100 * estimates[arm].mean, HEIGHT), order[arm], hollow=hollow))
    words = f"Accuracy against {cost.title}: " + "; ".join(
        f"{arm.label} {100 * estimates[arm].mean:.1f} % at {short(price)}" for arm, price in prices.items()
    )
    names = _names(standing, prices, x, y)
    return plane(
        [*bars, *marks, *names], x, y, height=HEIGHT, label=words, across=cost.title, up="accuracy %"
    )


def _ends(standing: Standing, arm: Arm) -> tuple[float, float]:
    found = standing.estimates[arm]
    return (
        found.mean if found.low is None else found.low,
        found.mean if found.high is None else found.high,
    )


def _names(standing: Standing, prices: Mapping[Arm, float], x: Scale, y: Scale) -> list[Markup]:
    """Names beside the marks; one that would lie on a mark or on another name is left to the legend."""
    places = {
        arm: (NARROW * x.at(price), down(y, 100 * standing.estimates[arm].mean, HEIGHT))
        for arm, price in prices.items()
    }
    taken = [(across - 7, across + 7, level) for across, level in places.values()]
    texts = []
    for arm, (across, level) in sorted(places.items(), key=lambda found: found[1][1]):
        side = "end" if x.at(prices[arm]) > 0.6 else "start"
        reach = 9 + LETTER * len(arm.label)
        box = (across - reach, across - 9) if side == "end" else (across + 9, across + reach)
        if any(box[0] < right and left < box[1] and abs(level - at) < APART for left, right, at in taken):
            continue
        taken.append((*box, level))
        shift = "-9" if side == "end" else "9"
        text = tag("text", arm.label, x="0", dx=shift, y="4", text_anchor=side)
        texts.append(tag("svg", text, x=x.percent(prices[arm]), y=number(level), class_="at name"))
    return texts
