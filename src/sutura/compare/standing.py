"""Where every encoder stands on one benchmark: scores, paired differences, floors and controls.

Numbers only; `verdict` puts them into words and `tables` and `plots` show them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import polars as pl

from sutura.compare.scores import Arm, Scores
from sutura.compare.statistics import Difference, Estimate, accuracy, holm, paired

#: Conditions under which nothing was seen: a score is worth what it adds to the best of these.
FLOORS = ("blind", "majority", "majority-overall")


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """One benchmark's results.

    Args:
        scores: what everything was computed from.
        estimates: accuracy of every arm.
        encoders: trained encoders with the right picture, best first.
        untrained: encoders with random weights, best first.
        floors: arms that saw no picture, best first.
        ceiling: the arm that read a description instead, where there is one.
        pairs: every pair of `encoders`, the better one first; Holm-adjusted over all pairs.
        above_floor: for every encoder, trained or not, its difference to the floor with the lowest lower bound, and
            the largest p-value over all floors; Holm-adjusted over the encoders.
        right_picture: for every encoder, right picture minus wrong picture; Holm-adjusted.
        above_untrained: for every trained encoder, its difference to the best untrained one; Holm-adjusted.
    """

    scores: Scores
    estimates: dict[Arm, Estimate]
    encoders: tuple[Arm, ...]
    untrained: tuple[Arm, ...]
    floors: tuple[Arm, ...]
    ceiling: Arm | None
    pairs: dict[tuple[Arm, Arm], Difference]
    above_floor: dict[Arm, Difference]
    right_picture: dict[Arm, Difference]
    above_untrained: dict[Arm, Difference]

    def clears_floor(self, arm: Arm) -> bool:
        """Whether an encoder is shown to be above every floor there is."""
        gap = self.above_floor.get(arm)
        return gap is not None and gap.shown and gap.difference > 0

    def leaders(self) -> tuple[Arm, ...]:
        """The best encoder and those it is not shown to be better than."""
        best = self.encoders[0]
        return (best, *(arm for arm in self.encoders[1:] if not self.pairs[best, arm].shown))


def stand(
    frame: pl.DataFrame,
    facts: Mapping[str, Mapping[str, Any]],
    benchmark: str | None = None,
    metric: str = "exact",
) -> Standing:
    """Compute a benchmark's standing.

    Args:
        frame: ledgers, as `read_ledgers` gives them.
        facts: encoder name to its facts; `trained: false` marks one with random weights.
        benchmark: which; may be left out when the frame holds only one.
        metric: the headline score column.

    Raises:
        UserError: what `Scores.of` and `paired` refuse.
    """
    scores = Scores.of(frame, benchmark, metric)
    estimates = {arm: accuracy(scores, arm) for arm in scores.arms}

    def ranked(arms: list[Arm]) -> tuple[Arm, ...]:
        return tuple(sorted(arms, key=lambda arm: (-estimates[arm].mean, arm)))

    shown = [arm for arm in scores.arms if arm.condition == "picture"]
    untrained = ranked([arm for arm in shown if facts.get(arm.encoder, {}).get("trained") is False])
    encoders = ranked([arm for arm in shown if arm not in untrained])
    floors = ranked([arm for arm in scores.arms if arm.condition in FLOORS])
    ceilings = ranked([arm for arm in scores.arms if arm.condition == "text-ceiling"])
    everyone = (*encoders, *untrained)
    return Standing(
        scores,
        estimates,
        encoders,
        untrained,
        floors,
        ceilings[0] if ceilings else None,
        _family(scores, list(combinations(encoders, 2))),
        _above_floor(scores, everyone, floors),
        _by_first(
            _family(
                scores,
                [
                    (arm, wrong)
                    for arm in everyone
                    if (wrong := Arm(arm.encoder, "wrong-picture")) in estimates
                ],
            )
        ),
        _by_first(_family(scores, [(arm, untrained[0]) for arm in encoders] if untrained else [])),
    )


def _family(scores: Scores, pairs: list[tuple[Arm, Arm]]) -> dict[tuple[Arm, Arm], Difference]:
    return dict(zip(pairs, holm([paired(scores, a, b) for a, b in pairs]), strict=True))


def _by_first(pairs: dict[tuple[Arm, Arm], Difference]) -> dict[Arm, Difference]:
    return {a: difference for (a, _), difference in pairs.items()}


def _above_floor(scores: Scores, arms: tuple[Arm, ...], floors: tuple[Arm, ...]) -> dict[Arm, Difference]:
    """Each encoder against the floor it may be nearest to; above all of them means above the least certain one.

    The difference and its interval are those of the floor with the lowest lower bound. Its p-value is the largest
    over all floors, which is the test of being above every one of them.

    Source: intersection-union test, Berger 1982, Technometrics 24.
    """
    if not floors:
        return {}
    nearest = []
    for arm in arms:
        own = Arm(arm.encoder, "blind")
        rivals = [f for f in floors if f.condition != "blind" or own not in floors or f == own]
        gaps = [paired(scores, arm, floor) for floor in rivals]
        gap = min(gaps, key=_certainly_above)
        known = [one.p for one in gaps if one.p is not None]
        nearest.append(replace(gap, p=max(known)) if gap.difference > 0 and known else gap)
    return {gap.a: gap for gap in holm(nearest)}


def _certainly_above(gap: Difference) -> tuple[bool, float, float]:
    """Sorts differences by what they are at least; those below zero first."""
    least = -math.inf if gap.low is None else gap.low
    return gap.difference > 0, least, gap.difference
