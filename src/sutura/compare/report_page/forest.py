"""Paired differences as a forest: a line an interval, a mark its middle, zero in between."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from sutura.compare.report_page.bars import whisker
from sutura.compare.report_page.markup import folded, join, paragraph, tag
from sutura.compare.report_page.scale import Scale, axis, drawing, grid, number
from sutura.compare.standing import Standing
from sutura.compare.statistics import Difference
from sutura.compare.tables import gap_cell

HEIGHT = 26.0
#: More rows than this are folded away at first.
OPEN = 40


def forest(standing: Standing) -> Markup:
    """All families of paired differences of a benchmark; nothing where there is none."""
    families = (
        ("Encoder against encoder", "Right is better for the first named.", list(standing.pairs.values())),
        (
            "Encoder against its nearest floor",
            "The control whose lower bound is lowest.",
            list(standing.above_floor.values()),
        ),
        (
            "Right picture against a wrong one",
            "The same stitch, asked with another picture.",
            list(standing.right_picture.values()),
        ),
        (
            "Pre-trained against random weights",
            "The best encoder with random weights.",
            list(standing.above_untrained.values()),
        ),
    )
    blocks = [
        folded(title, paragraph(note, class_="hint"), forest_rows(gaps), open_=len(gaps) <= OPEN)
        for title, note, gaps in families
        if gaps
    ]
    return join(blocks)


def forest_rows(gaps: Sequence[Difference]) -> Markup:
    """A row a difference, in points on one scale."""
    scale = _scale(gaps)
    rows = [_row(gap, scale) for gap in gaps]
    ends = tag("li", tag("span", class_="who"), axis(scale, form="{}"), tag("span", "points", class_="num"))
    return tag("ul", *rows, ends, class_="rows forest")


def _scale(gaps: Sequence[Difference]) -> Scale:
    values = [0.0]
    for gap in gaps:
        values += [100 * value for value in (gap.difference, gap.low, gap.high) if value is not None]
    room = max(0.04 * (max(values) - min(values)), 0.5)
    return Scale(min(values) - room, max(values) + room)


def _row(gap: Difference, scale: Scale) -> Markup:
    middle = HEIGHT / 2
    zero = scale.percent(0.0)
    parts = [*grid(scale, HEIGHT), tag("line", x1=zero, x2=zero, y1="0", y2=number(HEIGHT), class_="zero")]
    if gap.low is not None and gap.high is not None:
        parts += whisker(scale, 100 * gap.low, 100 * gap.high, middle)
    shape = tag("path", d="M-5-5H5V5H-5Z", class_="gap" if gap.shown else "gap hollow")
    parts.append(tag("svg", shape, x=scale.percent(100 * gap.difference), y=number(middle), class_="at"))
    same = gap.a.encoder == gap.b.encoder
    name = gap.a.label if same else f"{gap.a.label} − {gap.b.label}"
    words = f"{name}: {gap_cell(gap).removesuffix(' *')} points, {'shown' if gap.shown else 'not shown'}"
    p = gap.p if gap.p_adjusted is None else gap.p_adjusted
    small = None if p is None else tag("small", "p < 0.001" if p < 0.001 else f"p = {p:.3f}")
    return tag(
        "li",
        tag("span", name, class_="who"),
        drawing(*parts, height=HEIGHT, label=words),
        tag("span", gap_cell(gap), " ", small, class_="num"),
    )
