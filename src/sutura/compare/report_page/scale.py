"""Scales, ticks and small drawings. A drawing is as wide as its place: across in percent, down in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sutura.compare.report_page.markup import tag

#: Marks that tell series apart beside their colours: radius 5 around the origin.
SHAPES = (
    "M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-6L5.5 4H-5.5Z",
    "M0-6.2L6.2 0L0 6.2L-6.2 0Z",
    "M0 6L5.5-4H-5.5Z",
    "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z",
    "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z",
)
DASHES = (None, "7 4", "2 3", "9 3 2 3")
COLOURS = 7


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places between 0 and 1.

    Args:
        low, high: the ends; different.
        log: whether equal factors lie equally far apart.
    """

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies; outside ones at the nearer end."""
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def percent(self, value: float) -> str:
        """Where a value lies, as drawings take it."""
        return f"{number(100 * self.at(value))}%"

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the ends."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if self.high <= 1000 * self.low else (1,)
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            step = _round_up((self.high - self.low) / max(about, 1))
            count = math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9)
            start = math.ceil(self.low / step - 1e-9)
            values = [(start + k) * step for k in range(count + 1)]
        edge = 1e-9 * (abs(self.high) + abs(self.low))
        return [value + 0.0 for value in values if self.low - edge <= value <= self.high + edge]


def around(values: Sequence[float], *, least: float, room: float = 0.06) -> Scale:
    """A linear scale with room on both sides of the values.

    Args:
        values: at least one.
        least: smallest width.
        room: share of the width on each side.
    """
    low, high = min(values), max(values)
    spread = max(high - low, least)
    middle = (low + high) / 2
    return Scale(middle - spread * (0.5 + room), middle + spread * (0.5 + room))


def _round_up(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))


def number(value: float) -> str:
    """At most two decimals and no zeros behind them."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def short(value: float) -> str:
    """A tick's label: 1200000 as 1.2 M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def mark(x: str, y: float, index: int, *, hollow: bool = False) -> Markup:
    """The mark of a series at a place."""
    form = SHAPES[(index + index // COLOURS) % len(SHAPES)]  # colours come again with another form
    shape = tag("path", d=form, class_=f"mark s{index % COLOURS}{' hollow' * hollow}")
    return tag("svg", shape, x=x, y=number(y), class_="at")


def key(index: int, label: str, *, line: bool = False, note: str = "", hollow: bool = False) -> Markup:
    """A series in a legend: its mark (and line) with its name."""
    parts = []
    if line:
        parts.append(
            tag("line", x1="0", x2="26", y1="8", y2="8", class_=f"curve s{index % COLOURS}", **dash(index))
        )
    else:
        parts.append(mark("9", 8, index, hollow=hollow))
    drawing = tag("svg", *parts, width="28" if line else "18", height="16", aria_hidden="true")
    return tag("li", drawing, tag("span", label, " ", tag("small", note) if note else None))


def dash(index: int) -> dict[str, object]:
    """How a series' line is broken, so that it is known without its colour."""
    broken = DASHES[(index + 2 * (index // COLOURS)) % len(DASHES)]
    return {"stroke_dasharray": broken} if broken else {}


def drawing(*parts: object, height: float, label: str, class_: str = "") -> Markup:
    """A drawing as wide as its place, `height` pixels high, with its text alternative."""
    return tag(
        "svg",
        tag("title", label),
        *parts,
        class_=f"fill {class_}".strip(),
        height=number(height),
        role="img",
        aria_label=label,
    )


def axis(scale: Scale, *, form: str = "{}", about: int = 5) -> Markup:
    """Tick labels of a scale that runs across, for the row under (or over) drawings."""
    labels = []
    for value in scale.ticks(about):
        place = scale.at(value)
        anchor = "start" if place < 0.02 else "end" if place > 0.98 else "middle"
        text = form.format(short(value))
        labels.append(tag("text", text, x=scale.percent(value), y="12", text_anchor=anchor))
    return tag("svg", *labels, class_="fill axis", height="16", aria_hidden="true")


def grid(scale: Scale, height: float, about: int = 5) -> list[Markup]:
    """Thin lines at the ticks of a scale that runs across."""
    return [
        tag("line", x1=scale.percent(v), x2=scale.percent(v), y1="0", y2=number(height), class_="grid")
        for v in scale.ticks(about)
    ]
