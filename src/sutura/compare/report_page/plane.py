"""A plane with two axes whose lines stretch with the page and whose letters and marks do not."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from sutura.compare.report_page.markup import tag
from sutura.compare.report_page.scale import Scale, axis, drawing, number, short

#: Width that lines are drawn in before they are stretched.
WIDE = 1000.0


def plane(
    parts: Sequence[Markup], x: Scale, y: Scale, *, height: float, label: str, across: str, up: str
) -> Markup:
    """Axes around drawn parts.

    Args:
        parts: marks (placed in percent and pixels) and `stretched` lines.
        x, y: the scales.
        height: in pixels.
        label: text alternative.
        across, up: names of the axes.
    """
    lines = []
    for value in y.ticks(5):
        level = number(down(y, value, height))
        lines.append(tag("line", x1="0", x2="100%", y1=level, y2=level, class_="grid"))
    for value in x.ticks(5):
        place = x.percent(value)
        lines.append(tag("line", x1=place, x2=place, y1="0", y2=number(height), class_="grid"))
    labels = [
        tag("text", short(value), x="100%", y=number(down(y, value, height) + 4), text_anchor="end")
        for value in y.ticks(5)
    ]
    side = tag("svg", *labels, class_="side", width="44", height=number(height), aria_hidden="true")
    return tag(
        "div",
        tag("div", up, class_="up"),
        side,
        drawing(*lines, *parts, height=height, label=label),
        axis(x),
        tag("div", across, class_="across"),
        class_="plane",
    )


def down(y: Scale, value: float, height: float) -> float:
    """Pixels from the top."""
    return (1 - y.at(value)) * height


def stretched(parts: Sequence[Markup], height: float) -> Markup:
    """Lines and areas in WIDE × height, stretched to the plane's width."""
    return tag(
        "svg",
        *parts,
        width="100%",
        height=number(height),
        viewBox=f"0 0 {number(WIDE)} {number(height)}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def path(x: Scale, y: Scale, xs: Sequence[float], ys: Sequence[float], height: float) -> str:
    """Points of a line in WIDE × height."""
    places = (
        f"{WIDE * x.at(a):.0f},{down(y, b, height):.1f}".removesuffix(".0")
        for a, b in zip(xs, ys, strict=True)
    )
    return " ".join(places)
