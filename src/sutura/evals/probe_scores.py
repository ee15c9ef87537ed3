"""Scores of probes with their intervals, and what knowing nothing would score."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from numpy.typing import NDArray

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.data.classes import Labels

Scores = Float[np.ndarray, "draws pictures classes"]
QUANTILE = 1.959963984540054
"""Of a 95 % interval."""


@dataclass(frozen=True)
class Score:
    """One figure of a table.

    Args:
        metric: `accuracy`, or `mAP`, mean average precision over classes.
        score: between 0 and 1.
        low, high: 95 % interval.
        interval: what the interval was taken over, and how.
        n: test pictures.
        base: the same metric of an answer that ignores the picture.
        base_of: what that answer is.
        draws: of the pictures fitted on.
        classes: with at least one test picture; average precision leaves the others out.
    """

    metric: str
    score: float
    low: float
    high: float
    interval: str
    n: int
    base: float
    base_of: str
    draws: int
    classes: int

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def wilson(hits: float, n: float) -> tuple[float, float]:
    """95 % interval of a share.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share, extra = hits / n, QUANTILE**2 / n
    centre = (share + extra / 2) / (1 + extra)
    half = QUANTILE * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def scored(
    scores: Scores, labels: Labels, *, majority: int, classes: tuple[str, ...], resamples: int, seed: int
) -> Score:
    """Judge scores of test pictures, one draw of fitted pictures or several.

    Args:
        scores: higher is likelier.
        labels: of the test pictures.
        majority: the class most pictures fitted on have; what a single-label set is compared with.
        classes: names.
        resamples: of the bootstrap.
        seed: of it.

    Raises:
        UserError: scores that are not finite, or no class with a test picture.
    """
    if not np.isfinite(scores).all():
        raise UserError("The probe's scores are not all finite; look at the encoder's features.")
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    draws, n, _ = scores.shape
    if labels.ndim == 1:
        right = (scores.argmax(axis=2) == labels).astype(np.float64)  # draws, pictures
        point = float(right.mean())
        low, high, how = *wilson(point * n, n), "Wilson"
        if draws > 1:  # at least as wide as one draw's: where every draw is perfect a bootstrap has no width
            resampled = _quantiles(_resampled_means(right, resamples, rng))
            low, high, how = min(low, resampled[0]), max(high, resampled[1]), _TWO_WAY
        base = float((labels == majority).mean())
        name = f"always {classes[majority]!r}, the commonest of those fitted on"
        return Score("accuracy", point, low, high, how, n, base, name, draws, len(np.unique(labels)))
    truth = labels > 0.5
    shown = truth.any(axis=0)
    if not shown.any():
        raise UserError("No class is shown by any test picture; there is nothing to score.")
    once = np.ones((1, n))
    points = [float(average_precision(one, truth, once)[0]) for one in scores]
    point = float(np.mean(points))
    replicates = _resampled_precision(scores, truth, resamples, rng)
    # Pictures that repeat in a resample raise its average precision; that bias is taken off.
    low, high = _quantiles(np.clip(replicates - np.nanmean(replicates) + point, 0.0, 1.0))
    how = "bootstrap over pictures" if draws == 1 else _TWO_WAY
    base = float(truth[:, shown].mean())
    return Score("mAP", point, low, high, how, n, base, "a constant", draws, int(shown.sum()))


_TWO_WAY = "bootstrap over draws and pictures"


def plain_score(scores: Float[np.ndarray, "pictures classes"], labels: Labels) -> float:
    """The metric alone, to choose by: accuracy, or mean average precision of a multi-label set."""
    if labels.ndim == 1:
        return float((scores.argmax(axis=1) == labels).mean())
    return float(average_precision(scores, labels > 0.5, np.ones((1, len(labels))))[0])


def average_precision(
    scores: Num[np.ndarray, "pictures classes"],
    truth: Bool[np.ndarray, "pictures classes"],
    counts: Num[np.ndarray, "replicates pictures"],
) -> Float[np.ndarray, " replicates"]:
    """Average precision of each class with a positive, averaged, where picture i stands `counts[:, i]` times.

    Tied scores count as found together, so the order of the pictures changes nothing.
    """
    places = np.arange(scores.shape[1])
    order = np.argsort(-scores, axis=0, kind="stable")
    sorted_scores, hit = scores[order, places], truth[order, places]
    tied = np.concatenate([sorted_scores[1:] == sorted_scores[:-1], np.zeros((1, len(places)), bool)])
    out = np.empty(len(counts))
    for r, weights in enumerate(counts):
        weight = weights[order].astype(np.float64)  # pictures, classes
        hits, seen = (weight * hit).cumsum(axis=0), weight.cumsum(axis=0)
        # Within a run of ties both sums are those of the run's last picture.
        hits, seen = _at_the_end_of_ties(hits, tied), _at_the_end_of_ties(seen, tied)
        found = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        positives = (weight * hit).sum(axis=0)
        sums = (weight * hit * found).sum(axis=0)
        alive = positives > 0
        out[r] = (sums[alive] / positives[alive]).mean() if alive.any() else np.nan
    return out


def _at_the_end_of_ties(values: NDArray[np.float64], tied: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each value replaced by the last one of its run; sums only grow, so a minimum from below finds it."""
    return np.minimum.accumulate(np.where(tied, np.inf, values)[::-1], axis=0)[::-1]


def _resampled_means(
    right: Float[np.ndarray, "draws pictures"], resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, " resamples"]:
    draws, n = right.shape
    by_draw = rng.multinomial(draws, np.full(draws, 1 / draws), size=resamples) / draws
    by_picture = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    return ((by_draw @ right) * by_picture).sum(axis=1)


def _resampled_precision(
    scores: Scores, truth: Bool[np.ndarray, "pictures classes"], resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, " resamples"]:
    draws, n, _ = scores.shape
    by_draw: Int[np.ndarray, "resamples draws"] = rng.multinomial(
        draws, np.full(draws, 1 / draws), size=resamples
    )
    by_picture = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    total = np.zeros(resamples)
    for d in range(draws):
        used = by_draw[:, d] > 0
        total[used] += by_draw[used, d] / draws * average_precision(scores[d], truth, by_picture[used])
    return total


def _quantiles(values: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
