"""Accuracy as bars: the interval on each, and on each the marks of what a score is worth."""

from __future__ import annotations

from markupsafe import Markup

from sutura.compare.report_page.markup import join, tag
from sutura.compare.report_page.scale import Scale, axis, drawing, grid, number
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.statistics import Estimate
from sutura.compare.tables import display, gap_cell
from sutura.compare.verdict import percent

HEIGHT = 34.0
_WHOLE = Scale(0.0, 1.0)
#: Condition → (class of its mark, how a legend calls it).
MARKS = {
    "blind": ("blind", "blind: trained and asked without a picture"),
    "majority": ("majority", "most frequent answer of each question type"),
    "majority-overall": ("majority overall", "most frequent answer of all"),
    "text-ceiling": ("ceiling", "ceiling: reads a description in the picture's place"),
    "wrong-picture": ("wrong", "the same encoder, shown a wrong picture"),
}


def accuracy_bars(standing: Standing) -> Markup:
    """A bar an encoder, best first: 0 to 100 %, interval, floors, ceiling, and the wrong picture's score."""
    arms = (*standing.encoders, *standing.untrained)
    rows = [_row(standing, arm) for arm in arms]
    ends = tag(
        "li", tag("span", class_="who"), axis(Scale(0, 100), form="{} %", about=4), tag("span", class_="num")
    )
    return join([_legend(standing), tag("ul", *rows, ends, class_="rows bars")])


def marks_of(standing: Standing) -> tuple[Arm, ...]:
    """Arms that are marks on every bar."""
    return (*standing.floors, *([standing.ceiling] if standing.ceiling else []))


def _row(standing: Standing, arm: Arm) -> Markup:
    estimate, gap = standing.estimates[arm], standing.above_floor.get(arm)
    wrong = standing.estimates.get(Arm(arm.encoder, "wrong-picture"))
    who = display(standing, arm)
    words = f"{who}: {spoken(estimate)}"
    if gap is not None:
        words += f"; above the floor by {gap_cell(gap).removesuffix(' *')} points"
    if wrong is not None:
        words += f"; {percent(wrong.mean)} with a wrong picture"
    middle = HEIGHT / 2
    trained = "" if arm in standing.encoders else " untrained"
    parts: list[Markup] = [
        *grid(_WHOLE, HEIGHT, 4),
        tag("rect", x="0", y="9", width="100%", height="16", class_="track"),
        tag("rect", x="0", y="9", width=_WHOLE.percent(estimate.mean), height="16", class_="bar" + trained),
    ]
    for other in marks_of(standing):
        parts.append(mark_of(other.condition, _WHOLE.percent(standing.estimates[other].mean)))
    if wrong is not None:
        parts.append(mark_of("wrong-picture", _WHOLE.percent(wrong.mean)))
    if estimate.low is not None and estimate.high is not None:
        parts += whisker(_WHOLE, estimate.low, estimate.high, middle)
    note = tag("small", f"{gap_cell(gap)} above floor") if gap is not None else None
    return tag(
        "li",
        tag("span", tag("b", who), class_="who"),
        drawing(*parts, height=HEIGHT, label=words),
        tag("span", tag("b", percent(estimate.mean)), " ", bracket(estimate), note, class_="num"),
    )


def spoken(estimate: Estimate) -> str:
    """An accuracy as a screen reader says it."""
    if estimate.low is None or estimate.high is None:
        return f"{percent(estimate.mean)}, no interval"
    return f"{percent(estimate.mean)}, 95 % interval {100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def bracket(estimate: Estimate) -> Markup:
    """[63.1, 68.8]"""
    if estimate.low is None or estimate.high is None:
        return tag("span", "[no interval]", class_="ci")
    return tag("span", f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]", class_="ci")


def whisker(scale: Scale, low: float, high: float, y: float) -> list[Markup]:
    """An interval: a line with ends."""
    left, right, at = scale.percent(low), scale.percent(high), number(y)
    ends = [
        tag("line", x1=x, x2=x, y1=number(y - 5), y2=number(y + 5), class_="whisker") for x in (left, right)
    ]
    return [tag("line", x1=left, x2=right, y1=at, y2=at, class_="whisker"), *ends]


def mark_of(condition: str, x: str) -> Markup:
    """What a floor, a ceiling or the wrong picture looks like on a bar; each has a form of its own."""
    kind = MARKS[condition][0]
    if kind == "wrong":
        shape = [tag("path", d="M0 11.5L5.5 17L0 22.5L-5.5 17Z")]
    elif kind == "ceiling":
        shape = [
            tag("line", x1="0", x2="0", y1="2", y2=number(HEIGHT - 2)),
            tag("path", d="M-5 1H5L0 7Z"),
        ]
    elif kind == "blind":
        shape = [
            tag("line", x1="0", x2="0", y1="2", y2=number(HEIGHT - 2)),
            tag("path", d=f"M-5 {number(HEIGHT - 1)}H5L0 {number(HEIGHT - 7)}Z"),
        ]
    else:
        shape = [tag("line", x1="0", x2="0", y1="4", y2=number(HEIGHT - 4))]
    return tag("svg", *shape, x=x, class_=f"at floor {kind}")


def _legend(standing: Standing) -> Markup:
    entries = []
    for arm in marks_of(standing):
        name = MARKS[arm.condition][1] if arm.encoder == "none" else arm.label
        entries.append(_entry(arm.condition, name, percent(standing.estimates[arm].mean)))
    if any(arm.condition == "wrong-picture" for arm in standing.estimates):
        entries.append(_entry("wrong-picture", MARKS["wrong-picture"][1], ""))
    return tag("ul", *entries, class_="legend") if entries else Markup("")


def _entry(condition: str, name: str, value: str) -> Markup:
    swatch = tag("svg", mark_of(condition, "9"), width="18", height="34", aria_hidden="true", class_="swatch")
    return tag("li", swatch, tag("span", name, " ", tag("small", value) if value else None))
