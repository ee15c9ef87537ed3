"""The variance of a mean over pictures *and* training seeds, for whole batches of tables at once.

Every model of a comparison answers the same items, so scores form a table of seeds × pictures in which both
sides are samples: other pictures could have been drawn, and another seed would have trained another model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri

#: How sure the upper bound of the seeds' mean square is, for degrees of freedom.
BOUND = 0.90
#: A mean square of seeds that is below this share of what no seed noise gives is luck.
LUCK = 0.05


class Crossed(NamedTuple):
    """Mean and uncertainty of one table of scores, or of a batch of them.

    Args:
        mean: total score over total items.
        variance: of the mean; NaN where one picture leaves nothing to compare with.
        df: degrees of freedom for a t quantile.
        seed_sd: standard deviation between training seeds, what items alone would cause taken out; NaN with
            one seed.
    """

    mean: Float[np.ndarray, "*batch"]
    variance: Float[np.ndarray, "*batch"]
    df: Float[np.ndarray, "*batch"]
    seed_sd: Float[np.ndarray, "*batch"]


def crossed(
    sums: Float[np.ndarray, "*batch seeds pictures"], sizes: Float[np.ndarray, "*batch pictures"]
) -> Crossed:
    """Two-way random-effects variance of a ratio mean.

    A picture is a cluster of `sizes` items. Residuals of the ratio estimator, sum − mean × size, make a
    two-way table whose mean squares for pictures (P), seeds (S) and their interaction (I) give

        variance = (MS_S + max(MS_P − MS_I, 0)) / (pictures × seeds),

    with Satterthwaite's degrees of freedom. Out of few seeds a small MS_S is as often luck as quiet training, and taken
    at its word it calls same against same different too often, most of all far out where Holm's correction looks. So it
    counts for no less than the lowest 5 % of what MS_I alone would let it be (no seed noise at all), and the degrees of
    freedom are those that hold if it is at its upper 90 % bound. With one seed only the pictures' part can be had, and
    training noise is missing from it.

    Args:
        sums: score of each picture's items, added up.
        sizes: items of each picture; pictures without items (size 0) must not be in the table.

    Source: Miller 2024, arXiv:2411.00640, section 2.2 (clusters); Cochran 1977, Sampling Techniques, 6.4
        (ratio estimator); Satterthwaite 1946 (degrees of freedom); Searle 1971 for the crossed mean squares.
    Differs: the seeds' part, which Miller does not have; the bounds on the pictures' component and on MS_S (what they
        change in simulations stands in docs/statistics.md).
    """
    seeds, pictures = sums.shape[-2:]
    items = sizes.sum(-1)
    mean = sums.sum((-2, -1)) / (seeds * items)
    if pictures < 2:
        nothing = np.full_like(mean, np.nan)
        return Crossed(mean, nothing, nothing, nothing)
    residual = sums - mean[..., None, None] * sizes[..., None, :]
    residual = residual / (items / pictures)[..., None, None]
    of_picture, of_seed = residual.mean(-2), residual.mean(-1)
    ms_picture = seeds * (of_picture**2).sum(-1) / (pictures - 1)
    if seeds < 2:
        df = np.full_like(mean, pictures - 1)
        return Crossed(mean, ms_picture / pictures, df, np.full_like(mean, np.nan))
    ms_seed = pictures * (of_seed**2).sum(-1) / (seeds - 1)
    inner = residual - of_picture[..., None, :] - of_seed[..., :, None]
    ms_inner = (inner**2).sum((-2, -1)) / ((pictures - 1) * (seeds - 1))
    seed_sd = np.sqrt(np.maximum(ms_seed - ms_inner, 0) / pictures)
    ms_seed = at_least(ms_seed, ms_inner, seeds)
    total = ms_seed + np.maximum(ms_picture - ms_inner, 0)
    df = degrees(ms_picture, ms_seed, ms_inner, seeds, pictures)
    return Crossed(mean, total / (pictures * seeds), df, seed_sd)


def at_least(
    ms_seed: Float[np.ndarray, "*batch"], ms_inner: Float[np.ndarray, "*batch"], seeds: int
) -> Float[np.ndarray, "*batch"]:
    """The seeds' mean square, no lower than bad luck makes it where seeds add no noise."""
    return np.maximum(ms_seed, ms_inner * chdtri(seeds - 1, 1 - LUCK) / (seeds - 1))


def degrees(
    ms_picture: Float[np.ndarray, "*batch"],
    ms_seed: Float[np.ndarray, "*batch"],
    ms_inner: Float[np.ndarray, "*batch"],
    seeds: int,
    pictures: float,
) -> Float[np.ndarray, "*batch"]:
    """Satterthwaite's degrees of freedom of `crossed`, the seeds' mean square at its upper bound."""
    high = ms_seed * (seeds - 1) / chdtri(seeds - 1, BOUND)
    total = high + np.maximum(ms_picture - ms_inner, 0)
    spread = (
        ms_picture**2 / (pictures - 1) + high**2 / (seeds - 1) + ms_inner**2 / ((pictures - 1) * (seeds - 1))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(spread > 0, total**2 / spread, pictures - 1)
    return np.maximum(df, min(pictures, seeds) - 1)
