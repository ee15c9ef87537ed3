"""The verdict of one benchmark in three sentences: what came out, what it stands on, what limits it."""

from __future__ import annotations

from collections.abc import Sequence

from sutura.compare.standing import Standing
from sutura.compare.verdict import listing, percent, verdict

#: Names that a sentence lists before it counts the rest.
NAMED = 6


def summary(standing: Standing) -> list[str]:
    """Two or three sentences; `verdict` says all of it."""
    everyone = (*standing.encoders, *standing.untrained)
    sentences = verdict(standing)
    if len(sentences) < 3 or not standing.floors or not everyone:
        return sentences[:3]
    if not any(standing.clears_floor(arm) for arm in everyone):
        return [sentences[0], sentences[-1]]
    return [sentences[0], _floor(standing), sentences[-1]]


def _floor(standing: Standing) -> str:
    """Who is shown to be above every floor, and who is not, without the numbers that stand in the table."""
    everyone = (*standing.encoders, *standing.untrained)
    above = [arm.label for arm in everyone if standing.clears_floor(arm)]
    below = [arm.label for arm in everyone if not standing.clears_floor(arm)]
    floor = standing.floors[0]
    best = percent(standing.estimates[floor].mean)
    text = f"The best score without seeing is {best} ({floor.label}); "
    text += f"shown to be above every such floor: {_some(above)}"
    if below:
        text += f"; not shown to be: {_some(below)}"
    text += "."
    if not any(arm.condition == "blind" for arm in standing.floors):
        text += " There is no blind run, so the floor may be too low."
    return text


def _some(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return listing(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
