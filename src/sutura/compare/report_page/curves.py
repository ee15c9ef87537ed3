"""Losses and accuracy while training, as curves: mean over seeds, band from the lowest seed to the highest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from sutura.compare.plots import SMOOTHED, Curve, Curves
from sutura.compare.report_page.markup import figure, join, paragraph, table, tag
from sutura.compare.report_page.plane import path, plane, stretched
from sutura.compare.report_page.scale import COLOURS, Scale, dash, key, number
from sutura.compare.tables import Table

HEIGHT = 300.0
#: Points a curve is drawn with, and steps shown in the table behind.
POINTS, ROWS = 100, 6


def loss_figure(read: Curves, order: Sequence[str] = ()) -> Markup:
    """The curves, or a sentence where no cell left its losses.

    Args:
        read: the curves.
        order: names of stitches that come first, in this order.
    """
    if not read.curves:
        return paragraph("No cell left a metrics file, so there is no learning curve.", class_="hint")
    curves = _sorted(read.curves, order)
    top = max(float(np.quantile(curve.high, 0.98)) for curve in curves)
    low = min(float(curve.low.min()) for curve in curves)
    y = Scale(max(low - 0.05 * (top - low), 0.0), top if top > low else low + 1)
    text = f"Smoothed over {SMOOTHED:.0%} of the run; mean over training seeds, band from the lowest to the highest."
    words = "Training loss against optimizer step: " + "; ".join(
        f"{curve.label} from {curve.mean[0]:.2f} to {curve.mean[-1]:.2f}" for curve in curves
    )
    ends = [f"ends at {curve.mean[-1]:.3f}" for curve in curves]
    behind = table(_numbers(curves), caption="Smoothed training loss at some steps")
    drawn = _picture(curves, y, ends, label=words, across="optimizer step", up="loss")
    shown = figure(drawn, title="Training loss.", text=text, behind=[behind])
    if read.missing:
        gone = f"Without a metrics file, so not drawn: {', '.join(read.missing)}."
        return join([shown, paragraph(gone, class_="hint")])
    return shown


def accuracy_figure(
    read: Sequence[Curve], order: Sequence[str], text: str, behind: Sequence[Markup]
) -> Markup:
    """Accuracy in percent against training answers seen.

    Args:
        read: the curves; their `steps` are answers.
        order: as for `loss_figure`.
        text: says what was measured.
        behind: tables with the numbers.
    """
    curves = _sorted(read, order)
    low = min(float(curve.low.min()) for curve in curves)
    top = max(float(curve.high.max()) for curve in curves)
    y = Scale(max(low - 3, 0.0), min(top + 3, 100.0))
    words = "Accuracy against training answers seen: " + "; ".join(
        f"{curve.label} from {curve.mean[0]:.1f} to {curve.mean[-1]:.1f} %" for curve in curves
    )
    ends = [f"ends at {curve.mean[-1]:.1f} %" for curve in curves]
    drawn = _picture(curves, y, ends, label=words, across="training answers seen", up="%")
    return figure(drawn, title="Accuracy while training.", text=text, behind=behind)


def _sorted(curves: Sequence[Curve], order: Sequence[str]) -> list[Curve]:
    places = {name: place for place, name in enumerate(order)}
    return sorted(curves, key=lambda curve: (places.get(curve.label, len(places)), curve.label))


def _picture(
    curves: Sequence[Curve], y: Scale, ends: Sequence[str], *, label: str, across: str, up: str
) -> Markup:
    """Curves in a plane with their legend."""
    x = Scale(min(float(c.steps[0]) for c in curves), max(float(c.steps[-1]) for c in curves))
    lines: list[Markup] = []
    for index, curve in enumerate(curves):
        lines += _drawn(index, curve, x, y)
    keys = (
        key(index, curve.label, line=True, note=f"{end}, {curve.seeds} seed{'s' * (curve.seeds > 1)}")
        for index, (curve, end) in enumerate(zip(curves, ends, strict=True))
    )
    picture = plane([stretched(lines, HEIGHT)], x, y, height=HEIGHT, label=label, across=across, up=up)
    return join([tag("ul", *keys, class_="legend"), picture])


def _drawn(index: int, curve: Curve, x: Scale, y: Scale) -> list[Markup]:
    take = np.unique(np.linspace(0, len(curve.steps) - 1, POINTS).round().astype(int))
    steps, series = curve.steps[take].tolist(), f"s{index % COLOURS}"
    parts = []
    if curve.seeds > 1:
        over = path(x, y, steps, curve.high[take].tolist(), HEIGHT)
        under = path(x, y, steps[::-1], curve.low[take][::-1].tolist(), HEIGHT)
        parts.append(tag("polygon", points=f"{over} {under}", class_=f"band {series}"))
    middle = path(x, y, steps, curve.mean[take].tolist(), HEIGHT)
    parts.append(tag("polyline", points=middle, class_=f"curve {series}", **dash(index)))
    return parts


def _numbers(curves: Sequence[Curve]) -> Table:
    rows = []
    for curve in curves:
        take = np.linspace(0, len(curve.steps) - 1, ROWS).round().astype(int)
        rows.append(
            (curve.label, *(f"{curve.mean[i]:.3f} at {number(round(float(curve.steps[i])))}" for i in take))
        )
    return Table(("stitch", "first", *("",) * (ROWS - 2), "last"), tuple(rows))
