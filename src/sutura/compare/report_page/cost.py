"""Accuracy against what it costs: a small plane for each cost that differs between encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from sutura.compare.report_page.markup import join, paragraph, tag
from sutura.compare.report_page.plane import down, plane
from sutura.compare.report_page.scale import Scale, around, key, mark, number, short
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.tables import display

HEIGHT = 230.0
#: Costs nearer to each other than this share are alike; a factor above WIDE_APART is drawn with a log scale.
ALIKE, WIDE_APART = 0.05, 8.0
#: Pixels of the narrowest plane, and of a letter, to see which names would lie on each other.
NARROW, LETTER = 200.0, 7.0
#: Letters that fit between two labels one above the other, in pixels.
APART = 14.0

Read = Callable[[Mapping[str, Any]], float | None]


@dataclass(frozen=True, slots=True)
class Cost:
    """One thing that differs in price.

    Args:
        title: as the axis calls it.
        read: from what a cell left.
    """

    title: str
    read: Read


def _at(*path: str) -> Read:
    def read(cell: Mapping[str, Any]) -> float | None:
        value: Any = cell
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return read


#: What the cells say of themselves today; another cost is another row.
COSTS = (
    Cost("encoder parameters", _at("encoder_facts", "params")),
    Cost("visual tokens given to the language model", _at("encoder_facts", "num_tokens")),
    Cost("seconds of training", _at("seconds", "train")),
    Cost("answers trained on a second", _at("answers_per_second")),
    Cost("answers evaluated a second", _at("evaluated_per_second")),
    Cost("peak memory in MB", _at("peak_memory_mb")),
)


def cost_figures(standing: Standing, cells: Sequence[Mapping[str, Any]]) -> Markup:
    """Planes of accuracy against every cost that is known and differs; a sentence for those alike."""
    arms = (*standing.encoders, *standing.untrained)
    planes, alike = [], []
    for cost in COSTS:
        prices = {arm: price for arm in arms if (price := _price(cells, arm, cost)) is not None}
        if len(prices) < 2:
            continue
        if max(prices.values()) <= (1 + ALIKE) * min(prices.values()):
            alike.append(f"{cost.title}: {short(fmean(prices.values()))}")
            continue
        planes.append(_plane(standing, cost, prices))
    keys = (key(i, display(standing, a), hollow=a in standing.untrained) for i, a in enumerate(arms))
    legend = tag("ul", *keys, class_="legend")
    parts: list[Markup] = [legend, tag("div", *planes, class_="planes")] if planes else []
    if alike:
        parts.append(paragraph(f"Alike for all of them, within 5 %: {'; '.join(alike)}.", class_="hint"))
    return join(parts)


def _price(cells: Sequence[Mapping[str, Any]], arm: Arm, cost: Cost) -> float | None:
    found = [
        value
        for cell in cells
        if cell.get("encoder") == arm.encoder and cell.get("condition") == "picture"
        if (value := cost.read(cell)) is not None
    ]
    return fmean(found) if found else None


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
