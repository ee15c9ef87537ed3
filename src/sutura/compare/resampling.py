"""Resampling beside the formulas: a bootstrap over pictures and seeds, and a permutation over pictures alone.

Both are offered on request; tables and sentences rest on `statistics`, whose interval holds its level over a wider
range of noise (docs/statistics.md has both columns).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, stdtrit
from scipy.stats import permutation_test

from sutura.compare.crossed import crossed
from sutura.compare.scores import Arm, Scores
from sutura.compare.statistics import CONFIDENCE, by_picture, require_comparable
from sutura.core.errors import UserError

REPLICATES = 4000
#: Replicates drawn at once, so that memory does not grow with their number.
_CHUNK = 250
THESE_MODELS = "these trained models only"


@dataclass(frozen=True, slots=True)
class Resampled:
    """A difference (or an accuracy) with what resampling says of it.

    Args:
        mean: as `statistics` has it.
        low, high: 95 % interval of the bootstrap over pictures and seeds.
        seeds: training seeds; with one, the interval is over pictures alone.
        p_pictures: of no difference, signs of whole pictures flipped; holds for `these trained models only`. None for
            an accuracy.
    """

    mean: float
    low: float
    high: float
    seeds: int
    p_pictures: float | None = None


def resampled(
    scores: Scores,
    a: Arm,
    b: Arm | None = None,
    question_type: str | Collection[str] | None = None,
    *,
    replicates: int = REPLICATES,
    draw: int = 0,
) -> Resampled:
    """Bootstrap and permutation of `a` minus `b`, or of the accuracy of `a` alone.

    Args:
        scores, a, b, question_type: as for `statistics.paired`.
        replicates: of the bootstrap; the permutation makes as many.
        draw: seed of the random numbers.

    Raises:
        UserError: what `paired` refuses, and a single picture.
    """
    answers = scores.answers(a)
    values = answers.values
    if b is not None:
        require_comparable(scores, a, b)
        values = values - scores.answers(b).values
    sums, sizes = by_picture(scores, answers, values, scores.chosen(answers, question_type))
    if len(sizes) < 2:
        raise UserError(
            f"{scores.benchmark} has one picture here, and resampling needs at least two. Evaluate more pictures."
        )
    low, high = bootstrap(sums, sizes, replicates=replicates, draw=draw)
    p = None if b is None else sign_flip(sums, permutations=replicates, draw=draw)
    return Resampled(float(sums.sum() / len(sums) / sizes.sum()), low, high, len(sums), p)


def bootstrap(
    sums: Float[np.ndarray, "seeds pictures"],
    sizes: Float[np.ndarray, "pictures"],
    *,
    replicates: int = REPLICATES,
    draw: int = 0,
) -> tuple[float, float]:
    """95 % interval of the mean, pictures and seeds drawn anew, each with replacement.

    Percentiles lie too close together when a side has few members; they are moved out as far as a t quantile with the
    formula's degrees of freedom asks.

    Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1 (both sides resampled); Hesterberg 2015,
        The American Statistician 69, section 4.2 (expanded percentiles).
    Differs: expanded by Satterthwaite's degrees of freedom instead of the sample size.
    """
    rng = np.random.default_rng(draw)
    means = resample_pictures(sums, sizes, replicates, rng)
    means = np.take_along_axis(means, resample_seeds(len(sums), replicates, rng), axis=1).mean(1)
    tail = expanded_tail(float(crossed(sums, sizes).df))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(df: float) -> float:
    """Probability to cut off at either end so that percentiles reach as far as a t interval; 0.025 for many df.

    Nothing is cut off where there are no degrees of freedom (a single picture).
    """
    if not df > 0:
        return 0.0
    return float(ndtr(stdtrit(df, (1 - CONFIDENCE) / 2) * np.sqrt((df + 1) / df)))


def resample_pictures(
    sums: Float[np.ndarray, "rows pictures"],
    sizes: Float[np.ndarray, "pictures"],
    replicates: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "replicates rows"]:
    """Means over items of every row (an arm under a seed), the same drawn pictures for all rows of a replicate."""
    count = len(sizes)
    table = np.vstack([sums, sizes]).T
    found = []
    for start in range(0, replicates, _CHUNK):
        rows = min(_CHUNK, replicates - start)
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        totals = weights @ table
        found.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(found)


def resample_seeds(
    seeds: int, replicates: int, rng: np.random.Generator
) -> Int[np.ndarray, "replicates seeds"]:
    """Which seeds each replicate holds."""
    return rng.integers(0, seeds, (replicates, seeds))


def sign_flip(
    sums: Float[np.ndarray, "seeds pictures"], *, permutations: int = REPLICATES, draw: int = 0
) -> float:
    """Two-sided p-value of no difference between *these trained models*: signs of whole pictures are flipped.

    Training noise has no part in it. With a seed noise of 1 to 2 points it calls an encoder different from itself in
    a sixth to a third of comparisons (docs/statistics.md), so it says nothing about encoders.

    Args:
        sums: differences of each picture's items, added up; summed over seeds here.
        permutations: random flips; with few pictures all of them are made.

    Source: Fisher's randomisation of signs, by scipy.stats.permutation_test.
    """
    found = permutation_test(
        (sums.sum(0),),
        lambda values, axis: values.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=_CHUNK,
        rng=np.random.default_rng(draw),
    )
    return float(found.pvalue)
