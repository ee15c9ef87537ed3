"""Accuracy and paired differences with intervals that hold both sources of noise, from scores alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtr, stdtrit

from sutura.compare.crossed import crossed
from sutura.compare.scores import Answers, Arm, Scores
from sutura.core.errors import UserError

CONFIDENCE = 0.95
#: Probability with which `Difference.detectable` would have been found.
POWER = 0.80
#: Share of nominal 95 % intervals that held the truth, in percent, lowest and highest over the situations of
#: benchmarks/interval_coverage.py (2,000 simulations each); by number of training seeds. From five seeds on it is 94
#: to 97.
COVERAGE_FOUND = {2: (96, 99), 3: (95, 98), 4: (94, 97)}

UNMEASURED = "one training seed: training noise is unmeasured"


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy (0 to 1) and its interval; `low` and `high` are None where none can be computed.

    Args:
        seed_sd: standard deviation between training seeds beyond what items cause; None with one seed.
        excluded: items the metric does not apply to.
        note: what limits the interval; empty when nothing does.
    """

    mean: float
    low: float | None
    high: float | None
    n_items: int
    n_pictures: int
    n_seeds: int
    seed_sd: float | None = None
    excluded: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of `a` minus accuracy of `b` on the same items and seeds.

    Args:
        p: two-sided, of no difference; None where it cannot be computed.
        p_adjusted: after Holm's correction over a family of comparisons; None before `holm` was applied.
        effect: the difference in standard deviations of the per-item difference.
        detectable: the smallest difference this design would find with 80 % power.
        note: what limits the interval; empty when nothing does.
    """

    a: Arm
    b: Arm
    difference: float
    low: float | None
    high: float | None
    p: float | None
    n_items: int
    n_pictures: int
    n_seeds: int
    effect: float | None = None
    detectable: float | None = None
    p_adjusted: float | None = None
    note: str = ""

    @property
    def shown(self) -> bool:
        """Whether the data show a difference: p, adjusted when it was, below 5 %."""
        p = self.p if self.p_adjusted is None else self.p_adjusted
        return p is not None and p < 1 - CONFIDENCE


def accuracy(scores: Scores, arm: Arm, question_type: str | Collection[str] | None = None) -> Estimate:
    """Mean score of an arm with a 95 % interval over pictures and seeds.

    The interval is Wilson's with the effective number of items that the crossed variance implies, so that it
    stays between 0 and 1. Where all pictures score alike (all right, all wrong) the pictures themselves are
    counted; a single picture has no interval.

    Source: Wilson 1927; effective sample size as in Korn and Graubard 1998, Survey Methodology 24.
    """
    answers = scores.answers(arm)
    mask = scores.chosen(answers, question_type)
    sums, sizes = by_picture(scores, answers, answers.values, mask)
    found = crossed(sums, sizes)
    mean, variance = float(found.mean), float(found.variance)
    seeds = 1 if arm.seedless else len(answers.seeds)
    notes = [UNMEASURED] if seeds == 1 and not arm.seedless else []
    low = high = None
    if np.isnan(variance):
        notes.append("one picture: no interval can be computed")
    else:
        spread = variance > 1e-15
        quantile = float(stdtrit(found.df if spread else len(sizes) - 1, (1 + CONFIDENCE) / 2))
        effective = mean * (1 - mean) / variance if spread else float(len(sizes))
        if not spread:
            notes.append("every picture scores the same: interval from the number of pictures")
        low, high = _wilson(mean, effective, quantile)
    return Estimate(
        mean,
        low,
        high,
        int(mask.sum()),
        len(sizes),
        seeds,
        None if np.isnan(found.seed_sd) else float(found.seed_sd),
        answers.excluded if question_type is None else 0,
        "; ".join(notes),
    )


def paired(scores: Scores, a: Arm, b: Arm, question_type: str | Collection[str] | None = None) -> Difference:
    """Compare two arms item by item and seed by seed.

    Both variance sources are in the interval and the p-value. An arm without training seeds (most frequent
    answer, text ceiling) is set against every seed of the other.

    Raises:
        UserError: the two answered different items or have different seeds.
    """
    left, right = scores.answers(a), scores.answers(b)
    seeds = require_comparable(scores, a, b)
    mask = scores.chosen(left, question_type)
    gap = left.values - right.values
    sums, sizes = by_picture(scores, left, gap, mask)
    found = crossed(sums, sizes)
    difference, variance = float(found.mean), float(found.variance)
    notes = [UNMEASURED] if seeds == 1 and not (a.seedless and b.seedless) else []
    result = Difference(
        a, b, difference, None, None, None, int(mask.sum()), len(sizes), seeds, note="; ".join(notes)
    )
    if np.isnan(variance):
        return replace(result, note="; ".join([*notes, "one picture: no interval can be computed"]))
    if variance <= 1e-15:
        return _without_spread(result, notes)
    error = float(np.sqrt(variance))
    half = float(stdtrit(found.df, (1 + CONFIDENCE) / 2)) * error
    return replace(
        result,
        low=max(difference - half, -1.0),
        high=min(difference + half, 1.0),
        p=float(2 * stdtr(found.df, -abs(difference) / error)),
        effect=difference / float(gap[:, mask].std()) if gap[:, mask].std() > 0 else None,
        detectable=half + float(stdtrit(found.df, POWER)) * error,
    )


def _without_spread(result: Difference, notes: list[str]) -> Difference:
    """Every picture shows the same difference: a sign test over pictures, and Wilson's bound on dissent."""
    pictures = result.n_pictures
    dissent = _wilson(0.0, float(pictures), float(stdtrit(pictures - 1, (1 + CONFIDENCE) / 2)))[1]
    same = abs(result.difference) < 1e-12
    note = "the same score on every picture" if same else "the same difference on every picture"
    return replace(
        result,
        low=max(result.difference - dissent, -1.0),
        high=min(result.difference + dissent, 1.0),
        p=1.0 if same else float(2.0 ** (1 - pictures)),
        note="; ".join([*notes, f"{note}: interval from the number of pictures"]),
    )


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """Adjust the p-values of a family of comparisons, in place of order; those without a p stay so.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    values = holm_values([difference.p for difference in differences])
    return [
        difference if p is None else replace(difference, p_adjusted=p)
        for difference, p in zip(differences, values, strict=True)
    ]


def holm_values(values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction of plain p-values; None stays None and does not count."""
    adjusted: list[float | None] = [None] * len(values)
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    floor = 0.0
    for rank, (p, i) in enumerate(known):
        floor = max(floor, min(1.0, (len(known) - rank) * p))
        adjusted[i] = floor
    return adjusted


def require_comparable(scores: Scores, a: Arm, b: Arm) -> int:
    """The number of seeds that two arms share. Raises UserError when they answered other items or have other seeds."""
    _require_same_items(scores, a, b)
    return _require_same_seeds(a, scores.answers(a), b, scores.answers(b))


def by_picture(
    scores: Scores,
    answers: Answers,
    values: Float[np.ndarray, "seeds items"],
    mask: Bool[np.ndarray, "items"],
) -> tuple[Float[np.ndarray, "seeds pictures"], Float[np.ndarray, "pictures"]]:
    """Sums of values and numbers of items by picture, over the chosen items."""
    _, picture = np.unique(scores.picture_of[answers.items[mask]], return_inverse=True)
    sums = np.stack([np.bincount(picture, weights=row[mask]) for row in values])
    return sums, np.bincount(picture).astype(np.float64)


def _wilson(mean: float, effective: float, quantile: float) -> tuple[float, float]:
    share = quantile**2 / effective
    centre = (mean + share / 2) / (1 + share)
    half = quantile * np.sqrt(max(mean * (1 - mean), 0.0) / effective + share / (4 * effective)) / (1 + share)
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def _require_same_items(scores: Scores, a: Arm, b: Arm) -> None:
    left, right = scores.answers(a).items, scores.answers(b).items
    if np.array_equal(left, right):
        return
    only = [np.setdiff1d(left, right), np.setdiff1d(right, left)]
    example = next(str(scores.item_ids[codes[0]]) for codes in only if len(codes))
    raise UserError(
        f"{a.label} and {b.label} answered different items of {scores.benchmark}: {len(only[0])} only the "
        f"first, {len(only[1])} only the second (for example {example!r}). A paired comparison needs the "
        "same items; evaluate both on the same data."
    )


def _require_same_seeds(a: Arm, left: Answers, b: Arm, right: Answers) -> int:
    """The number of seeds that the pair has."""
    if a.seedless or b.seedless:
        return len(right.seeds if a.seedless else left.seeds)
    if left.seeds != right.seeds:
        raise UserError(
            f"{a.label} was trained with seeds {list(left.seeds)} and {b.label} with {list(right.seeds)}. A "
            "paired comparison needs the same seeds: train the missing ones or leave the others out."
        )
    return len(left.seeds)
