"""The verdict in sentences a careful person could sign.

The order is the order of what matters: whether pictures were used at all, which encoder is best and by how
much, whether the controls agree, and what limits all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.statistics import COVERAGE_FOUND, Difference, Estimate

_FLOOR_WORDS = {
    "blind": "a blind run (trained without the picture)",
    "majority": "the most frequent answer of each question type",
    "majority-overall": "the most frequent answer",
}


def verdict(standing: Standing) -> list[str]:
    """Sentences on one benchmark, the most important first."""
    floor, ranking = _floor(standing), _ranking(standing)
    used = any(standing.clears_floor(arm) for arm in standing.encoders)
    sentences = [
        *(ranking + floor if used else floor + ranking),
        *_controls(standing),
        *_limits(standing),
    ]
    return [sentence for sentence in sentences if sentence]


def percent(value: float) -> str:
    """0.6604 as "66.0 %"."""
    return f"{100 * value:.1f} %"


def interval(estimate: Estimate) -> str:
    """The interval of an accuracy in words."""
    if estimate.low is None or estimate.high is None:
        return "no interval can be computed"
    return f"95 % interval {100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def points(difference: Difference, *, signed: bool = True) -> str:
    """A difference with interval and p-value in words."""
    value = 100 * difference.difference
    text = f"{value:+.1f} points" if signed else f"{abs(value):.1f} points"
    if difference.low is None or difference.high is None:
        return f"{text} (no interval can be computed)"
    p = difference.p if difference.p_adjusted is None else difference.p_adjusted
    name = "p" if difference.p_adjusted == difference.p else "adjusted p"
    shown = "" if p is None else f", {name} {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    return f"{text} (95 % interval {100 * difference.low:+.1f} to {100 * difference.high:+.1f}{shown})"


def brief(difference: Difference) -> str:
    """A difference and its interval, in points, for lists."""
    text = f"{100 * difference.difference:+.1f}"
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def listing(names: Sequence[str]) -> str:
    """Names with commas and a last "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _floor(standing: Standing) -> list[str]:
    everyone = (*standing.encoders, *standing.untrained)
    if not everyone:
        return [f"No encoder was evaluated on {standing.scores.benchmark}; there is nothing to rank."]
    if not standing.floors:
        return [
            "No blind run and no most-frequent-answer row stand beside these scores: how much of them the "
            "questions alone give is unknown."
        ]
    floor = standing.floors[0]
    words = f"{_FLOOR_WORDS[floor.condition]} answers {percent(standing.estimates[floor].mean)}"
    sentences = []
    if not any(standing.clears_floor(arm) for arm in everyone):
        nearest = max(everyone, key=lambda arm: standing.estimates[arm].mean)
        gap = standing.above_floor[nearest]
        sentences.append(
            f"No encoder clears the question-only floor on {standing.scores.benchmark}: {words} without "
            f"seeing; the highest score, {nearest.label} with {percent(standing.estimates[nearest].mean)}, "
            f"differs from {_FLOOR_WORDS[gap.b.condition]} by {points(gap)}. Nothing here shows that the "
            "pictures were used, and a ranking of the encoders would mean nothing."
        )
    else:
        clear = [arm for arm in everyone if standing.clears_floor(arm)]
        below = [arm for arm in everyone if arm not in clear]
        text = f"The question-only floor on {standing.scores.benchmark}: {words} without seeing."
        gaps = [f"{arm.label} {brief(standing.above_floor[arm])}" for arm in clear]
        text += f" Above it, in points with 95 % intervals: {listing(gaps)}."
        if below:
            text += f" Not shown to be above it: {listing([arm.label for arm in below])}."
        sentences.append(text)
    if not any(arm.condition == "blind" for arm in standing.floors):
        sentences.append(
            "There is no blind run, so the floor is the most frequent answer only; a model that reads the "
            "question without a picture usually does better than that."
        )
    return sentences


def _ranking(standing: Standing) -> list[str]:
    encoders = standing.encoders
    name = standing.scores.benchmark
    if not encoders:
        return ["All encoders here are untrained."] if standing.untrained else []
    best = encoders[0]
    estimate = standing.estimates[best]
    score = f"{percent(estimate.mean)} ({interval(estimate)})"
    seen = not standing.floors or any(standing.clears_floor(arm) for arm in encoders)
    firm = seen and estimate.n_seeds > 1
    if len(encoders) == 1:
        return [f"{best.label} answers {score} of {name} right; it is the only trained encoder here."]
    leaders = standing.leaders()
    rest = [arm for arm in encoders if arm not in leaders]
    gaps = {arm: standing.pairs[best, arm] for arm in encoders[1:]}
    if len(leaders) == 1:
        verb = "is best" if firm else "scored highest"
        second = encoders[1]
        text = f"{best.label} {verb} on {name} with {score}: {points(gaps[second])} above {second.label}"
        others = [f"{arm.label} ({100 * gaps[arm].difference:+.1f})" for arm in encoders[2:]]
        return [text + (f", and also above {listing(others)}." if others else ".")]
    ties = "; ".join(f"against {arm.label} {points(gaps[arm])}" for arm in leaders[1:])
    text = f"No difference shown on {name} between {listing([arm.label for arm in leaders])}: {best.label} "
    text += f"has {score}, {ties}."
    detectable = [gap.detectable for arm in leaders[1:] if (gap := gaps[arm]).detectable is not None]
    if detectable:
        text += (
            f" Smaller differences than about {100 * max(detectable):.1f} points would mostly go unnoticed "
            "with this many items and seeds."
        )
    sentences = [text]
    if rest:
        worse = [f"{arm.label} by {points(gaps[arm], signed=False)}" for arm in rest]
        sentences.append(f"{best.label} is above {listing(worse)}.")
    return sentences


def _controls(standing: Standing) -> list[str]:
    sentences = []
    for arm in standing.encoders[:1]:
        gap = standing.right_picture.get(arm)
        if gap is not None and gap.shown and gap.difference > 0:
            wrong = percent(standing.estimates[gap.b].mean)
            sentences.append(
                f"With a wrong picture {arm.label} falls to {wrong}: {points(gap)} for the right one."
            )
        elif gap is not None:
            sentences.append(
                f"{arm.label} is not shown to answer better with the right picture than with a wrong one: "
                f"{points(gap)}."
            )
    if standing.untrained and standing.encoders:
        floor = standing.untrained[0]
        value = percent(standing.estimates[floor].mean)
        above = [
            a for a in standing.encoders if (g := standing.above_untrained[a]).shown and g.difference > 0
        ]
        text = f"An encoder with random weights ({floor.label}) reaches {value}. "
        if above:
            gaps = [f"{arm.label} {brief(standing.above_untrained[arm])}" for arm in above]
            text += f"Above it, in points with 95 % intervals: {listing(gaps)}."
        missing = [arm.label for arm in standing.encoders if arm not in above]
        if missing:
            text += f"{' ' if above else ''}Pre-training is not shown to help: {listing(missing)}."
        sentences.append(text)
    if standing.ceiling is not None:
        sentences.append(
            f"Reading a description instead of the picture, the language model answers "
            f"{percent(standing.estimates[standing.ceiling].mean)}: the ceiling for every encoder here."
        )
    return sentences


def _limits(standing: Standing) -> list[str]:
    arms: tuple[Arm, ...] = (*standing.encoders, *standing.untrained)
    if not arms:
        return []
    estimate = standing.estimates[arms[0]]
    size = f"{estimate.n_items:,} questions about {estimate.n_pictures:,} pictures"
    seeds = estimate.n_seeds
    if seeds == 1:
        return [
            f"One training seed and {size}: training noise is unmeasured. Intervals cover the choice of "
            "pictures only, and every sentence is about these trained models, not about their encoders."
        ]
    text = f"{seeds} training seeds and {size}; intervals cover both sources of noise"
    if len(arms) > 1:
        text += ", p-values are adjusted for the number of comparisons (Holm) and intervals are not"
    if seeds in COVERAGE_FOUND:
        low, high = COVERAGE_FOUND[seeds]
        text += (
            f". With so few seeds the nominal 95 % are approximate: in simulations such intervals held the "
            f"truth in {low} to {high} % of cases. They are wide, and a difference they do not show may be there"
        )
    return [text + "."]
