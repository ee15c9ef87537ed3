"""Beforehand: how many questions and training seeds show a difference of d points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import root_scalar
from scipy.special import chdtri, ndtr, stdtrit

from sutura.compare.components import Components
from sutura.compare.crossed import at_least, degrees
from sutura.compare.statistics import CONFIDENCE, POWER
from sutura.compare.tables import Table
from sutura.core.errors import UserError

#: Noise of a difference between two encoders as found in this project's runs (docs/statistics.md has each): correlation
#: of two encoders' answers to one question; shares of a single answer's variance that belong to the picture, to
#: the question and to the picture under this seed; standard deviation between seeds, of the difference.
CORRELATION = 0.4
SHARES = (0.005, 0.07, 0.015)
SEED_SD = 0.04
SEEDS = (1, 2, 3, 5, 8, 10, 20)
ITEMS = (500, 1000, 2000, 5000, 10000, 20000)
#: Points at which a distribution is taken.
QUANTILES = 400
#: No test set is larger.
MOST_PICTURES = 10**7


def assumed(accuracy: float, *, seed_sd: float = SEED_SD, correlation: float = CORRELATION) -> Components:
    """Components for encoders of a given accuracy, before anything was run.

    A question answered right with probability p has variance p (1 − p); the difference of two encoders has twice that,
    less what their answers share.

    Args:
        accuracy: 0 to 1, of both.
        seed_sd: standard deviation of the difference between seeds, 0 to 1.
        correlation: of the two encoders' answers to one question.

    Raises:
        UserError: an accuracy or correlation out of range.

    Source: Miller 2024, arXiv:2411.00640, section 4.2 (variance of a paired difference).
    """
    if not 0 < accuracy < 1:
        raise UserError(
            f"accuracy {100 * accuracy:g} % must lie between 0 and 100; at either end nothing varies."
        )
    if not (0 <= correlation < 1 and seed_sd >= 0):
        raise UserError(
            f"correlation {correlation:g} must be at least 0 and below 1, seed_sd {100 * seed_sd:g} at least 0."
        )
    once = 2 * accuracy * (1 - accuracy) * (1 - correlation)
    of_picture, of_item, of_both = SHARES
    return Components(
        of_picture * once,
        of_item * once,
        seed_sd**2,
        of_both * once,
        (1 - sum(SHARES)) * once,
    )


@dataclass(frozen=True, slots=True)
class Design:
    """A comparison to be.

    Args:
        seeds: training seeds.
        pictures: test pictures.
        per_picture: questions about each.
    """

    seeds: int
    pictures: float
    per_picture: float = 1.0


class Expected(NamedTuple):
    """Mean squares of a design's table, on average: pictures, seeds, and their interaction."""

    picture: float
    seed: float
    inner: float


def expected(noise: Components, design: Design) -> Expected:
    """What the table of `crossed` will hold on average."""
    inner = noise.seed_picture + noise.rest / design.per_picture
    of_picture = design.seeds * (noise.picture + noise.item / design.per_picture) + inner
    return Expected(of_picture, design.pictures * noise.seed + inner, inner)


def standard_error(noise: Components, design: Design) -> float:
    """Of a difference. With one seed, training noise is not in it: the difference is between two trained models."""
    found = expected(noise, design)
    total = found.picture + (found.seed - found.inner if design.seeds > 1 else 0.0)
    return float(np.sqrt(total / (design.pictures * design.seeds)))


def thresholds(
    noise: Components, design: Design, level: float = 1 - CONFIDENCE
) -> Float[np.ndarray, "quantiles"]:
    """How many true standard errors a difference must reach to be shown, over what the later analysis may find.

    The mean square with fewest degrees of freedom decides: that of seeds, or with one seed that of pictures. It is
    taken through its distribution, quantile by quantile, and the analysis of `crossed` is made of each.
    """
    seeds, pictures = design.seeds, design.pictures
    found = expected(noise, design)
    least = seeds - 1 if seeds > 1 else pictures - 1
    ratio = chdtri(least, 1 - (np.arange(QUANTILES) + 0.5) / QUANTILES) / least
    if seeds == 1:
        return stdtrit(pictures - 1, 1 - level / 2) * np.sqrt(ratio)
    inner, of_picture = np.full_like(ratio, found.inner), np.full_like(ratio, found.picture)
    of_seed = at_least(found.seed * ratio, inner, seeds)
    df = degrees(of_picture, of_seed, inner, seeds, pictures)
    more = found.picture - found.inner
    return stdtrit(df, 1 - level / 2) * np.sqrt((of_seed + more) / (found.seed + more))


def power_of(difference: float, noise: Components, design: Design, level: float = 1 - CONFIDENCE) -> float:
    """Probability that a true difference is shown.

    Source: Miller 2024, arXiv:2411.00640, section 5 (power analysis), there for a known variance.
    Differs: variance and degrees of freedom are those that the analysis will estimate, averaged over what they may be.
    """
    error = standard_error(noise, design)
    return 1.0 if error == 0 else _power(abs(difference) / error, thresholds(noise, design, level))


def _power(shift: float, limits: np.ndarray) -> float:
    return float((ndtr(shift - limits) + ndtr(-shift - limits)).mean())


def detectable(
    noise: Components, design: Design, *, power: float = POWER, level: float = 1 - CONFIDENCE
) -> float:
    """Smallest true difference (0 to 1) that is shown with the given power."""
    error = standard_error(noise, design)
    if error == 0:
        return 0.0
    limits = thresholds(noise, design, level)
    top = float(limits.max()) + 5.0
    return error * float(
        root_scalar(lambda shift: _power(shift, limits) - power, bracket=(0.0, top), xtol=1e-6).root
    )


def pictures_needed(
    difference: float,
    noise: Components,
    seeds: int,
    per_picture: float,
    *,
    power: float = POWER,
    level: float = 1 - CONFIDENCE,
) -> int | None:
    """Fewest pictures that show a difference with the given power; None where seed noise alone prevents it."""

    def reaches(pictures: int) -> bool:
        return detectable(noise, Design(seeds, pictures, per_picture), power=power, level=level) <= difference

    if not reaches(MOST_PICTURES):
        return None
    low, high = 1, 2
    while not reaches(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def seeds_needed(
    difference: float, noise: Components, *, power: float = POWER, level: float = 1 - CONFIDENCE
) -> int | None:
    """Fewest seeds (two or more) that show a difference if questions are unlimited; None above a thousand."""
    for seeds in (*range(2, 50), *range(50, 1001, 10)):
        if detectable(noise, Design(seeds, MOST_PICTURES), power=power, level=level) <= difference:
            return seeds
    return None


def family_level(encoders: int) -> float:
    """What p must fall below for one pair to be shown when all others are not: Holm's first step."""
    if encoders < 2:
        raise UserError(f"{encoders} encoder: a comparison has at least two.")
    return (1 - CONFIDENCE) / (encoders * (encoders - 1) / 2)


def power_table(
    noise: Components,
    *,
    seeds: Sequence[int] = SEEDS,
    items: Sequence[int] = ITEMS,
    per_picture: float = 1.0,
    difference: float | None = None,
    encoders: int = 2,
    power: float = POWER,
) -> Table:
    """Seeds × questions: the smallest difference shown, in points (a dash above 100); and questions it needs.

    Args:
        noise: of a difference.
        seeds, items: rows and columns.
        per_picture: questions a picture.
        difference: 0 to 1; adds the column of questions needed, `never` where seed noise alone prevents it.
        encoders: in the comparison: all pairs are tested together (Holm).
        power: probability with which it is to be shown.

    Raises:
        UserError: seeds, items, difference or power out of range.
    """
    level = family_level(encoders)
    _check(seeds, items, per_picture, difference, power)
    rows = []
    for count in seeds:
        designs = [Design(count, n / per_picture, per_picture) for n in items]
        found = [detectable(noise, design, power=power, level=level) for design in designs]
        cells = [f"{100 * size:.1f}" if size <= 1 else "–" for size in found]
        if difference is not None:
            needed = pictures_needed(difference, noise, count, per_picture, power=power, level=level)
            cells.append("never" if needed is None else f"{round(needed * per_picture):,}")
        rows.append((f"{count}{' *' if count == 1 else ''}", *cells))
    more = () if difference is None else (f"questions for {100 * difference:g} points",)
    return Table(("seeds", *(f"{n:,}" for n in items), *more), tuple(rows))


def _check(
    seeds: Sequence[int], items: Sequence[int], per_picture: float, difference: float | None, power: float
) -> None:
    if not seeds or min(seeds) < 1:
        raise UserError(f"seeds {list(seeds)}: each row needs at least one training seed.")
    if per_picture < 1 or not items or min(items) < 2 * per_picture:
        raise UserError(
            f"items {list(items)} with {per_picture:g} a picture: at least one question a picture and two pictures "
            "are needed."
        )
    if difference is not None and not 0 < difference <= 1:
        raise UserError(f"difference {100 * difference:g} must be above 0 and at most 100 points.")
    if not 0.5 <= power < 1:
        raise UserError(f"power {power:g} must be at least 0.5 and below 1, for example 0.8.")
