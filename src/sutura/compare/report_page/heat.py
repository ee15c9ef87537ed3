"""Accuracy by question family as a table of shades with the numbers in it."""

from __future__ import annotations

from markupsafe import Markup

from sutura.compare.report_page.bars import spoken
from sutura.compare.report_page.markup import tag
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.tables import shown_arms, type_estimate, type_groups

#: Shades from 0 to 100 %, one for every five points; the style sheet has their colours.
SHADES = 20


def heat(standing: Standing) -> Markup:
    """A row a family, a column an arm; the interval stands in each cell's title and in the table behind."""
    arms = [arm for arm in shown_arms(standing) if arm.condition != "majority-overall"]
    head = [tag("th", "family", scope="col", class_="w"), tag("th", "n", scope="col")]
    head += [tag("th", tag("span", arm.label), scope="col", class_=_side(arm) or None) for arm in arms]
    rows = []
    for name, types in type_groups(standing.scores).items():
        cells, count = [], 0
        for arm in arms:
            found = type_estimate(standing.scores, arm, types)
            if found is None:
                cells.append(tag("td", "–", class_=_side(arm) or None))
                continue
            count = max(count, found.n_items)
            title = f"{arm.label}, {name}: {spoken(found)}"
            shade = f"h{round(SHADES * found.mean)} {_side(arm)}".strip()
            cells.append(tag("td", f"{100 * found.mean:.0f}", class_=shade, title=title))
        rows.append(tag("tr", tag("th", name, scope="row", class_="w"), tag("td", f"{count:,}"), *cells))
    caption = f"Accuracy in % by question family on {standing.scores.benchmark}"
    body = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head)),
        tag("tbody", *rows),
        class_="heat",
    )
    return tag("div", body, class_="wide", tabindex="0", role="region", aria_label=caption)


def _side(arm: Arm) -> str:
    """Encoders stand apart from floors and ceiling."""
    return "" if arm.condition == "picture" else "control"
