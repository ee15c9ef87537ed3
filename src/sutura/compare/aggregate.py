"""Several benchmarks together: means of paired differences and interquartile means, never raw accuracies alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit
from scipy.stats import trim_mean

from sutura.compare.crossed import Crossed, crossed
from sutura.compare.ranking import seed_sums, superiority
from sutura.compare.resampling import expanded_tail, resample_pictures, resample_seeds
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.statistics import CONFIDENCE, holm_values, require_comparable
from sutura.compare.tables import Table
from sutura.core.errors import UserError

#: Of the bootstrap, pictures and seeds resampled.
REPLICATES = 2000

Rows = tuple[Float[np.ndarray, "seeds pictures"], Float[np.ndarray, "pictures"]]
Table3 = tuple[Float[np.ndarray, "arms seeds pictures"], Float[np.ndarray, "pictures"]]
#: Found, low, high.
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Aggregated:
    """One difference over all benchmarks, each counted the same.

    Args:
        a: this encoder.
        b: minus this one; None for the mean of all compared encoders.
        mean: mean over benchmarks of the paired difference; `low` and `high` by the formula of `crossed`, in which
            a seed is one draw for all benchmarks, since one stitch answered them all.
        p: two-sided, of no difference; `p_adjusted` after Holm over the pairs.
        iqm: interquartile mean of the difference over benchmarks × seeds; interval by bootstrap.
        iqm_low, iqm_high: percentiles, moved out as `resampling.bootstrap` does.
        improvement: how often a run of `a` is above a run of `b`, mean over benchmarks; None without `b`.
    """

    a: Arm
    b: Arm | None
    mean: float
    low: float | None
    high: float | None
    p: float | None
    iqm: float
    iqm_low: float
    iqm_high: float
    improvement: Triple | None = None
    p_adjusted: float | None = None

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: p, adjusted when it was, below 5 %."""
        p = self.p if self.p_adjusted is None else self.p_adjusted
        return p is not None and p < 1 - CONFIDENCE


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Every encoder and every pair over all benchmarks.

    Args:
        benchmarks: their names, in order of the alphabet.
        seeds: training seeds that all have.
        field: each encoder against the mean of all of them, best first.
        pairs: the better one first.
        left_out: encoders that not every benchmark has.
    """

    benchmarks: tuple[str, ...]
    seeds: int
    field: dict[Arm, Aggregated]
    pairs: dict[tuple[Arm, Arm], Aggregated]
    left_out: tuple[Arm, ...]


def aggregate(standings: Sequence[Standing], *, draw: int = 0) -> Aggregate | None:
    """Put benchmarks together; None where there are not two benchmarks and two encoders in common.

    Accuracies of different benchmarks have different floors and ceilings, so that their mean compares nothing; paired
    differences are in points of the same thing. Pictures of different benchmarks count as different pictures.

    Args:
        standings: one a benchmark, over the same training seeds.
        draw: seed of the bootstrap.

    Raises:
        UserError: encoders with different items or seeds within a benchmark, or other seeds in another benchmark.

    Source: Agarwal et al. 2021, arXiv:2108.13264, sections 4.1 (stratified bootstrap) and 4.3 (interquartile
        mean, probability of improvement); Miller 2024, arXiv:2411.00640, section 4.2 (paired differences).
    Differs: seeds are drawn once for all benchmarks, not within each; a difference enters the interquartile mean,
        not a normalised score.
    """
    standings = sorted(standings, key=lambda standing: standing.scores.benchmark)
    arms = (
        [arm for arm in standings[0].encoders if all(arm in s.encoders for s in standings)]
        if standings
        else []
    )
    if len(standings) < 2 or len(arms) < 2:
        return None
    seeds = {require_comparable(s.scores, arms[0], arm) for s in standings for arm in arms}
    _require_same_seeds(standings, arms[0])
    count = seeds.pop()
    tables = [_table(standing, arms, count) for standing in standings]
    level = np.mean([(sums.sum((1, 2)) / (count * sizes.sum())) for sums, sizes in tables], axis=0)
    order = sorted(range(len(arms)), key=lambda i: (-level[i], arms[i]))
    arms, tables = [arms[i] for i in order], [(sums[order], sizes) for sums, sizes in tables]
    found = []
    for one in combine(tables, draw=draw):
        b = None if one.b is None else arms[one.b]
        found.append(Aggregated(arms[one.a], b, *_interval(one.mean), *one.quartile, one.improvement))
    pairs = _holm(found[len(arms) :])
    everyone = {arm for standing in standings for arm in standing.encoders}
    return Aggregate(
        tuple(standing.scores.benchmark for standing in standings),
        count,
        dict(zip(arms, found[: len(arms)], strict=True)),
        {(pair.a, pair.b): pair for pair in pairs if pair.b is not None},
        tuple(sorted(everyone - set(arms))),
    )


class Combined(NamedTuple):
    """One difference over several tables: of arm `a` to arm `b`, or to the mean of all arms (None).

    Args:
        mean: of the differences, each table counted the same.
        quartile, improvement: found, low, high.
    """

    a: int
    b: int | None
    mean: Crossed
    quartile: Triple
    improvement: Triple | None


def combine(tables: Sequence[Table3], *, replicates: int = REPLICATES, draw: int = 0) -> list[Combined]:
    """Every arm against the mean of all, then every pair, over benchmarks.

    Args:
        tables: of each benchmark, scores added up by arm, seed and picture, and questions by picture.
        replicates: of the bootstrap.
        draw: its seed.
    """
    arms = len(tables[0][0])
    pairs = list(combinations(range(arms), 2))
    weights = np.zeros((arms + len(pairs), arms))
    weights[:arms] = np.eye(arms) - 1 / arms
    for row, (i, j) in enumerate(pairs, arms):
        weights[row, i], weights[row, j] = 1, -1
    means = [_pooled([(np.tensordot(one, s, 1), sizes) for s, sizes in tables]) for one in weights]
    tails = [expanded_tail(float(one.df)) for one in means]
    quartiles, chances = _resample(tables, weights, pairs, tails, replicates, draw)
    alone = [Combined(i, None, means[i], quartiles[i], None) for i in range(arms)]
    rest = zip(pairs, means[arms:], quartiles[arms:], chances, strict=True)
    return alone + [Combined(i, j, mean, quartile, chance) for (i, j), mean, quartile, chance in rest]


def _require_same_seeds(standings: Sequence[Standing], arm: Arm) -> None:
    first = standings[0].scores
    for standing in standings[1:]:
        here = standing.scores
        if here.answers(arm).seeds != first.answers(arm).seeds:
            raise UserError(
                f"{arm.label} has seeds {list(first.answers(arm).seeds)} on {first.benchmark} and "
                f"{list(here.answers(arm).seeds)} on {here.benchmark}; benchmarks are put together over the same "
                "seeds. Evaluate the missing ones, or keep those that all have (common_seeds)."
            )


def _table(standing: Standing, arms: Sequence[Arm], seeds: int) -> Table3:
    parts = [seed_sums(standing.scores, arm, seeds) for arm in arms]
    return np.stack([sums for sums, _ in parts]), parts[0][1]


def _pooled(rows: Sequence[Rows]) -> Crossed:
    """Mean over benchmarks of a difference, with its variance.

    Every benchmark is brought to the same total weight and to the common mean, so that one crossed table holds them
    all: pictures are strata of their own benchmark, seeds go through all of them.
    """
    means = [float(sums.sum() / (len(sums) * sizes.sum())) for sums, sizes in rows]
    mean = float(np.mean(means))
    if min(len(sizes) for _, sizes in rows) < 2:  # one picture says nothing of its benchmark's spread
        return crossed(np.array([[mean]]), np.ones(1))
    scaled, weights, variances, degrees = [], [], [], []
    for own, (sums, sizes) in zip(means, rows, strict=True):
        share, pictures = 1 / sizes.sum(), len(sizes)
        gap = (sums - own * sizes) * share * np.sqrt(pictures / (pictures - 1))
        variances.append(float((gap.mean(0) ** 2).sum()))
        degrees.append(pictures - 1)
        scaled.append(gap + mean * sizes * share)
        weights.append(sizes * share)
    found = crossed(np.concatenate(scaled, axis=1), np.concatenate(weights))
    spread, df = np.array(variances), np.array(degrees)
    strata = (
        spread.sum() ** 2 / (spread**2 / df).sum() if spread.any() else np.inf
    )  # Satterthwaite, over benchmarks
    return found._replace(df=np.minimum(found.df, strata))


def _interval(found: Crossed) -> tuple[float, float | None, float | None, float | None]:
    """Mean, 95 % interval and p-value of no difference."""
    mean, variance = float(found.mean), float(found.variance)
    if np.isnan(variance) or variance <= 1e-15:
        return mean, None, None, 1.0 if abs(mean) < 1e-12 else None
    error, df = float(np.sqrt(variance)), float(found.df)
    half = float(stdtrit(df, (1 + CONFIDENCE) / 2)) * error
    return mean, max(mean - half, -1.0), min(mean + half, 1.0), float(2 * stdtr(df, -abs(mean) / error))


def _resample(
    tables: Sequence[Table3],
    weights: Float[np.ndarray, "contrasts arms"],
    pairs: Sequence[tuple[int, int]],
    tails: Sequence[float],
    replicates: int,
    draw: int,
) -> tuple[list[Triple], list[Triple]]:
    """Interquartile mean of every contrast and probability of improvement of every pair: found, low, high."""
    rng = np.random.default_rng(draw)
    arms, seeds = tables[0][0].shape[:2]
    drawn, seen = [], []
    for sums, sizes in tables:
        flat = sums.reshape(arms * seeds, -1)
        drawn.append(resample_pictures(flat, sizes, replicates, rng).reshape(replicates, arms, seeds))
        seen.append((flat.sum(1) / sizes.sum()).reshape(1, arms, seeds))
    chosen = resample_seeds(seeds, replicates, rng)[:, None, None, :]
    again = np.take_along_axis(np.stack(drawn, 1), chosen, axis=3)
    once = np.stack(seen, 1)

    def quartiles(means: np.ndarray) -> np.ndarray:
        gaps = np.einsum("ca,rbas->rcbs", weights, means)
        return trim_mean(gaps.reshape(*gaps.shape[:2], -1), 0.25, axis=2)

    def chances(means: np.ndarray) -> np.ndarray:
        count, benchmarks = means.shape[:2]
        flat = means.transpose(2, 0, 1, 3).reshape(arms, count * benchmarks, seeds)
        shares = [superiority(flat[i], flat[j]).reshape(count, benchmarks).mean(1) for i, j in pairs]
        return np.stack(shares, 1)

    return (
        _with_interval(quartiles(once), quartiles(again), tails),
        _with_interval(chances(once), chances(again), tails[arms:]),
    )


def _with_interval(found: np.ndarray, again: np.ndarray, tails: Sequence[float]) -> list[Triple]:
    spans = [np.quantile(column, [tail, 1 - tail]) for column, tail in zip(again.T, tails, strict=True)]
    return [(float(f), float(low), float(high)) for f, (low, high) in zip(found[0], spans, strict=True)]


def _holm(pairs: Sequence[Aggregated]) -> list[Aggregated]:
    return [
        replace(pair, p_adjusted=p) for pair, p in zip(pairs, holm_values([q.p for q in pairs]), strict=True)
    ]


def _points(value: float, low: float | None, high: float | None) -> str:
    text = f"{100 * value:+.1f}"
    return text if low is None or high is None else f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]"


def aggregate_table(found: Aggregate) -> Table:
    """Every encoder against the mean of all, best first, then every pair."""
    rows = []
    for one in (*found.field.values(), *found.pairs.values()):
        name = f"{one.a.label} − {'all' if one.b is None else one.b.label}"
        p = one.p if one.p_adjusted is None else one.p_adjusted
        chance = one.improvement
        rows.append(
            (
                name,
                _points(one.mean, one.low, one.high) + (" *" if one.b is not None and one.shown else ""),
                "–" if p is None or one.b is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
                _points(one.iqm, one.iqm_low, one.iqm_high),
                "–" if chance is None else f"{chance[0]:.2f} [{chance[1]:.2f}, {chance[2]:.2f}]",
            )
        )
    columns = (
        "difference",
        "mean of paired differences [95 %]",
        "p (Holm)",
        "interquartile mean [95 %]",
        "probability of improvement [95 %]",
    )
    return Table(columns, tuple(rows))


def aggregate_words(found: Aggregate) -> str:
    """What an aggregate table shows, for the line above it."""
    text = (
        f"Over {', '.join(found.benchmarks)}, each counted the same, in points; *all* is the mean of the encoders "
        "compared. The interquartile mean leaves out the lowest and highest quarter of benchmarks × seeds. Its "
        "interval and that of the probability of improvement come from 2,000 bootstrap samples of pictures and seeds."
    )
    if len(found.benchmarks) * found.seeds < 4:
        text += " With fewer than four of them nothing is left out, and it is their mean."
    if found.seeds == 1:
        text += " One training seed: training noise is in none of these intervals."
    if found.left_out:
        text += f" Left out, not on every benchmark: {', '.join(arm.label for arm in found.left_out)}."
    return text
